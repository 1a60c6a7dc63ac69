"""``dream3d generate``: a sentence becomes a textured mesh file."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dream3d import checks
from dream3d.cli.group import DebugOption
from dream3d.errors import Dream3DError

if TYPE_CHECKING:
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.prior.memory import MemoryPlan
    from dream3d.recipe.generation import Recipe
    from dream3d.recipe.overrides import Overrides
    from dream3d.run.progress import Outcome

_LOADED_AT = time.monotonic()

PriorOption = Annotated[str, typer.Option("--prior", help="Name of a diffusion prior, or its folder.")]
OutOption = Annotated[
    Path | None, typer.Option(help="Mesh file: .glb, .obj, .ply or .stl.", show_default="the prompt's words + .glb")
]
NegativeOption = Annotated[str | None, typer.Option(help="What to avoid.", show_default="the preset's")]
StepsOption = Annotated[int | None, typer.Option(help="Optimisation steps.", show_default="the preset's")]
ScaleOption = Annotated[
    float | None, typer.Option(help="How strictly the prompt is followed.", show_default="the preset's")
]
PresetOption = Annotated[
    str | None, typer.Option(help="mini, mvdream or mvdream-shading.", show_default="what the prior recommends")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
VramOption = Annotated[
    float | None, typer.Option(help="Gigabytes of the card: less memory at once, slower steps.", show_default="plenty")
]
PrecisionOption = Annotated[str, typer.Option(help="Numbers of the UNet: auto, fp16, bf16 or fp32.")]
CompileOption = Annotated[bool, typer.Option("--compile", help="Compile the UNet first (needs a C++ compiler).")]
RunDirOption = Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/<words>-<seed>")]
ResolutionOption = Annotated[
    int | None, typer.Option(help="Cells of the mesh grid along each side.", show_default="the preset's")
]
CheckpointOption = Annotated[
    float, typer.Option(help="Between two checkpoints, from which 'dream3d resume' goes on; 0 for none.")
]
PreviewOption = Annotated[
    int, typer.Option(help="First sample this many seeds in 2D, then continue with the best.", show_default=False)
]


def generate(
    prompt: Annotated[str, typer.Argument(help="The object, in a sentence.", metavar="PROMPT")],
    out: OutOption = None,
    prior: PriorOption = "mini",
    negative: NegativeOption = None,
    steps: StepsOption = None,
    seed: Annotated[int, typer.Option(help="Seed of every random number.")] = 0,
    guidance_scale: ScaleOption = None,
    preset: PresetOption = None,
    device: DeviceOption = "auto",
    vram: VramOption = None,
    precision: PrecisionOption = "auto",
    compile_unet: CompileOption = False,
    run_dir: RunDirOption = None,
    resolution: ResolutionOption = None,
    preview_seeds: PreviewOption = 0,
    checkpoint_minutes: CheckpointOption = 1.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the mesh's path and nothing else.")] = False,
    debug: DebugOption = False,
) -> None:
    """Turn a sentence into a textured mesh. An existing mesh file is replaced once the new one is complete."""
    from dream3d.prior.memory import plan_for
    from dream3d.recipe.overrides import Overrides

    overrides = Overrides(preset, steps, guidance_scale, resolution, negative)

    checks.check_preview_seeds(preview_seeds, seed)
    interval = checks.check_checkpoint_minutes(checkpoint_minutes) * 60
    memory = plan_for(vram, precision, compile_unet=compile_unet)
    request = _checked(prompt, out, prior, seed, device, memory, run_dir, overrides)
    if preview_seeds:
        from dream3d.cli.previews import continue_with_the_best

        request = continue_with_the_best(request, preview_seeds, own_run_dir=run_dir is not None, quiet=quiet)
    how = {"prior": lasting_name(prior), "vram": vram, "precision": precision, "compile": compile_unet}
    _run(request, how, interval, quiet)


def lasting_name(prior: str) -> str:
    """The name of a prior, or its absolute path: the run may be resumed from another folder."""
    return str(Path(prior).absolute()) if Path(prior).exists() else prior


@dataclass(frozen=True)
class Request:
    """A request that passed every check; nothing has been written for it."""

    prompt: str
    prior: DiffusionPrior
    recipe: Recipe
    seed: int
    device: str
    out: Path
    run_dir: Path


def _checked(
    prompt: str,
    out: Path | None,
    prior_name: str,
    seed: int,
    device: str,
    memory: MemoryPlan,
    run_dir: Path | None,
    overrides: Overrides,
) -> Request:
    """The request, or a UsageError. Cheap checks come first and the prior's weights last."""
    prompt = checks.check_prompt(prompt)
    checks.check_seed(seed)
    checks.check_device_name(device)
    if out is not None:
        checks.check_output_file(out)
    if run_dir is not None:
        checks.check_run_dir(run_dir)

    from dream3d.cli.device import resolve_device
    from dream3d.mesh.export import check_ending
    from dream3d.names import slug
    from dream3d.run.folder import default_run_dir
    from dream3d.weights.loading import load_prior

    run_dir = checks.check_run_dir(run_dir or default_run_dir(prompt, seed))
    out = checks.check_output_file(out or Path(f"{slug(prompt)}.glb"))
    check_ending(out)
    checks.check_apart(out, run_dir)
    device = resolve_device(device)
    # With no preset this recipe is thrown away: it refuses bad numbers before the weights are read.
    overrides.apply_to("mini")
    if len(prompt) > checks.MAX_PROMPT_CHARACTERS:
        checks.check_prompt_length(prompt, _cut_if_known(prior_name, prompt))
    prior = load_prior(prior_name, device, memory)
    recipe = overrides.apply_to(prior.recommended_preset)
    return Request(prompt, prior, recipe, seed, device, out, run_dir)


