"""Arguments and options that several commands share: one name and one help text for each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dream3d.errors import UsageError


def _file(text: str) -> Path:
    if text.endswith(("/", "/.")):  # Path would drop it
        raise UsageError(f"{text} is the name of a folder; name a file, without the slash at the end")
    return Path(text)


file_option = partial(typer.Option, parser=_file, metavar="<path>")
device_option = partial(typer.Option, rich_help_panel="Device and memory")
run_option = partial(typer.Option, rich_help_panel="Run")

PromptArgument = Annotated[str, typer.Argument(help="The object, in one sentence, in quotes.", metavar="PROMPT")]
PriorOption = Annotated[str, typer.Option("--prior", help="Diffusion prior: a name of 'models list', or a folder.")]
SeedsOption = Annotated[str, typer.Option(help="Random seeds: 7, 0..3 (or 0-3), or 1,4,9.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print only the path of the output.")]

DeviceOption = Annotated[str, device_option(help="auto, cpu, cuda or cuda:N.")]
VramOption = Annotated[
    float | None, device_option(help="GPU memory budget (GB); below 16, slower steps.", show_default="no limit")
]
PrecisionOption = Annotated[str, device_option(help="UNet precision: auto, fp16, bf16 or fp32.")]
CompileOption = Annotated[bool, device_option("--compile", help="Compile the UNet first (needs a C++ compiler).")]

CheckpointOption = Annotated[float, run_option(help="Minutes between checkpoints, for 'dream3d resume'; 0: none.")]
