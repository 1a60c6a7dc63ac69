"""A Ray cluster to work on, for batches and corpora."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from dream3d.errors import Dream3DError, UsageError


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
        ray.init(address=address, num_cpus=started, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Dream3DError(f"no Ray cluster at {address or 'this machine'} ({str(error)[:200]})") from error
    try:
        yield ray
    finally:
        ray.shutdown()
