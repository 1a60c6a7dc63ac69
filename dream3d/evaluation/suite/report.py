"""An evaluation from its beginning to its files: ``evaluation.json`` and ``evaluation.html``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dream3d.errors import UsageError
from dream3d.evaluation.suite.cases import Case, Color
from dream3d.evaluation.suite.measure import Judges, evaluate
from dream3d.evaluation.suite.page import evaluation_page
from dream3d.evaluation.suite.store import FORMAT, PAGE, RECORD, Result, ResultStore, claim_folder
from dream3d.evaluation.suite.subjects import Subject, TruthSubject
from dream3d.evaluation.suite.summary import Summary, summarise, with_differences
from dream3d.files import remove_leftovers, write_json, write_text
from dream3d.version import __version__

NOT_COMPARABLE = (
    "The networks that judge here are not those of published tables (Inception, CLIP, DINO), or were not shown to be. "
    "Compare the columns with each other, not with published numbers."
)
FEW = 50
"""Prompts below which figures of whole sets say little."""


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on what, and by whom."""

    protocol: str
    """For the title: a protocol's name, or what the prompts are."""
    subjects: Sequence[Subject]
    cases: Sequence[Case]
    seeds: Sequence[int]
    judges: Judges

    def check(self) -> None:
        """Raises UsageError for nothing to evaluate, and for two subjects of one name."""
        names = [subject.name for subject in self.subjects]
        if not names or not self.cases or not self.seeds:
            raise UsageError(f"{len(names)} subjects and {len(self.cases)} prompts: nothing to evaluate")
        if len(set(names)) < len(names):
            raise UsageError(f"two subjects are called alike ({', '.join(names)}); their names head the columns")

    def notes(self) -> list[str]:
        """What a reader has to know."""
        notes = [NOT_COMPARABLE]
        if self.judges.classifier is None:
            notes.append(
                "No classifier is installed (pip install 'dream3d[evaluate]'): there is no inception score, and "
                f"Fréchet distances are of the vectors of the {self.judges.encoder.name}."
            )
        if len(self.cases) < FEW:
            notes.append(
                f"{len(self.cases)} prompts are few: Fréchet distances and inception scores depend on their number."
            )
        return notes


def run_evaluation(
    evaluation: Evaluation, folder: Path, on_result: Callable[[str, Result], object] = lambda name, result: None
) -> tuple[list[Summary], int]:
    """Evaluate, and write the record and the page into ``folder``; also says how many results were computed anew.

    Results of earlier, unfinished calls are used. Whoever calls holds the folder's lock. ``on_result`` hears the
    subject's name and each result. Raises UsageError for a folder with other things in it.
    """
    evaluation.check()
    claim_folder(folder)
    store = ResultStore(folder)
    for left in (folder, folder / "results"):
        remove_leftovers(left)
    captions = _captions(evaluation)
    references: dict[Color, Tensor | None] = {}
    summaries = []
    for subject in evaluation.subjects:
        if subject.background not in references:
            references[subject.background] = _reference(evaluation, subject.background, store)
        results = evaluate(
            subject,
            evaluation.cases,
            evaluation.seeds,
            evaluation.judges,
            store,
            lambda result, name=subject.name: on_result(name, result),  # type: ignore[misc]
        )
        summaries.append(summarise(subject.name, results, captions, references[subject.background]))
    summaries = with_differences(summaries, captions)
    write_json(folder / RECORD, record_of(evaluation, summaries))
    write_text(folder / PAGE, page_of(evaluation, summaries))
    return summaries, store.computed


def record_of(evaluation: Evaluation, summaries: Sequence[Summary]) -> dict[str, Any]:
    """The record as plain data: no time and no path, so that a call that was stopped and repeated writes the same."""
    judges = evaluation.judges
    return {
        "format": FORMAT,
        "status": "finished",
        "protocol": evaluation.protocol,
        "prompts": list(dict.fromkeys(case.prompt for case in evaluation.cases)),
        "seeds": list(evaluation.seeds),
        "judges": {
            "classifier": None,
            **{role: {"name": one.name, "sha256": one.digest} for role, one in judges.all.items()},
        },
        "comparable_with_published_numbers": False,
        "notes": evaluation.notes(),
        "subjects": {summary.name: summary.record() for summary in summaries},
        "versions": {"dream3d": __version__, "torch": torch.__version__},
    }


def page_of(evaluation: Evaluation, summaries: Sequence[Summary]) -> str:
    """The page."""
    judges = evaluation.judges
    lines = [
        f"{len(evaluation.cases)} prompts, seeds {', '.join(map(str, evaluation.seeds))}",
        "judged by " + " and ".join(one.name for one in judges.all.values()),
    ]
    return evaluation_page(f"Evaluation: {evaluation.protocol}", lines, evaluation.notes(), summaries)


def _captions(evaluation: Evaluation) -> dict[str, Tensor]:
    prompts = list(dict.fromkeys(case.prompt for case in evaluation.cases))
    return dict(zip(prompts, evaluation.judges.encoder.embed_texts(prompts), strict=True))


def _reference(evaluation: Evaluation, background: Color, store: ResultStore) -> Tensor | None:
    """(M, F) features of the held-out renders over a colour; None without them. They are kept as any other result."""
    truth = evaluate(TruthSubject(background), evaluation.cases, [0], evaluation.judges, store)
    return torch.cat([one.features for one in truth]) if truth else None
