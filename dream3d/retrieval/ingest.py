"""Pictures of sources into a corpus, by one process or several; killed and begun again it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from dream3d.bounds import Between, Options
from dream3d.errors import DatasetError
from dream3d.processes import Answer, Loss, run_jobs
from dream3d.retrieval.dedupe import look
from dream3d.retrieval.encoder import CorpusEncoder
from dream3d.retrieval.lance import LanceStore, NewRow
from dream3d.retrieval.pictures import Checked, check_picture
from dream3d.retrieval.readers.read import read_pictures
from dream3d.retrieval.readers.skipped import Skipped
from dream3d.retrieval.records import Picture
from dream3d.retrieval.store import Row
from dream3d.retrieval.terms import terms

AT_ONCE = 256
"""Pictures that one process prepares together."""
PER_APPEND = 4096
"""Rows that are written together; a killed ingest loses at most these."""
SILENCE_SECONDS = 300.0
"""For a process to prepare :data:`AT_ONCE` pictures; it is ended after that."""
Report = Callable[["Summary"], None]


@dataclass(frozen=True)
class AddOptions(Options):
    """How pictures are added."""

    workers: Annotated[int, Between(1, 256)] = 1
    """Processes."""
    picture_vectors: bool = True
    """Whether pictures get vectors too; without, they are found by their captions alone, and adding is faster."""
    uncaptioned: bool = False
    """Whether pictures without a caption are added; see :mod:`dream3d.retrieval.captioning`."""


@dataclass
class Summary:
    """What became of the pictures of the sources."""

    added: int = 0
    known: int = 0
    """That the corpus had already, or the source twice."""
    skipped: Skipped = field(default_factory=Skipped)

    def merge(self, other: Summary) -> None:
        """All that another one counted."""
        self.added += other.added
        self.known += other.known
        self.skipped.merge(other.skipped)


def add(
    sources: Sequence[Path],
    store: LanceStore,
    encoder: CorpusEncoder,
    folder: Path,
    options: AddOptions,
    part: tuple[int, int] = (0, 1),
    report: Report = lambda summary: None,
) -> Summary:
    """Add the pictures of sources that a store does not have yet. ``report`` hears how far it is.

    ``folder`` is the encoder's, for further processes. Pictures that cannot be decoded are skipped and counted.
    Raises DatasetError for a source that cannot be read at all; what was added before stays.
    """
    summary, waiting = Summary(), list[NewRow]()
    known = store.keys()
    batches = _batches(sources, known, summary, part, options.uncaptioned)
    with closing(_prepared(batches, encoder, folder, options)) as prepared:
        for rows, skipped in prepared:
            summary.skipped.merge(skipped)
            waiting += rows
            if len(waiting) >= PER_APPEND:
                store.append(waiting)
                summary.added, waiting = summary.added + len(waiting), []
            report(summary)
    store.append(waiting)
    summary.added += len(waiting)
    report(summary)
    return summary


def _batches(
    sources: Sequence[Path], known: set[str], summary: Summary, part: tuple[int, int], uncaptioned: bool
) -> Iterator[list[Picture]]:
    """New pictures, :data:`AT_ONCE` at a time; ``known`` learns their keys."""

    def new() -> Iterator[Picture]:
        for source in sources:
            for one in read_pictures(source, summary.skipped, part, uncaptioned=uncaptioned):
                key = one.key
                if key in known:
                    summary.known += 1
                    continue
                known.add(key)
                yield one

    stream = new()
    while batch := list(islice(stream, AT_ONCE)):
        yield batch


Prepared = tuple[list[NewRow], Skipped]


def _prepared(
    batches: Iterator[list[Picture]], encoder: CorpusEncoder, folder: Path, options: AddOptions
) -> Generator[Prepared, None, None]:
    """The rows of every batch, in any order."""
    if options.workers == 1:
        yield from (prepare(batch, encoder, options.picture_vectors) for batch in batches)
        return
    ahead = 2 * options.workers
    jobs = deque(islice(batches, ahead))
    with closing(
        run_jobs(
            jobs,
            partial(_worker, folder, options.picture_vectors),
            options.workers,
            silence_seconds=SILENCE_SECONDS,
        )
    ) as events:
        for event in events:
            if isinstance(event, Answer):
                yield event.content
            elif isinstance(event, Loss) and len(event.job) > 1:  # one of them did it; the others are not lost
                jobs.extend([one] for one in event.job)
            elif isinstance(event, Loss):
                skipped = Skipped()
                skipped.add(event.job[0].where, "took too long" if event.hung else "ended the process that read it")
                yield [], skipped
            if len(jobs) < ahead:
                jobs.extend(islice(batches, ahead - len(jobs)))


def _worker(folder: Path, picture_vectors: bool) -> Callable[[Any, Any], Prepared]:
    encoder = CorpusEncoder(folder)
    return lambda job, say: prepare(job, encoder, picture_vectors)


def prepare(batch: Sequence[Picture], encoder: CorpusEncoder, picture_vectors: bool) -> Prepared:
    """The rows of pictures that can be decoded, with their vectors."""
    skipped, good = Skipped(), list[tuple[Picture, Checked]]()
    for one in batch:
        try:
            good.append((one, check_picture(one.image)))
        except DatasetError as error:
            skipped.add(one.where, error)
    captions = encoder.captions([one.caption for one, _ in good])
    if picture_vectors:
        pictures = encoder.pictures([checked.rgb for _, checked in good])
    else:
        pictures = np.zeros((len(good), encoder.picture_width), np.float32)
    rows = [
        NewRow(
            Row(one.key, checked.image, one.caption, one.source, one.author, one.licence, look(checked.rgb)),
            " ".join(terms(one.caption)),
            checked.width,
            checked.height,
            captions[index],
            pictures[index],
        )
        for index, (one, checked) in enumerate(good)
    ]
    return rows, skipped
