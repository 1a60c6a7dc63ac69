"""DINOv2 as a judge of pictures alone (Oquab et al. 2023), from a folder in transformers' layout."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from dream3d.errors import PriorError
from dream3d.evaluation.clip import ADVICE
from dream3d.evaluation.judge_files import CONFIG, IMAGENET_MEAN, IMAGENET_STD, WEIGHTS, described, loaded, shown_to
from dream3d.files import hash_file
from dream3d.prior.folder import check_has
from dream3d.prior.schema import CLIP_VISION, YES_NO, Rules, checked, number, read_json, whole

FILES = (CONFIG, WEIGHTS)
SIDE = 224
"""Pixels along a side that it is shown at most, as its own processor cuts; its positions are interpolated."""
_SETTINGS: Rules = {
    **{key: rule for key, rule in CLIP_VISION.items() if key != "intermediate_size"},
    "mlp_ratio": whole(1, 16),
    "qkv_bias": YES_NO,
    "layerscale_value": number(0, 1e3),
    "use_swiglu_ffn": YES_NO,
}


class Dinov2Folder:
    """A :class:`dream3d.evaluation.encoders.PictureEncoder`. Raises :class:`PriorError` for files that do not fit."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_has(folder, FILES, ADVICE)
        self.name = f"DINOv2 of {folder.resolve().name}"
        self._folder, self.device = folder, torch.device(device)
        path = folder / CONFIG
        settings = checked(read_json(path), _SETTINGS, path)
        config = described(lambda: Dinov2Config(**settings), path)
        self._side = min(SIDE, config.image_size) // config.patch_size * config.patch_size
        if not self._side:
            raise PriorError(
                f"{path}: a patch of {config.patch_size} pixels is larger than the pictures; copy it again"
            )
        self._model: Any = loaded(lambda: Dinov2Model(config), folder / WEIGHTS).to(self.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of configuration and weights, one after the other."""
        return "".join(hash_file(self._folder / name) for name in FILES)

    @torch.no_grad()
    def embed_images(self, pictures: Tensor) -> Tensor:
        """(N, D) class tokens of length 1, on the CPU; pictures are resized, not cut."""
        seen = [
            self._model(pixel_values=pixels).pooler_output.cpu()
            for pixels in shown_to(pictures, self._side, IMAGENET_MEAN, IMAGENET_STD, self.device)
        ]
        return F.normalize(torch.cat(seen), dim=-1)
