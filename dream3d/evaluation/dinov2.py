"""DINOv2 as a judge of pictures alone (Oquab et al. 2023), from a folder in transformers' layout."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.errors import PriorError
from dream3d.evaluation.judge_files import CONFIG, shown_to
from dream3d.prior.image_adapter.dinov2 import (
    MEAN,
    SIDE,
    STD,
    dinov2_digest,
    read_dinov2_config,
    read_dinov2_network,
)


class Dinov2Folder:
    """A :class:`dream3d.evaluation.encoders.PictureEncoder`. Raises :class:`PriorError` for files that do not fit."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        config = read_dinov2_config(folder)
        self.name = f"DINOv2 of {folder.resolve().name}"
        self._folder, self.device = folder, torch.device(device)
        self._side = min(SIDE, config.image_size) // config.patch_size * config.patch_size
        if not self._side:
            raise PriorError(
                f"{folder / CONFIG}: a patch of {config.patch_size} pixels is larger than the pictures; copy it again"
            )
        self._model: Any = read_dinov2_network(config, folder).to(self.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of configuration and weights, one after the other."""
        return dinov2_digest(self._folder)

    @torch.no_grad()
    def embed_images(self, pictures: Tensor) -> Tensor:
        """(N, D) class tokens of length 1, on the CPU; pictures are resized, not cut."""
        seen = [
            self._model(pixel_values=pixels).pooler_output.cpu()
            for pixels in shown_to(pictures, self._side, MEAN, STD, self.device)
        ]
        return F.normalize(torch.cat(seen), dim=-1)
