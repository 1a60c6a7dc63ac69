"""What a run starts from: the parts of a prior that stay as they are, and the network's first weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.files import build_folder, remove_leftovers, replace_folder, write_atomically
from dream3d.prior.folder import STOCK_WEIGHTS, check_files, check_has
from dream3d.prior.official.architecture import SD15, SD21
from dream3d.prior.official.convert import write_small_files
from dream3d.prior.schema import read_json
from dream3d.weights.loading import find_folder

SD_FILES = (
    f"unet/{STOCK_WEIGHTS}",
    f"vae/{STOCK_WEIGHTS}",
    "vae/config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "scheduler/scheduler_config.json",
)
"""What is read of a Stable Diffusion folder, besides ``unet/config.json``, by which it is known."""


@dataclass(frozen=True)
class Start:
    """A folder to start from."""

    folder: Path
    two_d: bool
    """Whether it is Stable Diffusion's, of diffusers: a 2D model that is inflated."""

    def freeze(self, destination: Path) -> None:
        """Copy codec, text encoder, tokenizer, schedule and ``prior.json`` to a new folder, if it is not there."""
        if not destination.exists():
            build_folder(destination, self._copy_2d if self.two_d else self._copy_prior)

    def _copy_prior(self, folder: Path) -> None:
        codec = "vae" if (self.folder / "vae").is_dir() else "codec"
        for name in (codec, "decoder", "text_encoder", "tokenizer", "scheduler"):
            if name != "decoder" or (self.folder / name).is_dir():
                copy_folder(self.folder / name, folder / name)
        shutil.copyfile(self.folder / "prior.json", folder / "prior.json")
        if (self.folder / "attribution.csv").is_file():
            shutil.copyfile(self.folder / "attribution.csv", folder / "attribution.csv")

    def _copy_2d(self, folder: Path) -> None:
        text = read_json(self.folder / "text_encoder" / "config.json")
        family = SD21 if text.get("hidden_size") == 1024 else SD15
        write_small_files(folder, family, int(text.get("max_position_embeddings", 77)), "Stable Diffusion")
        for name in ("vae", "text_encoder"):
            copy_folder(self.folder / name, folder / name)
        schedule = "scheduler/scheduler_config.json"
        shutil.copyfile(self.folder / schedule, folder / schedule)


def find_start(name_or_path: str) -> Start:
    """The start of a recipe, its files checked; PriorError names what is unknown or missing."""
    folder = Path(name_or_path)
    stock = folder / "unet" / "config.json"
    if stock.is_file() and not (folder / "prior.json").exists() and "down_block_types" in read_json(stock):
        check_has(folder, SD_FILES, "copy the complete Stable Diffusion folder of diffusers")
        return Start(folder, True)
    found = find_folder(name_or_path)
    check_files(found)
    return Start(found, False)


def copy_folder(source: Path, destination: Path) -> None:
    """Copy a folder's files; the copies can be written whatever the rights of the source."""
    shutil.copytree(source, destination, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(destination):
        os.chmod(folder, 0o755)


def write_prior(
    folder: Path,
    frozen: Path,
    unet: Any,
    facts: Mapping[str, Any],
    attribution: str,
    more: Callable[[Path], None] = lambda folder: None,
) -> None:
    """A complete prior folder with a network's weights in half precision, in place of one that may be there.

    ``more`` adds further parts to the folder that it is given.
    """

    def fill(new: Path) -> None:
        copy_folder(frozen, new / "parts")
        for path in (new / "parts").iterdir():
            os.replace(path, new / path.name)
        (new / "parts").rmdir()
        config = {"_class_name": "UNet2DConditionModel", **dict(unet.config)}
        (new / "unet").mkdir()
        (new / "unet" / "config.json").write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")
        save_half(unet.state_dict(), new / "unet" / STOCK_WEIGHTS)
        (new / "attribution.csv").write_text(attribution, encoding="utf-8")
        (new / "prior.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        more(new)

    remove_leftovers(folder.parent, folder.name[:40], folders=True)
    replace_folder(folder, fill)


def save_half(state: Mapping[str, Any], path: Path) -> None:
    """Tensors as fp16 in a safetensors file."""
    from safetensors.torch import save_file

    halves = {name: value.detach().half().cpu().contiguous() for name, value in state.items()}
    write_atomically(path, lambda temporary: save_file(halves, temporary))  # for the rights of the user's files
