"""``dream3d views``: sample the views of an object that a 3D run would be guided by."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dream3d import checks
from dream3d.bounds import Between, Options, check_text
from dream3d.cli import options
from dream3d.cli.group import DebugOption, say, warn_unfamiliar
from dream3d.cli.options import file_option
from dream3d.cli.pictures import CountOption, FusionEncoderOption, FusionOption, ImagesOption, RetrieveOption, tell_of
from dream3d.retrieval.gathering import AUTO, DEFAULT_COUNT, Gathered, PictureOptions, gather

if TYPE_CHECKING:
    from dream3d.cameras import Cameras
    from dream3d.images import Picture
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.prior.sampling import SamplingRecipe
    from dream3d.retrieval.guided import Fusion

SHEET_SIDE = 128
"""Views smaller than this (pixels) are enlarged on the contact sheet and in the animation, pixel by pixel."""
MAX_VIEWS = 64
"""All views attend to each other: the cost grows with the square of their number."""
ANIMATIONS = (".gif", ".mp4")

_PRIOR = "the prior's"
camera_option = partial(typer.Option, rich_help_panel="Cameras")
sampling_option = partial(typer.Option, rich_help_panel="Sampling")

OutOption = Annotated[Path | None, file_option(help="Contact sheet, .png.", show_default="<prompt>.png")]
NegativeOption = Annotated[str, typer.Option(help="What to avoid.")]
SeparateOption = Annotated[bool, typer.Option("--separate", help="Also write one PNG per view, not enlarged.")]
TurntableOption = Annotated[Path | None, file_option(help="Also write an animation of the first seed: .gif or .mp4.")]
ViewsOption = Annotated[int, camera_option("--views", help="Number of views, sampled together.")]
ElevationOption = Annotated[float, camera_option(help="Degrees above the horizon.")]
AzimuthOption = Annotated[float, camera_option(help="Degrees of the first view; 0: front, 90: left side.")]
SpanOption = Annotated[float, camera_option(help="Degrees that the views are spread over.")]
SamplerOption = Annotated[str | None, sampling_option(help="ddim or dpm++.", show_default="ddim")]
StepsOption = Annotated[int | None, sampling_option(help="Denoising steps.", show_default=_PRIOR)]
ScaleOption = Annotated[float | None, sampling_option(help="How strictly to follow the prompt.", show_default=_PRIOR)]
RescaleOption = Annotated[float | None, sampling_option(help="CFG rescale, 0 to 1.", show_default=_PRIOR)]
EtaOption = Annotated[float | None, sampling_option(help="Noise added between ddim steps, 0 to 1.", show_default="0")]


def views(
    prompt: options.PromptArgument,
    out: OutOption = None,
    prior: options.PriorOption = "mini",
    negative: NegativeOption = "",
    seeds: options.SeedsOption = "0",
    count: ViewsOption = 4,
    elevation: ElevationOption = 15.0,
    azimuth: AzimuthOption = 0.0,
    span: SpanOption = 360.0,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    guidance_scale: ScaleOption = None,
    rescale: RescaleOption = None,
    eta: EtaOption = None,
    separate: SeparateOption = False,
    turntable: TurntableOption = None,
    retrieve: RetrieveOption = None,
    images: ImagesOption = None,
    retrieve_count: CountOption = DEFAULT_COUNT,
    fusion: FusionOption = AUTO,
    fusion_encoder: FusionEncoderOption = None,
    device: options.DeviceOption = "auto",
    vram: options.VramOption = None,
    precision: options.PrecisionOption = "auto",
    compile_unet: options.CompileOption = False,
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Sample 2D views of an object: one row per seed, one column per view.

    Example: dream3d views "a horse" --seeds 0..3 --out horse.png
    """
    prompt = checks.check_prompt(prompt)
    checks.check_prompt_length(prompt, None)
    negative = check_text(negative, "negative prompt")
    checks.check_prompt_length(negative, None, "negative prompt")
    checks.check_device_name(device)
    pictures = PictureOptions(retrieve, tuple(images or ()), retrieve_count, fusion, fusion_encoder)
    orbit = OrbitOptions(count, elevation, azimuth, span)
    seed_list = checks.parse_seeds(seeds)

    from dream3d.cli.device import resolve_device
    from dream3d.names import own_slug
    from dream3d.prior.memory import plan_for
    from dream3d.prior.sampling import sampling_for
    from dream3d.weights.loading import load_prior

    sheet = checks.check_output_file(out or Path(f"{own_slug(prompt)}.png"), extensions=(".png",))
    if turntable is not None:
        checks.check_output_file(turntable, "--turntable", ANIMATIONS)
    given = {"sampler": sampler, "steps": steps, "guidance_scale": guidance_scale, "rescale": rescale, "eta": eta}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    dataclasses.replace(sampling_for("mini"), **changes)  # not used: it refuses bad numbers before the weights are read
    loaded = load_prior(prior, resolve_device(device), plan_for(vram, precision, compile_unet=compile_unet))
    recipe = dataclasses.replace(sampling_for(loaded.recommended_preset), **changes)
    gathered = gather(prompt, pictures, loaded)
    tell_of(gathered)
    _run(ViewsRequest(prompt, negative, loaded, recipe, seed_list, orbit, sheet, turntable, separate, gathered), quiet)


