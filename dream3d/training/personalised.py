"""What a personalisation leaves behind: a prior folder, or an adapter folder that needs its base."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.files import replace_folder, write_json
from dream3d.personalise.lora import save_lora
from dream3d.personalise.words import Subject
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.folder import STOCK_WEIGHTS
from dream3d.prior.layout import files_of
from dream3d.prior.schema import SETTINGS, read_json
from dream3d.training.start import save_half

RUN_FOLDER = "dreambooth"
"""What belongs to the run and not to the prior, inside the prior's folder."""


@dataclass(frozen=True)
class Base:
    """The prior that is personalised."""

    name: str
    """By which it is found again: a catalogue name, or an absolute path."""
    prior: DiffusionPrior
    """In float32, without an adapter."""

    @property
    def digest(self) -> str:
        """SHA-256 of its files."""
        return self.prior.digest

    def facts(self, out: Path, subject: Subject, record: Mapping[str, Any]) -> dict[str, Any]:
        """``prior.json``: what the base says of itself, with what the personalisation changes."""
        folder, settings = self.prior.folder, self.prior.settings
        facts = {key: value for key, value in read_json(folder / "prior.json").items() if key in SETTINGS}
        facts.update(
            name=out.absolute().name[:100],
            version=1,
            names=[*settings.names, subject.name],
            licence_data=f"{settings.licence_data}; and photos of the user's"[:1000],
            base=self.name,
            base_digest=self.digest,
            dreambooth=dict(record),
        )
        return facts


def write_full(out: Path, base: Base, facts: Mapping[str, Any]) -> None:
    """A complete prior in ``out``: the base's files, with its UNet as it is now in half precision."""
    source, unet = base.prior.folder, base.prior.unet

    def fill(new: Path) -> None:
        names = [name for name in files_of(source, optional=True) if not name.startswith("unet/")]
        if (source / "attribution.csv").is_file():
            names.append("attribution.csv")
        for name in names:
            (new / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, new / name)
        (new / "unet").mkdir()
        config = {"_class_name": "UNet2DConditionModel", **dict(unet.config)}
        (new / "unet" / "config.json").write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")
        save_half(unet.state_dict(), new / "unet" / STOCK_WEIGHTS)
        write_json(new / "prior.json", facts)

    _publish(out, fill)


def write_adapter(out: Path, base: Base, facts: Mapping[str, Any], config: Any) -> None:
    """An adapter of the base in ``out``: peft's files and ``prior.json``."""

    def fill(new: Path) -> None:
        save_lora(base.prior.unet, config, new)
        write_json(new / "prior.json", facts)

    _publish(out, fill)


def _publish(out: Path, fill: Callable[[Path], object]) -> None:
    """Let ``fill`` make files, and move them into ``out``; ``prior.json``, without which it is no prior, comes last."""
    staged = out / RUN_FOLDER / "result"
    replace_folder(staged, fill)
    for path in sorted(staged.iterdir(), key=lambda path: path.name == "prior.json"):
        target = out / path.name
        if target.is_dir():  # a run that was killed here moved it before
            shutil.rmtree(target)
        os.replace(path, target)
    staged.rmdir()
