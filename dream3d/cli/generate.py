"""``dream3d generate``: a text prompt becomes a mesh file."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dream3d import checks
from dream3d.cli import options
from dream3d.cli.group import DebugOption, say, warn_unfamiliar
from dream3d.cli.options import file_option
from dream3d.cli.pictures import CountOption, FusionEncoderOption, FusionOption, ImagesOption, RetrieveOption, tell_of
from dream3d.errors import Dream3DError
from dream3d.retrieval.gathering import AUTO, DEFAULT_COUNT, PictureOptions, gather

if TYPE_CHECKING:
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.prior.memory import MemoryPlan
    from dream3d.prior.vocabulary import Unfamiliar
    from dream3d.recipe.generation import Recipe
    from dream3d.recipe.overrides import Overrides
    from dream3d.retrieval.run_pictures import Guides
    from dream3d.run.progress import Progress

_PRESET = "the preset's"
recipe_option = partial(typer.Option, rich_help_panel="Recipe")

OutOption = Annotated[
    Path | None, file_option(help="Mesh: .glb, .obj, .ply, .stl or .usdz.", show_default="<prompt>.glb")
]
SeedOption = Annotated[int, typer.Option(help="Random seed.")]
PreviewOption = Annotated[int, typer.Option(help="Sample so many seeds in 2D, use the best.", show_default=False)]
PresetOption = Annotated[
    str | None,
    recipe_option(
        help="mini, mvdream, mvdream-shading; as baselines, either with -single-view or -vsd.",
        show_default="the prior's",
    ),
]
NegativeOption = Annotated[str | None, recipe_option(help="What to avoid.", show_default=_PRESET)]
StepsOption = Annotated[int | None, recipe_option(help="Optimisation steps.", show_default=_PRESET)]
ScaleOption = Annotated[float | None, recipe_option(help="How strictly to follow the prompt.", show_default=_PRESET)]
GridOption = Annotated[int | None, recipe_option(help="Cells along each side of the mesh grid.", show_default=_PRESET)]
FacesOption = Annotated[int | None, recipe_option(help="Faces of the mesh; 0: all of them.", show_default=_PRESET)]
TextureOption = Annotated[
    int | None, recipe_option(help="Texture's side in pixels; 0: vertex colours.", show_default=_PRESET)
]
NormalMapOption = Annotated[
    bool | None, recipe_option("--normal-map/--no-normal-map", help="Shape as a second image.", show_default=_PRESET)
]
RefineOption = Annotated[
    bool | None,
    recipe_option("--refine-texture/--no-refine-texture", help="Refine it by the prior.", show_default=_PRESET),
]
RefineShapeOption = Annotated[
    bool | None,
    recipe_option("--refine-shape/--no-refine-shape", help="Refine it with the texture.", show_default=_PRESET),
]
LiveOption = Annotated[bool, options.run_option("--live", help="Show the run in the browser while it is at work.")]
RunOption = Annotated[Path | None, options.run_option(help="Folder of the run.", show_default="runs/<prompt>-<seed>")]


def generate(
    prompt: options.PromptArgument,
    out: OutOption = None,
    prior: options.PriorOption = "mini",
    seed: SeedOption = 0,
    preview_seeds: PreviewOption = 0,
    retrieve: RetrieveOption = None,
    images: ImagesOption = None,
    retrieve_count: CountOption = DEFAULT_COUNT,
    fusion: FusionOption = AUTO,
    fusion_encoder: FusionEncoderOption = None,
    preset: PresetOption = None,
    negative: NegativeOption = None,
    steps: StepsOption = None,
    guidance_scale: ScaleOption = None,
    resolution: GridOption = None,
    faces: FacesOption = None,
    texture: TextureOption = None,
    normal_map: NormalMapOption = None,
    refine_texture: RefineOption = None,
    refine_shape: RefineShapeOption = None,
    device: options.DeviceOption = "auto",
    vram: options.VramOption = None,
    precision: options.PrecisionOption = "auto",
    compile_unet: options.CompileOption = False,
    run_dir: RunOption = None,
    checkpoint_minutes: options.CheckpointOption = 1.0,
    live: LiveOption = False,
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Turn a text prompt into a coloured 3D mesh. An existing mesh file is replaced when the new one is complete.

    Example: dream3d generate "a wooden chair" --out chair.glb
    """
    from dream3d.prior.memory import plan_for
    from dream3d.recipe.overrides import Overrides
    from dream3d.weights.loading import lasting_name

    overrides = Overrides(
        preset, steps, guidance_scale, resolution, negative, faces, texture, normal_map, refine_texture, refine_shape
    )
    pictures = PictureOptions(retrieve, tuple(images or ()), retrieve_count, fusion, fusion_encoder)
    checks.check_preview_seeds(preview_seeds, seed)
    checkpoint_seconds = checks.check_checkpoint_minutes(checkpoint_minutes) * 60
    memory = plan_for(vram, precision, compile_unet=compile_unet)
    request = _checked(prompt, out, prior, seed, device, memory, run_dir, overrides)
    gathered = gather(request.prompt, pictures, request.prior)
    tell_of(gathered)
    request = dataclasses.replace(request, guides=gathered.guides)
    unfamiliar = _warn(request)
    if preview_seeds:
        request = _with_best_seed(request, preview_seeds, run_dir, quiet)
    loaded = {"prior": lasting_name(prior), "vram": vram, "precision": precision, "compile": compile_unet}
    record = {**loaded, "unfamiliar": unfamiliar and dataclasses.asdict(unfamiliar), **gathered.record}
    _run(request, record, checkpoint_seconds, quiet, live)


