"""``dream3d train-encoder``: learn which pictures and which sentences belong together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream3d import checks
from dream3d.cli.group import DebugOption
from dream3d.errors import UsageError

if TYPE_CHECKING:
    from dream3d.training.contrastive import Metrics

ShardsArgument = Annotated[list[Path], typer.Argument(help="Folders with shards train-*.tar.", metavar="DIR")]
OutOption = Annotated[Path, typer.Option(help="Folder that gets a folder image_encoder; it may be a prior's.")]
TextOption = Annotated[str, typer.Option("--prior", help="Prior whose text encoder reads the captions.")]


def train_encoder(
    folders: ShardsArgument,
    out: OutOption,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
    batch: Annotated[int, typer.Option(help="Objects in a step.")] = 64,
    prior: TextOption = "mini",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the folder and nothing else.")] = False,
    debug: DebugOption = False,
) -> None:
    """Train the small contrastive image encoder that retrieval and evaluation use."""
    checks.check_seed(seed)
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give folders with shards train-*.tar")

    from dream3d.dataset.records import SPLITS
    from dream3d.prior.image_encoder import FOLDER, EncoderConfig, load_text
    from dream3d.training import contrastive
    from dream3d.training.contrastive_data import read_captioned
    from dream3d.weights.loading import find_folder

    recipe = contrastive.ContrastiveRecipe(steps=steps, batch=batch, seed=seed)
    contrastive.check_place(out)
    text = load_text(find_folder(prior))
    config = EncoderConfig(text_width=text.width)
    data = read_captioned(folders, "train", config.image_size)
    contrastive.check_data(data, folders)
    started = time.perf_counter()

    def show(row: Metrics) -> None:
        if not quiet and row.step % 100 == 0:
            seconds = time.perf_counter() - started
            typer.echo(f"step {row.step}  loss {row.loss:.3f}  right {row.accuracy:.0%}  {seconds:.0f} s")

    towers, rows = contrastive.train_encoder(data, text, recipe, show, config)
    seconds = time.perf_counter() - started
    heldout = ((split, read_captioned(folders, split, config.image_size)) for split in SPLITS[1:])
    measured = contrastive.write_encoder(out, towers, text, recipe, rows, heldout)
    typer.echo(out / FOLDER if quiet else f"wrote {out / FOLDER}")
    if not quiet:
        typer.echo(f"{steps / seconds:.2f} steps a second, captions included")
        for split, shares in measured.items():
            typer.echo(
                f"{split}: R@1 {shares['R@1']:.3f}, R@5 {shares['R@5']:.3f} "
                f"({shares['pictures']:.0f} pictures among {shares['sentences']:.0f} sentences)"
            )
