"""One step of MV-DreamBooth at full size on the CPU, with random weights: how long, how much memory.

    python examples/full_size_dreambooth.py --method lora
    python examples/full_size_dreambooth.py --method full --optimizer-bits 8

Four photos of 256 px, the recipe of ``dream3d dreambooth`` for MVDream, and preservation. Random weights cost what
trained ones cost. ``--dry`` only counts what the weights, their gradients and the optimiser's state will take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from full_size_step import RandomPrior, memory
from torch import Tensor

from dream3d.personalise.photos import Photo, PhotoSet
from dream3d.personalise.recipe import BYTES_FULL, DreamBoothRecipe, recipe_for
from dream3d.personalise.words import Subject
from dream3d.training.optimizers import check_bits, state_bytes
from dream3d.training.personalised import Base
from dream3d.training.tasks.dreambooth import Pictures, make_trainer

PHOTOS = 4
TOKENS, WIDTH = 77, 1024
"""Of the text encoder's states."""


class RandomText:
    """Token states of no text encoder."""

    def encode(self, prompts: list[str], device: torch.device) -> Tensor:
        """(len(prompts), 77, 1024)."""
        return torch.randn(len(prompts), TOKENS, WIDTH, generator=torch.Generator().manual_seed(0)).to(device)


class TrainablePrior(RandomPrior):
    """What a personalisation asks of a prior, beside its networks."""

    device = torch.device("cpu")
    prediction_type = "epsilon"
    text = RandomText()
    settings = SimpleNamespace(names=(), prompt_suffix=", 3d asset")
    folder = Path("none")
    """Without an image encoder."""
    digest = "0" * 64
    views = 4


def photos(side: int) -> PhotoSet:
    """Four pictures of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (PHOTOS, side, side, 3), dtype=np.uint8)
    return PhotoSet(tuple(Photo(str(index), rgb, "whole picture") for index, rgb in enumerate(noise)), ())


def one_step(recipe: DreamBoothRecipe, side: int, prior: Any) -> None:
    """A step of the optimiser, and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        base = cast(Base, SimpleNamespace(name="random", prior=prior, digest=prior.digest))
        trainer = make_trainer(recipe, Subject("sks", "dog"), Pictures(photos(side)), base, Path(folder))
        trained = sum(parameter.numel() for parameter in trainer.task.trained.parameters.values())
        print(f"{trained:,} weights train, {memory()}", flush=True)
        start = time.perf_counter()
        event = trainer.train_step()
    state = state_bytes(trainer.task.trained.optimizer)
    print(f"one step: {time.perf_counter() - start:.1f} s on {torch.get_num_threads()} thread(s), {memory()}")
    print(f"loss {event.loss:.4g}, norm of the gradient {event.norm:.4g}")
    print(f"the optimiser's state: {state / 2**30:.2f} GiB, {state / trained:.2f} bytes for each weight that trains")


def main() -> None:
    """Read the command line, take the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["full", "lora"], default="lora")
    parser.add_argument("--optimizer-bits", type=int, choices=[8, 32], default=32)
    parser.add_argument("--size", type=int, default=256, help="side of the photos, pixels; a multiple of 64")
    parser.add_argument("--dry", action="store_true", help="count, and make no network")
    args = parser.parse_args()
    recipe = recipe_for("mvdream", args.method, optimizer_bits=args.optimizer_bits)
    check_bits(recipe.optimizer_bits)
    if args.dry:
        weights = 867_572_164  # of the UNet alone
        each = BYTES_FULL[recipe.optimizer_bits] if recipe.method == "full" else 4
        print(f"{weights:,} weights of {each} bytes: {weights * each / 2**30:.1f} GiB")
        return
    start = time.perf_counter()
    prior = TrainablePrior()
    print(f"networks ready after {time.perf_counter() - start:.1f} s, {memory()}", flush=True)
    one_step(recipe, args.size, prior)


if __name__ == "__main__":
    main()
