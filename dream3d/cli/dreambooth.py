"""``dream3d dreambooth``: a prior learns one thing from a few photos of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dream3d import checks
from dream3d.cli import options
from dream3d.cli.group import DebugOption, say
from dream3d.errors import UsageError

if TYPE_CHECKING:
    from dream3d.personalise.photos import PhotoSet
    from dream3d.personalise.recipe import DreamBoothRecipe
    from dream3d.personalise.subject import Matting
    from dream3d.personalise.words import Subject
    from dream3d.prior.folder import PriorSettings
    from dream3d.training.personalised import Base
    from dream3d.training.tasks.dreambooth import Pictures

SEEN = "seen.png"
TILE, COLUMNS = 128, 5
"""Pixels a side of a picture on it, and pictures in a row."""
LABEL_CHARACTERS = 20

training_option = partial(typer.Option, rich_help_panel="Training")

PhotosArgument = Annotated[Path, typer.Argument(help="Folder with three to ten photos of one thing.", metavar="PHOTOS")]
TokenOption = Annotated[str, typer.Option(help="A word that means nothing and will stand for the thing: sks.")]
ClassOption = Annotated[str | None, typer.Option("--class", help="What kind of thing: dog.", show_default="guessed")]
OutOption = Annotated[Path | None, typer.Option(help="Folder of the new prior.", show_default="TOKEN-CLASS")]
MakeOption = Annotated[
    str | None, typer.Option("--make", help="Then make a mesh: a prompt with the token.", show_default=False)
]
MethodOption = Annotated[
    Literal["full", "lora"] | None,
    training_option(
        help="Every weight, or an adapter of a few MB that needs its base.", show_default="full, or what --vram holds"
    ),
]
BitsOption = Annotated[
    int | None,
    training_option("--optimizer-bits", help="Of Adam's state: 32 or 8.", show_default="32, or what --vram holds"),
]
ClassImagesOption = Annotated[
    Path | None, training_option(help="Folder with pictures of others of its class.", show_default="none")
]
MattingOption = Annotated[
    Path | None,
    training_option(help="Folder with Segment Anything, to cut out of busy backgrounds.", show_default="none"),
]
StepsOption = Annotated[int | None, training_option(help="Training steps, at most.", show_default="the prior's")]
SetOption = Annotated[list[str] | None, training_option("--set", help="Change a setting: rate=1e-4. May be repeated.")]
SeedOption = Annotated[int, training_option(help="Random seed.")]
ResumeOption = Annotated[bool, training_option("--resume", help="Go on with a run that was stopped.")]


def dreambooth(
    photos: PhotosArgument,
    token: TokenOption,
    kind: ClassOption = None,
    out: OutOption = None,
    prior: options.PriorOption = "mini",
    make: MakeOption = None,
    method: MethodOption = None,
    optimizer_bits: BitsOption = None,
    class_images: ClassImagesOption = None,
    matting: MattingOption = None,
    steps: StepsOption = None,
    changes: SetOption = None,
    seed: SeedOption = 0,
    resume: ResumeOption = False,
    device: options.DeviceOption = "auto",
    vram: options.VramOption = None,
    quiet: options.QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Teach a prior one thing from a few photos of it.

    Example: dream3d dreambooth photos/ --token sks --class dog --out my-dog
    """
    checks.check_seed(seed)
    checks.check_device_name(device)
    if make is not None:
        make = checks.check_prompt(make)

    from dream3d.cli.device import resolve_device
    from dream3d.personalise.photos import picture_files
    from dream3d.prior.memory import plan_for

    for folder in filter(None, (photos, class_images)):
        picture_files(folder)
    device = resolve_device(device)
    plan_for(vram)  # refuses a size that makes no sense
    base = _base(prior, method, optimizer_bits, vram, changes or [], steps=steps, seed=seed)
    cut_out = _matting(matting, device)
    request = _request(base, photos, token, kind, out, device, cut_out)
    _refuse_what_is_there(request.out, resume)
    if not _is_finished(request.out):
        _train(request, class_images, cut_out, quiet)
    _check(request, quiet)
    say(request.out if quiet else f"wrote {request.out}")
    if make is not None:
        from dream3d.cli.generate import generate

        generate(make, prior=str(request.out), device=device, vram=vram, quiet=quiet)