@dataclass(frozen=True)
class OrbitOptions(Options):
    """The cameras of the views; angles in degrees."""

    views: Annotated[int, Between(1, MAX_VIEWS)]
    elevation: Annotated[float, Between(-90, 90)]
    azimuth: Annotated[float, Between(-360, 360)]
    span: Annotated[float, Between(-360, 360)]

    def cameras(self) -> Cameras:
        """The cameras of these views."""
        from dream3d.cameras import orbit

        return orbit(self.views, elevation_deg=self.elevation, azimuth_deg=self.azimuth, span_deg=self.span)


@dataclass(frozen=True)
class ViewsRequest:
    """A request that passed every check; nothing has been written for it."""

    prompt: str
    negative: str
    prior: DiffusionPrior
    recipe: SamplingRecipe
    seeds: list[int]
    orbit: OrbitOptions
    out: Path
    turntable: Path | None
    separate: bool
    pictures: Gathered


def _run(request: ViewsRequest, quiet: bool) -> None:
    from dream3d.images import to_uint8
    from dream3d.prior.sampling import sample_views
    from dream3d.retrieval.run_pictures import guided

    started = time.perf_counter()
    prior = request.prior
    warn_unfamiliar(prior, request.prompt)
    text = prior.encode_prompt(prior.with_suffix(request.prompt), request.negative)
    rows, cameras = [], request.orbit.cameras()
    fusions: dict[int, Fusion] = {}
    for seed in request.seeds:
        told, fusion = guided(prior, text, request.pictures.guides, seed, cameras, request.recipe)
        rows.append(to_uint8(sample_views(prior, told, cameras, request.recipe, seed).movedim(1, -1)))
        if fusion is not None:
            fusions[seed] = fusion
            if not quiet:
                say(f"seed {seed}: {fusion.explanation}")
        if not quiet and len(request.seeds) > 1:
            say(f"seed {seed} done ({len(rows)} of {len(request.seeds)})")
    seconds = time.perf_counter() - started
    for path in _write(request, rows, fusions):
        say(path if quiet else f"wrote {path}")
        if quiet:
            break
    if not quiet:
        say(f"{len(rows) * request.orbit.views} views in {seconds:.1f} s after start-up")


def _write(request: ViewsRequest, rows: list[Picture], fusions: dict[int, Fusion]) -> list[Path]:
    from dream3d.images import contact_sheet, enlarged, write_animation, write_png
    from dream3d.retrieval.run_pictures import record_of

    made_by: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative,
        "seeds": request.seeds,
        "cameras": dataclasses.asdict(request.orbit),
        "sampling": dataclasses.asdict(request.recipe),
        "prior": request.prior.describe(),
    }
    if request.pictures.guides is not None:
        fused: Any = {seed: one.record for seed, one in fusions.items()}
        made_by["images"] = record_of(request.pictures.guides, request.prior) | {"fusion": fused}
    paths = [request.out]
    request.out.parent.mkdir(parents=True, exist_ok=True)
    write_png(request.out, contact_sheet([enlarged(row, SHEET_SIDE) for row in rows]), made_by)
    if request.separate:
        for seed, row in zip(request.seeds, rows, strict=True):
            for index, image in enumerate(row):
                path = request.out.with_name(f"{request.out.stem}-seed{seed}-view{index}.png")
                write_png(path, image, {**made_by, "seeds": [seed], "view": index})
                paths.append(path)
    if request.turntable is not None:
        request.turntable.parent.mkdir(parents=True, exist_ok=True)
        # One turn in three seconds, but no slower than two views a second.
        write_animation(request.turntable, enlarged(rows[0], SHEET_SIDE), max(2.0, request.orbit.views / 3))
        paths.append(request.turntable)
    return paths
