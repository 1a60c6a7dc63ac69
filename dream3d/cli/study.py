"""``dream3d evaluate study`` and ``dream3d evaluate preferences``: the user study as a kit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream3d import checks
from dream3d.cli import options
from dream3d.cli.group import DebugOption, say
from dream3d.cli.options import file_option
from dream3d.errors import UsageError, escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dream3d.evaluation.preference import Preference
    from dream3d.evaluation.study.answers import Collected

KEY_ENDING = ".key.json"
MAX_QUESTIONS = 1000
BACKGROUND = (0.914, 0.922, 0.933)
"""Behind the assets, sRGB: a light grey, which is no system's own."""

FoldersArgument = Annotated[list[Path], typer.Argument(help="Folders of assets, one of each system.", metavar="DIR...")]
PageOption = Annotated[
    Path | None, file_option("--out", help="The page, .html; its key goes beside it.", show_default="study.html")
]
QuestionsOption = Annotated[int, typer.Option(help="Questions at most.")]
PromptsOption = Annotated[
    Path | None,
    typer.Option(help="Ask about the prompts of this list alone.", show_default="all that two systems have"),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the order, and of who stands left.")]
AnswersArgument = Annotated[list[Path], typer.Argument(help="Files that the page saved.", metavar="ANSWERS...")]
KeyOption = Annotated[Path, typer.Option(help="The key that was written with the page.")]
OutOption = Annotated[Path | None, file_option("--out", help="Also write the figures, .json.", show_default="none")]


def study(
    folders: FoldersArgument,
    out: PageOption = None,
    questions: QuestionsOption = 60,
    prompts: PromptsOption = None,
    seed: SeedOption = 0,
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write a blind page that asks people which of two assets is better; it works without a network.

    Example: dream3d evaluate study ours/ theirs/ --out study.html
    """
    checks.check_seed(seed)
    if not 1 <= questions <= MAX_QUESTIONS:
        raise UsageError(f"--questions is 1 to {MAX_QUESTIONS}, got {questions}")
    if len(folders) < 2:
        raise UsageError("a study compares two systems or more; give a folder of assets for each")
    out = checks.check_output_file(out or Path("study.html"), extensions=(".html",))
    key = out.with_name(out.stem + KEY_ENDING)
    for path in (out, key):
        if os.path.lexists(path):
            raise UsageError(f"{path} is there already, and people may be answering it; choose another --out")

    import numpy as np

    from dream3d.batch.prompts import read_lists
    from dream3d.evaluation.study.page import study_page
    from dream3d.evaluation.study.questions import make_study
    from dream3d.evaluation.suite.cases import cases_of_prompts
    from dream3d.evaluation.suite.subjects import assets_subject
    from dream3d.files import write_json, write_text

    names = [folder.resolve().name for folder in folders]
    names = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    systems = [assets_subject(name, [folder], BACKGROUND) for name, folder in zip(names, folders, strict=True)]
    asked = [prompt for one in systems for prompt in one.prompts]
    if prompts is not None:
        asked = [entry.prompt for entry in read_lists([prompts])]
    made = make_study(systems, cases_of_prompts(asked), questions, np.random.default_rng(seed))
    for line in made.unusable:
        say(f"warning: not used: {line}", err=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(key, made.key)  # first: a page without its key would be work for nothing
    write_text(out, study_page(made))
    if quiet:
        say(out)
        return
    say(f"questions   {len(made.questions)} about {len(systems)} systems")
    say(f"page        {out} (send this one; it does not say whose assets it shows)")
    say(f"key         {key} (keep this one to yourself)")


def preferences(
    answers: AnswersArgument,
    key: KeyOption = Path("study.key.json"),
    out: OutOption = None,
    seed: SeedOption = 0,
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Say which system people prefer: Bradley-Terry strengths with bootstrap intervals.

    Example: dream3d evaluate preferences answers-*.json --key study.key.json
    """
    checks.check_seed(seed)
    if out is not None:
        out = checks.check_output_file(out, extensions=(".json",))

    import numpy as np

    from dream3d.evaluation.preference import preferences as preferences_of
    from dream3d.evaluation.study.answers import read_answers, read_key

    known = read_key(key)
    collected = read_answers(answers, known)
    if not collected.answers:
        raise UsageError("the files hold no answer; somebody has to answer the page first")
    found = preferences_of(collected.answers, len(known.systems), np.random.default_rng(seed))
    if not quiet:
        _print(known.systems, found, collected)
    if out is not None:
        _write(out, known.systems, found, collected)
        say(out if quiet else f"wrote {out}")


def _print(systems: Sequence[str], found: Sequence[Preference], collected: Collected) -> None:
    from rich.table import Table

    from dream3d.cli.console import make_console
    from dream3d.evaluation.preference import MIN_PEOPLE

    table = Table("system", "preferred to the average", "95 % interval", "won", "asked", box=None, pad_edge=False)
    for name, one in sorted(zip(systems, found, strict=True), key=lambda pair: -pair[1].strength.value):
        strength = one.strength
        interval = f"{strength.low:.0%} to {strength.high:.0%}"
        table.add_row(escaped(name), f"{strength.value:.0%}", interval, f"{one.won:g}", str(one.asked))
    make_console().print(table)
    say(f"{len(collected.answers)} answers of {collected.people} people; {_sides(collected)}")
    if collected.people < MIN_PEOPLE:
        say(f"note: of fewer than {MIN_PEOPLE} people, intervals tell nothing of what others would say", err=True)


def _sides(collected: Collected) -> str:
    if not collected.chose:
        return "nobody preferred any"
    return f"{collected.left / collected.chose:.0%} of the choices were the left one"


def _write(out: Path, systems: Sequence[str], found: Sequence[Preference], collected: Collected) -> None:
    import dataclasses

    from dream3d.files import write_json

    record = {
        "systems": {name: dataclasses.asdict(one) for name, one in zip(systems, found, strict=True)},
        "answers": len(collected.answers),
        "people": collected.people,
        "left": collected.left,
        "chose": collected.chose,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, record)
