"""``dream3d train-encoder``: learn which images and which sentences belong together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dream3d import checks
from dream3d.cli.group import DebugOption, say
from dream3d.cli.train import run_trainer
from dream3d.errors import UsageError

ShardsArgument = Annotated[list[Path], typer.Argument(help="Folders with shards train-*.tar.", metavar="DIR")]
OutOption = Annotated[Path, typer.Option(help="Folder that gets a folder image_encoder; it may be a prior's.")]
PriorOption = Annotated[str, typer.Option("--prior", help="Prior whose text encoder reads the captions.")]


def train_encoder(
    folders: ShardsArgument,
    out: OutOption,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
    batch: Annotated[int, typer.Option(help="Objects in a step.")] = 64,
    prior: PriorOption = "mini",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the folder and nothing else.")] = False,
    debug: DebugOption = False,
) -> None:
    """Train the small contrastive image encoder that retrieval and evaluation use.

    Run the same command again to resume a run that was stopped; its checkpoints are in image_encoder-training until
    image_encoder is complete.
    """
    checks.check_seed(seed)
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give folders with shards train-*.tar")

    from dream3d.dataset.records import SPLITS
    from dream3d.prior.image_encoder import EncoderConfig, load_text
    from dream3d.training.contrastive_data import read_captioned
    from dream3d.training.tasks.contrastive import ContrastiveRecipe, check_place, make_trainer
    from dream3d.weights.loading import find_folder

    recipe = ContrastiveRecipe(steps=steps, batch=batch, seed=seed)
    check_place(out)
    prior_folder = find_folder(prior)
    config = EncoderConfig(text_width=load_text(prior_folder).width)
    data = read_captioned(folders, "train", config.image_size)
    heldout = ((split, read_captioned(folders, split, config.image_size)) for split in SPLITS[1:])
    trainer = make_trainer(recipe, data, prior_folder, out, config, heldout)
    first, started = trainer.step, time.perf_counter()
    outcome = run_trainer(trainer, f"{len(data.records)} objects", quiet=quiet)
    say(outcome.result if quiet else f"wrote {outcome.result}")
    if not quiet:
        say(f"{(outcome.step - first) / (time.perf_counter() - started):.2f} steps a second")
        for split, shares in trainer.task.measured.items():
            say(
                f"{split}: R@1 {shares['R@1']:.3f}, R@5 {shares['R@5']:.3f} "
                f"({shares['pictures']:.0f} images among {shares['sentences']:.0f} sentences)"
            )
