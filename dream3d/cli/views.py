"""``dream3d views``: the views of an object that a 3D run would be steered by."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dream3d import checks
from dream3d.cli.generate import CompileOption, DeviceOption, PrecisionOption, PriorOption, VramOption
from dream3d.cli.group import DebugOption
from dream3d.errors import UsageError

if TYPE_CHECKING:
    from dream3d.cameras import Cameras
    from dream3d.images import Picture
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.prior.sampling import SamplingRecipe

SHEET_SIDE = 128
"""Views smaller than this are enlarged on the contact sheet and in the animation, pixel by pixel."""
MAX_VIEWS = 64
"""All views attend to each other: the cost grows with the square of their number."""
ANIMATIONS = (".gif", ".mp4")

SeedsOption = Annotated[str, typer.Option(help="7, 0..7 or 1,4,9: a row of the sheet for each.")]
ViewsOption = Annotated[int, typer.Option("--views", help="Views of the object, sampled together.")]
ElevationOption = Annotated[float, typer.Option(help="Degrees above the horizon.")]
AzimuthOption = Annotated[float, typer.Option(help="Degrees of the first view; 0 is the front, 90 the left side.")]
SpanOption = Annotated[float, typer.Option(help="Degrees that the views are spread over.")]
SamplerOption = Annotated[str | None, typer.Option(help="ddim or dpm++.", show_default="ddim")]
TurntableOption = Annotated[Path | None, typer.Option(help="Also an animation of the first seed: .gif or .mp4.")]
_THE_PRIORS = "the prior's"


def views(
    prompt: Annotated[str, typer.Argument(help="The object, in a sentence.", metavar="PROMPT")],
    out: Annotated[Path | None, typer.Option(help="Contact sheet, .png.", show_default="the words + .png")] = None,
    prior: PriorOption = "mini",
    negative: Annotated[str, typer.Option(help="What to avoid.")] = "",
    seeds: SeedsOption = "0",
    count: ViewsOption = 4,
    elevation: ElevationOption = 15.0,
    azimuth: AzimuthOption = 0.0,
    span: SpanOption = 360.0,
    sampler: SamplerOption = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.", show_default=_THE_PRIORS)] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="How strictly the prompt is followed.", show_default=_THE_PRIORS)
    ] = None,
    rescale: Annotated[float | None, typer.Option(help="CFG rescale, 0 to 1.", show_default=_THE_PRIORS)] = None,
    eta: Annotated[float | None, typer.Option(help="Noise between ddim steps, 0 to 1.", show_default="0")] = None,
    separate: Annotated[bool, typer.Option("--separate", help="Also one PNG a view, in its own size.")] = False,
    turntable: TurntableOption = None,
    device: DeviceOption = "auto",
    vram: VramOption = None,
    precision: PrecisionOption = "auto",
    compile_unet: CompileOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the sheet's path and nothing else.")] = False,
    debug: DebugOption = False,
) -> None:
    """Sample views of an object, without making it 3D: one row a seed, one column a view."""
    prompt = checks.check_prompt(prompt)
    checks.check_prompt_length(prompt, None)
    negative = checks.check_text(negative, "negative prompt")
    checks.check_prompt_length(negative, None, "negative prompt")
    checks.check_device_name(device)
    if guidance_scale is not None:
        checks.check_guidance_scale(guidance_scale)
    orbit = Orbit(count, elevation, azimuth, span)
    seed_list = checks.parse_seeds(seeds)

    from dream3d.cli.device import resolve_device
    from dream3d.names import slug
    from dream3d.prior.memory import plan_for
    from dream3d.weights.loading import load_prior

    sheet = _check_file(out or Path(f"{slug(prompt)}.png"), "--out", (".png",))
    if turntable is not None:
        _check_file(turntable, "--turntable", ANIMATIONS)
    changes = {
        "sampler": sampler,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "rescale": rescale,
        "eta": eta,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    _recipe("mini", changes)  # thrown away: it refuses bad numbers before the weights are read
    loaded = load_prior(prior, resolve_device(device), plan_for(vram, precision, compile_unet=compile_unet))
    recipe = _recipe(loaded.recommended_preset, changes)
    request = Request(prompt, negative, loaded, recipe, seed_list, orbit, sheet, turntable, separate)
    _run(request, quiet)


@dataclass(frozen=True)
class Orbit:
    """Where the views look from; degrees."""

    views: int
    elevation: float
    azimuth: float
    span: float

    def __post_init__(self) -> None:
        if not 1 <= self.views <= MAX_VIEWS:
            raise UsageError(f"views can be 1 to {MAX_VIEWS}, got --views {self.views}")
        if not -90 <= self.elevation <= 90:
            raise UsageError(f"the elevation is between -90 and 90 degrees, got --elevation {self.elevation}")
        if not (-360 <= self.azimuth <= 360 and -360 <= self.span <= 360):
            raise UsageError(
                f"azimuth and span are between -360 and 360 degrees, got --azimuth {self.azimuth} --span {self.span}"
            )

    def cameras(self) -> Cameras:
        """The cameras of these views."""
        from dream3d.cameras import orbit

        return orbit(self.views, elevation_deg=self.elevation, azimuth_deg=self.azimuth, span_deg=self.span)


@dataclass(frozen=True)
class Request:
    """A request that passed every check; nothing has been written for it."""

    prompt: str
    negative: str
    prior: DiffusionPrior
    recipe: SamplingRecipe
    seeds: list[int]
    orbit: Orbit
    out: Path
    turntable: Path | None
    separate: bool


def _recipe(preset: str, changes: dict[str, Any]) -> SamplingRecipe:
    from dream3d.prior.sampling import sampling_for

    return dataclasses.replace(sampling_for(preset), **changes)


def _check_file(path: Path, option: str, endings: tuple[str, ...]) -> Path:
    if path.suffix.lower() not in endings:
        raise UsageError(f"{option} {path}: the file's ending must be {' or '.join(endings)}")
    return checks.check_output_file(path, option)


def _run(request: Request, quiet: bool) -> None:
    from dream3d.images import to_uint8
    from dream3d.prior.sampling import sample_views

    started = time.perf_counter()
    prior = request.prior
    text = prior.encode_prompt(prior.with_suffix(request.prompt), request.negative)
    rows = []
    for seed in request.seeds:
        pictures = sample_views(prior, text, request.orbit.cameras(), request.recipe, seed)
        rows.append(to_uint8(pictures.movedim(1, -1)))
        if not quiet and len(request.seeds) > 1:
            typer.echo(f"seed {seed} done ({len(rows)} of {len(request.seeds)})")
    seconds = time.perf_counter() - started
    for path in _write(request, rows):
        typer.echo(path if quiet else f"wrote {path}")
        if quiet:
            break
    if not quiet:
        typer.echo(f"{len(rows) * request.orbit.views} views in {seconds:.1f} s after start-up")


def _write(request: Request, rows: list[Picture]) -> list[Path]:
    from dream3d.images import contact_sheet, enlarged, write_animation, write_png

    made_by = {
        "prompt": request.prompt,
        "negative_prompt": request.negative,
        "seeds": request.seeds,
        "cameras": dataclasses.asdict(request.orbit),
        "sampling": dataclasses.asdict(request.recipe),
        "prior": request.prior.describe(),
    }
    paths = [request.out]
    request.out.parent.mkdir(parents=True, exist_ok=True)
    write_png(request.out, contact_sheet([enlarged(row, SHEET_SIDE) for row in rows]), made_by)
    if request.separate:
        for seed, row in zip(request.seeds, rows, strict=True):
            for index, picture in enumerate(row):
                path = request.out.with_name(f"{request.out.stem}-seed{seed}-view{index}.png")
                write_png(path, picture, {**made_by, "seeds": [seed], "view": index})
                paths.append(path)
    if request.turntable is not None:
        request.turntable.parent.mkdir(parents=True, exist_ok=True)
        # One turn in three seconds, but no slower than two views a second.
        write_animation(request.turntable, enlarged(rows[0], SHEET_SIDE), max(2.0, request.orbit.views / 3))
        paths.append(request.turntable)
    return paths