def _cut_if_known(prior_name: str, prompt: str) -> int | None:
    from dream3d.weights.loading import prompt_cut

    try:
        return prompt_cut(prior_name, prompt)
    except Dream3DError:
        return None  # the prompt is refused in any case; this was only to say more about it


def _run(request: Request, how: dict[str, Any], checkpoint_seconds: float, quiet: bool) -> None:
    from dream3d.cli.console import make_console
    from dream3d.cli.display import watching
    from dream3d.generate import generate as run_generate

    cut = request.prior.text_cut(request.prompt)
    if cut is not None:
        where = checks.last_words(request.prompt, cut)
        typer.echo(f"warning: the text encoder reads the prompt up to character {cut}, {where}", err=True)
    with says_how_to_go_on(request.run_dir), watching(make_console(), request.prompt, quiet=quiet) as observer:
        outcome = run_generate(
            request.prompt,
            prior=request.prior,
            recipe=request.recipe,
            seed=request.seed,
            device=request.device,
            out=request.out,
            run_dir=request.run_dir,
            observer=observer,
            checkpoint_seconds=checkpoint_seconds,
            request=how,
        )
    report(outcome, quiet)


@contextmanager
def says_how_to_go_on(run_dir: Path) -> Iterator[None]:
    """A line about ``dream3d resume`` for a run that was stopped."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if run_dir.exists():
            typer.echo(f"stopped; go on with: dream3d resume {shlex.quote(str(run_dir))}", err=True)
        raise


def report(outcome: Outcome, quiet: bool) -> None:
    """What a finished run made, on stdout."""
    from dream3d.cli.console import duration, memory, process_seconds

    if quiet:
        typer.echo(outcome.mesh_path)
        return
    seconds = duration(process_seconds(_LOADED_AT))
    typer.echo(f"mesh        {outcome.mesh_path} ({outcome.vertices:,} vertices, {outcome.faces:,} faces)")
    typer.echo(f"run folder  {outcome.run_dir}")
    typer.echo(f"took        {seconds}, peak memory {memory(outcome.peak_memory_bytes)}")
