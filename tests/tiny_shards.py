"""Tiny shards for the tiny prior, and a recipe that trains on them in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tiny_prior import write_tiny_prior

from dream3d.dataset.records import ObjectRecord, Pass, Split
from dream3d.dataset.shards import CaptionedImage, ObjectViews, image_members, object_members, shard_name, write_tar
from dream3d.training.loop import Trainer
from dream3d.training.recipe import TrainingRecipe, parse_recipe

SIDE = 16
VIEWS = 8


def tiny_object(key: str, name: str, split: Split = "train", seed: int = 0) -> ObjectViews:
    rng = np.random.default_rng(seed)
    azimuths = tuple(360 / VIEWS * i for i in range(VIEWS))
    passes = (Pass(10.0, 40.0, 3.0, azimuths), Pass(25.0, 30.0, 4.0, azimuths))
    captions = (name, f"a {name}")
    record = ObjectRecord(key, name, "", captions, (), (), split, "CC0-1.0", "somebody", "tests", passes)
    rgba = np.zeros((len(passes), VIEWS, SIDE, SIDE, 4), np.uint8)
    rgba[:, :, 4:12, 4:12, :3] = rng.integers(0, 256, 3)
    rgba[:, :, 4:12, 4:12, 3] = 255
    return ObjectViews(record, rgba)


def tiny_image(key: str, caption: str, seed: int = 0) -> CaptionedImage:
    rgb = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return CaptionedImage(key, (caption,), rgb, "CC-BY-4.0", "painter")


def write_tiny_shards(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    train = [tiny_object("o1", "red chair", seed=1), tiny_object("o2", "green tree", seed=2)]
    write_tar(folder / shard_name("train", 0), [m for o in train for m in object_members(o)])
    write_tar(folder / shard_name("heldout", 0), list(object_members(tiny_object("o3", "red chair", "heldout", 3))))
    images = [tiny_image("p1", "a table", 4), tiny_image("p2", "red table", 5)]
    write_tar(folder / shard_name("images", 0), [m for i in images for m in image_members(i)])
    return folder


def assert_resumes(make: Callable[[TrainingRecipe, Path], Trainer[Any]], recipe: TrainingRecipe, folder: Path) -> None:
    """A run that is stopped after three steps and resumed writes the same weights as a whole one."""
    whole = make(recipe, folder / "whole").run().result
    trainer = make(recipe, folder / "parts")
    for _ in range(3):
        trainer.train_step()
    trainer.save()
    resumed = make(recipe, folder / "parts")
    assert resumed.step == 3
    result = resumed.run().result
    files = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
    assert files
    for file in files:
        one, other = load_file(whole / file), load_file(result / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file


def tiny_recipe(folder: Path, **changes: Any) -> TrainingRecipe:
    """Trains in milliseconds a step; writes the prior and the shards it needs into ``folder``."""
    if not (folder / "prior").exists():
        write_tiny_prior(folder / "prior")
        write_tiny_shards(folder / "data")
    data: dict[str, Any] = {
        "name": "tiny-trained",
        "start": str(folder / "prior"),
        "steps": 6,
        "products": "off",
        "data": {"views": str(folder / "data"), "images": str(folder / "data"), "background": [0.2, 0.4, 0.6]},
        "batch": {"objects": 2, "images": 3, "views": 2, "image_mode_fraction": 0.4, "prompt_suffix": ""},
        "optimizer": {"rate": 1e-3, "warmup": 2},
        "every": {"checkpoint": 2, "samples": 0, "heldout": 0},
    }
    for key, value in changes.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    return parse_recipe(data)
