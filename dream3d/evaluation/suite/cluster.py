"""The answers of an evaluation by the machines of a Ray cluster, all into one store. Needs the extra ``ray``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from dream3d.evaluation.suite.measure import evaluate
from dream3d.evaluation.suite.report import Evaluation
from dream3d.evaluation.suite.store import RESULTS, ResultStore
from dream3d.evaluation.suite.subjects import TruthSubject
from dream3d.ray_cluster import ATTEMPTS, gathered, ray_cluster

POLL_SECONDS = 5.0
"""Between two looks at how many answers there are."""


def fill_on_ray(
    prepare: Callable[[], Evaluation],
    folder: Path,
    tasks: int,
    threads: int,
    device: str,
    address: str | None = None,
    on_count: Callable[[int], object] = lambda count: None,
) -> int:
    """Fill the store of an evaluation's folder by ``tasks`` tasks; how many answers they computed.

    ``prepare`` makes the evaluation anew in each of them, so priors, assets, judges and ``folder`` must be where all
    machines see them, by the same absolute paths. A task asks for ``threads`` CPUs, and on CUDA for a GPU. If its
    machine is lost it is tried again, and finds what it has computed. ``on_count`` hears how many answers are in the
    store. Raises UsageError without ray, Dream3DError for a cluster that cannot be reached or a task that failed.
    """
    with ray_cluster(address, tasks * threads, "ray") as ray:
        demand = {"num_cpus": threads, "num_gpus": 1 if device.startswith("cuda") else 0}
        task = ray.remote(compute_part).options(**demand, max_retries=ATTEMPTS - 1, retry_exceptions=False)
        waiting = [task.remote(prepare, str(folder), (index, tasks), threads) for index in range(tasks)]

        def tell() -> None:
            on_count(sum(1 for _ in (folder / RESULTS).glob("*.safetensors")))

        return sum(gathered(ray, waiting, "a part was not evaluated", "what was computed stays", POLL_SECONDS, tell))


def compute_part(prepare: Callable[[], Evaluation], folder: str, part: tuple[int, int], threads: int) -> int:
    """Every n-th prompt's answers of all subjects, and of the truth; how many were computed.

    ``part`` is the first prompt's place, and n.
    """
    torch.set_num_threads(threads)
    evaluation, store = prepare(), ResultStore(Path(folder))
    cases = evaluation.cases[part[0] :: part[1]]
    for subject in evaluation.subjects:
        evaluate(subject, cases, evaluation.seeds, evaluation.judges, store)
    for background in dict.fromkeys(subject.background for subject in evaluation.subjects):
        evaluate(TruthSubject(background), cases, [0], evaluation.judges, store)
    return store.computed