@dataclass(frozen=True)
class Chosen:
    """The prior that learns, and how."""

    name: str
    folder: Path
    settings: PriorSettings
    recipe: DreamBoothRecipe


@dataclass(frozen=True)
class Request:
    """A request that passed every check; nothing has been written for it."""

    base: Chosen
    subject: Subject
    photos: PhotoSet
    out: Path
    device: str


def _base(
    prior: str, method: str | None, bits: int | None, vram: float | None, changes: list[str], **given: int | None
) -> Chosen:
    from dream3d.personalise.lora import check_peft
    from dream3d.personalise.recipe import recipe_for
    from dream3d.prior.folder import check_files, read_settings
    from dream3d.training.optimizers import check_bits
    from dream3d.weights.loading import find_folder

    folder = find_folder(prior)
    check_files(folder)
    settings = read_settings(folder)
    method, bits = _fitting(folder, method, bits, vram)
    recipe = recipe_for(settings.recipe, method, changes, optimizer_bits=bits, **given)
    if recipe.method == "lora":
        check_peft()
    check_bits(recipe.optimizer_bits)
    return Chosen(prior, folder, settings, recipe)


def _fitting(folder: Path, method: Any, bits: Any, vram: float | None) -> tuple[str, int]:
    """The method and the bits of the optimiser that a card holds, where they are not given; what is chosen is said."""
    from dream3d.personalise.recipe import method_for
    from dream3d.prior.folder import STOCK_WEIGHTS, read_header
    from dream3d.training.optimizers import has_8_bits

    if bits not in (None, 8, 32):
        raise UsageError(f"--optimizer-bits is {bits}, which should be 8 or 32")
    shapes, _ = read_header(folder / "unet" / STOCK_WEIGHTS)
    weights = sum(shape.numel() for shape in shapes.values())
    chosen, size = method_for(vram, weights, method, bits, eight=has_8_bits())
    if vram is not None and method is None and chosen == "lora":
        say(f"note: all weights would need more than {vram:g} GB, so an adapter is trained (--method lora)", err=True)
    if vram is not None and bits is None and size == 8:
        say(f"note: the optimiser keeps 8 bits, so that {vram:g} GB may hold it (--optimizer-bits 8)", err=True)
    return chosen, size


def _matting(folder: Path | None, device: str) -> Matting | None:
    from dream3d.personalise.matting import SegmentAnything

    return None if folder is None else SegmentAnything(folder, device)


def _request(
    base: Chosen, photos: Path, token: str, kind: str | None, out: Path | None, device: str, matting: Matting | None
) -> Request:
    """The request, or a UsageError; what the user should know of the photos and the words is said."""
    from dream3d.personalise.photos import read_photos
    from dream3d.personalise.words import Subject, check_class, check_token, guess_class
    from dream3d.prior.image_encoder import load_text

    kind = kind and check_class(kind)
    notes = check_token(token, base.settings.names, load_text(base.folder))
    seen = read_photos(photos, base.settings.image_size, base.settings.background, matting)
    for note in (*notes, *seen.notes):
        say(f"note: {note}", err=True)
    if not kind:
        kind, line = guess_class(photos, seen.pictures, base.settings.names, base.folder)
        say(line, err=True)
    subject = Subject(token, kind)
    place = checks.check_run_dir(out or Path(subject.name.replace(" ", "-")), "--out")
    return Request(base, subject, seen, place, device)


def _refuse_what_is_there(out: Path, resume: bool) -> None:
    """Raises UsageError unless the folder is new or empty, or holds a run that is to be resumed."""
    from dream3d.training.personalised import RUN_FOLDER

    began, finished = (out / RUN_FOLDER).is_dir(), _is_finished(out)
    if resume and not began:
        raise UsageError(f"--resume: {out} holds no run of dreambooth; leave --resume out to begin one")
    if began and not resume:
        state = "a finished prior" if finished else "a run that was stopped"
        raise UsageError(f"{out} holds {state}; {'' if finished else 'add --resume to go on, or '}give another --out")
    if not began and out.is_dir() and any(out.iterdir()):
        raise UsageError(f"--out {out} is not empty; give a new folder")


def _is_finished(out: Path) -> bool:
    return os.path.isfile(out / "prior.json")