@dataclass(frozen=True)
class GenerateRequest:
    """The arguments of :func:`dream3d.generate.generate`, checked; nothing has been written for them."""

    prompt: str
    prior: DiffusionPrior
    recipe: Recipe
    seed: int
    device: str
    out: Path
    run_dir: Path
    guides: Guides | None = None


def _checked(
    prompt: str,
    out: Path | None,
    prior_name: str,
    seed: int,
    device: str,
    memory: MemoryPlan,
    run_dir: Path | None,
    overrides: Overrides,
) -> GenerateRequest:
    """The request, or a UsageError. Cheap checks come first and the prior's weights last."""
    prompt = checks.check_prompt(prompt)
    checks.check_seed(seed)
    checks.check_device_name(device)
    if out is not None:
        out = checks.check_output_file(out)
    if run_dir is not None:
        checks.check_run_dir(run_dir)

    from dream3d.cli.device import resolve_device
    from dream3d.mesh.export import check_extension
    from dream3d.names import own_slug
    from dream3d.run.folder import check_no_run, default_run_dir
    from dream3d.weights.loading import load_prior, prompt_cut

    run_dir = run_dir or checks.check_run_dir(default_run_dir(prompt, seed))
    check_no_run(run_dir)
    out = out or checks.check_output_file(Path(f"{own_slug(prompt)}.glb"))
    check_extension(out)
    checks.check_apart(out, run_dir)
    device = resolve_device(device)
    overrides.apply_to("mini")  # this recipe is not used: it refuses bad numbers before the weights are read
    if len(prompt) > checks.MAX_PROMPT_CHARACTERS:
        cut = None
        with suppress(Dream3DError):  # a bad prior: the prompt is refused in any case, with less to say about it
            cut = prompt_cut(prior_name, prompt)
        checks.check_prompt_length(prompt, cut)
    prior = load_prior(prior_name, device, memory)
    recipe = overrides.apply_to(prior.recommended_preset)
    return GenerateRequest(prompt, prior, recipe, seed, device, out, run_dir)


def _with_best_seed(request: GenerateRequest, count: int, run_dir: Path | None, quiet: bool) -> GenerateRequest:
    """The request with the best of ``count`` seeds; the run folder follows the seed unless the user named one."""
    from dream3d.cli.preview_seeds import rank_seeds, write_sheet
    from dream3d.run.folder import default_run_dir

    seeds = range(request.seed, request.seed + count)
    negative = request.recipe.negative_prompt
    ranked = rank_seeds(request.prior, request.prompt, negative, seeds, quiet=quiet, guides=request.guides)
    best = ranked[0].seed
    if not quiet:
        say(f"continuing with seed {best}")
    run_dir = run_dir or default_run_dir(request.prompt, best)
    write_sheet(run_dir, request.prompt, ranked)
    return dataclasses.replace(request, seed=best, run_dir=run_dir)


def _warn(request: GenerateRequest) -> Unfamiliar | None:
    """Say on stderr what of the prompt the prior does not read or does not know; returns the latter."""
    cut = request.prior.text_cut(request.prompt)
    if cut is not None:
        where = checks.last_words(request.prompt, cut)
        say(f"warning: the text encoder reads the prompt up to character {cut}, {where}", err=True)
    return warn_unfamiliar(request.prior, request.prompt)


def _run(request: GenerateRequest, record: dict[str, Any], checkpoint_seconds: float, quiet: bool, live: bool) -> None:
    from dream3d.cli.display import print_outcome, watching_run
    from dream3d.generate import generate as run_generate

    with ExitStack() as shown:
        observers = []
        if live:
            from dream3d.cli.browser import in_browser

            observers.append(shown.enter_context(in_browser(request.run_dir, request.prompt, quiet=quiet)))
        observers.append(shown.enter_context(watching_run(request.run_dir, request.prompt, quiet=quiet)))

        def observe(progress: Progress) -> None:
            for observer in observers:
                observer(progress)

        outcome = run_generate(**vars(request), observer=observe, checkpoint_seconds=checkpoint_seconds, request=record)
    print_outcome(outcome, quiet)
