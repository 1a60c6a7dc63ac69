"""Adding to a corpus by the machines of a Ray cluster, all into one store. Needs the extra ``ray``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dream3d.errors import DatasetError, Dream3DError
from dream3d.ray_cluster import ray_cluster
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.ingest import AddOptions, Report, Summary, add
from dream3d.retrieval.lance import open_store

ATTEMPTS = 3
"""Of a task whose machine is lost: what is in the store already is not added again."""


def add_on_ray(
    sources: Sequence[Path],
    location: str,
    folder: Path,
    options: AddOptions,
    address: str | None = None,
    report: Report = lambda summary: None,
) -> Summary:
    """Add the pictures of sources to the store at ``location``, which is there already, by ``options.workers`` tasks.

    Each task reads every n-th picture of every source, so sources, store and the encoder's ``folder`` must be where all
    machines see them. ``address`` is that of a running cluster; without one a local Ray is started and stopped. Raises
    UsageError without ray, Dream3DError for a cluster that cannot be reached or a task that failed.
    """
    with ray_cluster(address, options.workers, "ray,retrieve") as ray:
        task = ray.remote(_add_part).options(num_cpus=1, max_retries=ATTEMPTS - 1, retry_exceptions=False)
        places = [str(source) for source in sources]
        parts = [(index, options.workers) for index in range(options.workers)]
        alone = replace(options, workers=1)
        waiting = [task.remote(places, location, str(folder), alone, part) for part in parts]
        summary = Summary()
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            summary.merge(_result(ray, done[0]))
            report(summary)
    return summary


def _add_part(sources: list[str], location: str, folder: str, options: AddOptions, part: tuple[int, int]) -> Summary:
    encoder = CorpusEncoder(Path(folder))
    store = open_store(location, encoder.fingerprint)
    return add([Path(source) for source in sources], store, encoder, Path(folder), options, part)


def _result(ray: Any, reference: Any) -> Summary:
    again = "what was added stays; run it again to go on"
    try:
        summary: Summary = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise DatasetError(f"a part was not added: {str(error.cause)[:300]}; {again}") from error
    except ray.exceptions.RayError as error:
        raise Dream3DError(f"a worker was lost {ATTEMPTS} times ({type(error).__name__}); {again}") from error
    return summary
