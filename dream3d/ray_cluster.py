"""A Ray cluster to work on, for batches, corpora and evaluations."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dream3d.errors import Dream3DError, UsageError

ATTEMPTS = 3
"""Of a task whose machine is lost, where what it has done stays done."""


@contextlib.contextmanager
def ray_cluster(address: str | None, cpus: int, extras: str) -> Iterator[Any]:
    """The module ``ray``, connected while it is held.

    ``address`` is that of a running cluster ("auto", "ray://host:10001"); without one, a local Ray of ``cpus`` CPUs is
    started and stopped. Raises UsageError that names our ``extras`` without ray, Dream3DError for a cluster that cannot
    be reached.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(f"--engine ray needs Ray; install it with: pip install 'dream3d[{extras}]'") from error
    try:
        started = None if address else cpus
        ray.init(
            address=address,
            num_cpus=started,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"worker_process_setup_hook": "dream3d.own_process.set_up"},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Dream3DError(f"no Ray cluster at {address or 'this machine'} ({str(error)[:200]})") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def gathered(
    ray: Any,
    tasks: Sequence[Any],
    failed: str,
    stays: str,
    poll_seconds: float | None = None,
    tell: Callable[[], object] = lambda: None,
) -> Iterator[Any]:
    """The results of tasks as they come; ``tell`` is called after each, and every ``poll_seconds``.

    Dream3DError for a task that failed, or was lost :data:`ATTEMPTS` times: with what ``failed``, and what ``stays``.
    """
    waiting = list(tasks)
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1, timeout=poll_seconds)
        for one in done:
            try:
                yield ray.get(one)
            except ray.exceptions.RayTaskError as error:
                cause = " ".join(str(error.cause).split())[:300]
                raise Dream3DError(f"{failed}: {cause}; {stays}, run it again to go on") from error
            except ray.exceptions.RayError as error:
                lost = f"a worker was lost {ATTEMPTS} times ({type(error).__name__})"
                raise Dream3DError(f"{lost}; {stays}, run it again to go on") from error
        tell()
