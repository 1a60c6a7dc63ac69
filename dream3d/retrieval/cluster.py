"""Adding to a corpus by the machines of a Ray cluster, all into one store. Needs the extra ``ray``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dream3d.ray_cluster import ATTEMPTS, gathered, ray_cluster
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.ingest import AddOptions, Report, Summary, add
from dream3d.retrieval.lance import open_store


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
        # What is in the store already is not added again.
        task = ray.remote(_add_part).options(num_cpus=1, max_retries=ATTEMPTS - 1, retry_exceptions=False)
        places = [str(source) for source in sources]
        shares = [(index, options.workers) for index in range(options.workers)]
        alone = replace(options, workers=1)
        waiting = [task.remote(places, location, str(folder), alone, one) for one in shares]
        summary = Summary()
        for part in gathered(ray, waiting, "a part was not added", "what was added stays"):
            summary.merge(part)
            report(summary)
    return summary


def _add_part(sources: list[str], location: str, folder: str, options: AddOptions, part: tuple[int, int]) -> Summary:
    encoder = CorpusEncoder(Path(folder))
    store = open_store(location, encoder.fingerprint)
    return add([Path(source) for source in sources], store, encoder, Path(folder), options, part)