def _train(request: Request, class_images: Path | None, matting: Matting | None, quiet: bool) -> None:
    """The training, from where it stopped; the base's network, which is changed, is gone afterwards."""
    from dream3d.cli.train import run_trainer
    from dream3d.prior.memory import MemoryPlan
    from dream3d.training.personalised import RUN_FOLDER, Base
    from dream3d.training.tasks.dreambooth import make_trainer
    from dream3d.weights.loading import lasting_name, load_prior

    subject, name, run = request.subject, request.base.name, request.out / RUN_FOLDER
    run.mkdir(parents=True, exist_ok=True)
    _show(request.photos, run / SEEN)
    if not quiet:
        say(f"wrote {run / SEEN}: what the prior will see")
    base = Base(lasting_name(name), load_prior(name, request.device, MemoryPlan(precision="fp32")))
    shown = _pictures(request, base, class_images, matting, run, quiet)
    trainer = make_trainer(request.base.recipe, subject, shown, base, request.out)
    run_trainer(trainer, _summary(shown, subject), quiet=quiet)


def _summary(shown: Pictures, subject: Subject) -> str:
    parts = [f"{len(shown.photos.photos)} photos of '{subject.phrase}'"]
    if shown.of_class is not None:
        parts.append(f"{len(shown.of_class)} pictures of '{subject.class_phrase}'")
    if shown.class_views is not None:
        parts.append(f"{len(shown.class_views)} sets of views of '{subject.class_phrase}'")
    return ", ".join(parts)


def _show(photos: PhotoSet, path: Path) -> None:
    """The contact sheet of what the prior will see."""
    import torch.nn.functional as F

    from dream3d.images import write_png
    from dream3d.personalise.samples import as_tensor
    from dream3d.report.sheet import labelled_sheet
    from dream3d.retrieval.sheet import shortened

    tiles = F.interpolate(as_tensor(photos.pictures), (TILE, TILE), mode="nearest")
    labels = [shortened(photo.name, LABEL_CHARACTERS) for photo in photos.photos]
    pairs = list(zip(labels, tiles.split(1), strict=True))
    write_png(
        path, labelled_sheet(pairs, min(COLUMNS, len(pairs))), {"photos": [photo.name for photo in photos.photos]}
    )


def _pictures(
    request: Request, base: Base, folder: Path | None, matting: Matting | None, run: Path, quiet: bool
) -> Pictures:
    """The photos, pictures of the class from a folder or as the prior draws them, and its views of the class."""
    from dream3d.personalise.photos import read_photos
    from dream3d.personalise.samples import class_views, draw_pictures, kept
    from dream3d.training.tasks.dreambooth import Pictures

    recipe, prior, phrase = request.base.recipe, base.prior, request.subject.class_phrase
    of_class = views = None
    wanted = recipe.keep_sets * prior.views + (0 if folder else recipe.class_pictures)
    if wanted and not quiet:
        say(f"drawing {wanted} pictures of '{phrase}', so that it stays as it is")
    if folder is not None:
        found = read_photos(folder, prior.image_size, prior.background, matting)
        for note in found.notes:
            say(f"note: {folder.name}: {note}", err=True)
        of_class = found.pictures
    elif recipe.class_pictures:
        count, path = recipe.class_pictures, run / "class.png"
        of_class = kept(path, count, prior.image_size, lambda: draw_pictures(prior, phrase, count, recipe.seed))
    if recipe.keep_sets:
        views = class_views(run / "class-views.png", prior, phrase, recipe.keep_sets, recipe.seed)
    return Pictures(request.photos, of_class, views)


def _check(request: Request, quiet: bool) -> None:
    """Compare with the base and say whether it worked, once."""
    from dream3d.personalise.check import FIGURES, SHEET, check
    from dream3d.personalise.samples import as_tensor
    from dream3d.training.personalised import RUN_FOLDER

    run = request.out / RUN_FOLDER
    if (run / FIGURES).is_file():
        return
    if not quiet:
        say("checking that it worked")
    places = (request.base.name, str(request.out))
    verdict = check(places, as_tensor(request.photos.pictures), request.subject, run, request.device)
    for problem in verdict.problems:
        say(f"warning: {problem}", err=True)
    if quiet:
        return
    if verdict.identity is not None:
        say(
            "likeness of '{}' to the photos: {:.2f} before, {:.2f} now".format(
                request.subject.phrase, *verdict.identity
            )
        )
    say(f"{'it worked' if verdict.worked else 'look'}: {run / SHEET}")
