"""``dream3d evaluate``: priors and assets measured on a list of prompts, and the user study as a kit."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dream3d import checks
from dream3d.cli import options
from dream3d.cli.batch import check_workers
from dream3d.cli.group import DebugOption, OneLineGroup, SectionedCommand, command_group, say
from dream3d.cli.study import preferences, study
from dream3d.errors import UsageError, escaped

if TYPE_CHECKING:
    from dream3d.cli.evaluate_inputs import Asked
    from dream3d.evaluation.suite.report import Evaluation
    from dream3d.evaluation.suite.store import Result
    from dream3d.evaluation.suite.summary import Summary

DEFAULT = "measure"


class EvaluateGroup(OneLineGroup):
    """A group whose first word may be left out: what names no command of it is something to measure."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does, with :data:`DEFAULT` before what is no command."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


evaluate = command_group("Measure priors and assets, and ask people which they prefer.", EvaluateGroup)

prompts_option = partial(typer.Option, rich_help_panel="Prompts")
worker_option = partial(typer.Option, rich_help_panel="Workers")

SubjectsArgument = Annotated[
    list[str],
    typer.Argument(help="Priors, folders of assets, and models; each is a column.", metavar="SUBJECT..."),
]
OutDirOption = Annotated[Path, typer.Option(help="Folder for results, table and page; a second call goes on with it.")]
ProtocolOption = Annotated[
    Literal["quick", "mvdream", "ood", "ind", "dreamfusion"] | None,
    prompts_option(help="Prompts and what they are compared with.", show_default="quick; the assets' own prompts"),
]
PromptsOption = Annotated[
    Path | None, prompts_option(help="A list of your own: .txt, .csv, .jsonl.", show_default="none")
]
LimitOption = Annotated[int | None, prompts_option(help="Prompts at most.", show_default="the protocol's")]
ReferenceOption = Annotated[
    Path | None,
    prompts_option(help="Shards with held-out objects, for mvdream and ind.", show_default="none"),
]
CorpusOption = Annotated[
    str | None, prompts_option(help="Corpus that ood finds pictures in.", show_default="the built-in one")
]
DrawByOption = Annotated[
    str, prompts_option(help="In ood, what priors draw by, a column each: text, pictures, one-picture.")
]
FusionOption = Annotated[str, prompts_option(help="With --draw-by pictures, how far to trust the text: 0 to 1.")]
JudgeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Prior whose image encoder judges, or folder of a network that does; may be repeated.",
        show_default="the first prior's, or mini's",
    ),
]
EngineOption = Annotated[Literal["local", "ray"], worker_option(help="This process, or a Ray cluster.")]
WorkersOption = Annotated[int, worker_option(help="Tasks of --engine ray.")]
AddressOption = Annotated[str | None, worker_option(help="Address of the Ray cluster.", show_default="a local one")]
StepsOption = Annotated[int | None, typer.Option(help="Denoising steps of priors.", show_default="the prior's")]


@evaluate.command(cls=SectionedCommand)
def measure(
    subjects: SubjectsArgument,
    protocol: ProtocolOption = None,
    prompts: PromptsOption = None,
    limit: LimitOption = None,
    reference: ReferenceOption = None,
    corpus: CorpusOption = None,
    draw_by: DrawByOption = "text",
    fusion: FusionOption = "auto",
    seeds: options.SeedsOption = "0",
    judge: JudgeOption = None,
    steps: StepsOption = None,
    out_dir: OutDirOption = Path("evaluation"),
    engine: EngineOption = "local",
    workers: WorkersOption = 1,
    address: AddressOption = None,
    device: options.DeviceOption = "auto",
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure priors and assets on a list of prompts (the word "measure" may be left out).

    Example: dream3d evaluate mini --protocol quick --limit 4
    """
    from dream3d.cli.evaluate_inputs import Asked, prepare
    from dream3d.locks import held

    checks.check_device_name(device)
    checks.check_run_dir(out_dir, "--out-dir")
    cluster = Cluster(engine, workers, address)
    numbers, ways = tuple(checks.parse_seeds(seeds)), tuple(way.strip() for way in draw_by.split(","))
    asked = Asked(tuple(subjects), protocol, prompts, limit, reference, corpus, numbers, steps, ways, fusion)
    evaluation = prepare(asked, tuple(judge or ()), device)

    from dream3d.evaluation.suite.report import run_evaluation
    from dream3d.evaluation.suite.store import PAGE, RECORD
    from dream3d.run.folder import LOCK

    out_dir.mkdir(parents=True, exist_ok=True)
    busy = f"another evaluation is at work in {out_dir}; wait for it, or choose another --out-dir"
    with held(out_dir / LOCK, busy):
        elsewhere = _fill(cluster, asked, tuple(judge or ()), device, out_dir, quiet) if engine == "ray" else 0
        summaries, here = run_evaluation(evaluation, out_dir, _told(evaluation, quiet or engine == "ray"))
    if quiet:
        say(out_dir / RECORD)
        return
    _print(summaries)
    for note in evaluation.notes():
        say(f"note: {note}", err=True)
    say(f"computed    {elsewhere + here} answers; the rest was there")
    say(f"record      {out_dir / RECORD}")
    say(f"page        {out_dir / PAGE}")


@dataclass(frozen=True)
class Cluster:
    """Where answers are computed. UsageError for what does not go together."""

    engine: str
    tasks: int
    address: str | None

    def __post_init__(self) -> None:
        check_workers(self.tasks)
        if self.engine != "ray" and (self.address or self.tasks != 1):
            raise UsageError("--workers and --address go with --engine ray")


def _fill(cluster: Cluster, asked: Asked, judges: tuple[str, ...], device: str, out_dir: Path, quiet: bool) -> int:
    """Let a Ray cluster compute the answers; how many it did."""
    from dream3d.cli.device import resolve_device
    from dream3d.cli.evaluate_inputs import absolute, prepare
    from dream3d.evaluation.suite.cluster import fill_on_ray
    from dream3d.evaluation.suite.store import claim_folder
    from dream3d.threads import threads_per_worker

    def tell(count: int) -> None:
        if not quiet:
            say(f"{count} answers in {out_dir}", err=True)

    claim_folder(out_dir)
    again = partial(prepare, asked.everywhere(), tuple(map(absolute, judges)), device)
    threads, place = threads_per_worker(cluster.tasks), out_dir.absolute()
    # Ray writes paragraphs about lost workers to stdout, which is for results; they are in its logs too.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        return fill_on_ray(again, place, cluster.tasks, threads, resolve_device(device), cluster.address, tell)


for _function in (study, preferences):
    evaluate.command()(_function)


def _told(evaluation: Evaluation, quiet: bool) -> Callable[[str, Result], None]:
    """Says a line for each answer, unless all is to be quiet."""
    total = len(evaluation.subjects) * len(evaluation.cases) * len(evaluation.seeds)
    count = 0

    def tell(name: str, result: Result) -> None:
        nonlocal count
        count += 1
        if quiet:
            return
        failure = f": {result.failure}" if result.failure else ""
        say(f"{count} of at most {total}: {name}, {result.prompt}, seed {result.seed}{failure}", err=True)

    return tell


def _print(summaries: list[Summary]) -> None:
    from rich.table import Table

    from dream3d.cli.console import make_console
    from dream3d.evaluation.suite.page import table_of

    headers, rows = table_of(summaries)
    table = Table(*map(escaped, headers), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escaped, row))
    make_console().print(table)
