"""Cutting the subject out of any background: Segment Anything (Kirillov et al. 2023), from a local folder of weights.

The layout is that of transformers (``facebook/sam-vit-base``); no code of the folder runs, and no pickle is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dream3d.errors import PriorError, shown
from dream3d.personalise.subject import LARGEST, SMALLEST
from dream3d.prior.folder import build_on_meta, check_has, read_header, read_tensors, shapes_of
from dream3d.prior.schema import WIDTH, YES_NO, Rules, checked, each, number, read_json, whole

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours that Segment Anything was trained on: ImageNet's."""
MIDDLE = 0.05
"""Left out of the picture at each edge by the box in which the subject is looked for."""
_FILES = ("config.json", "model.safetensors")
_SIZES: Rules = {"image_size": whole(16, 2048), "patch_size": whole(4, 64), "hidden_size": WIDTH}
_LAYERS: Rules = {"num_hidden_layers": whole(1, 64), "num_attention_heads": whole(1, 64), "mlp_dim": WIDTH}
_PARTS: dict[str, Rules] = {
    "vision_config": {
        **_SIZES,
        **_LAYERS,
        "output_channels": WIDTH,
        "num_pos_feats": WIDTH,
        "mlp_ratio": number(0.1, 16),
        "window_size": whole(0, 512),
        "global_attn_indexes": each(whole(0, 63), 0, 64),
        "qkv_bias": YES_NO,
        "use_abs_pos": YES_NO,
        "use_rel_pos": YES_NO,
    },
    "prompt_encoder_config": {**_SIZES, "mask_input_channels": WIDTH},
    "mask_decoder_config": {
        **_LAYERS,
        "hidden_size": WIDTH,
        "attention_downsample_rate": whole(1, 16),
        "num_multimask_outputs": whole(1, 16),
        "iou_head_depth": whole(1, 16),
        "iou_head_hidden_dim": WIDTH,
    },
}
_SHARED = "shared_image_embedding.positional_embedding"
_TWIN = "prompt_encoder.shared_embedding.positional_embedding"
"""The same tensor under another name; files have one or both."""


class SegmentAnything:
    """Finds what stands in the middle of a picture.

    Raises :class:`PriorError` for a folder that lacks files, holds another kind of model, or is damaged.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_has(folder, _FILES, "give a folder in the layout of transformers, with safetensors")
        path, self.device = folder / "config.json", torch.device(device)
        config = _config(path)
        self.side = int(config.vision_config.image_size)
        self._model = _loaded(config, folder / "model.safetensors", path).to(self.device).requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """(H, W) opacity in [0, 1] of the subject of an (H, W, 3) picture; None if nothing of its size is found.

        Asked for is what a box around nearly all of the picture and a point in its middle mean.
        """
        pixels, (height, width) = self._square(rgb)
        box = torch.tensor([[[MIDDLE * width, MIDDLE * height, (1 - MIDDLE) * width, (1 - MIDDLE) * height]]])
        middle = torch.tensor([[[[width / 2, height / 2]]]])
        found = self._model(
            pixel_values=pixels.to(self.device),
            input_boxes=box.to(self.device),
            input_points=middle.to(self.device),
            input_labels=torch.ones(1, 1, 1, dtype=torch.long, device=self.device),
        )
        masks = F.interpolate(found.pred_masks[0].float().cpu(), (self.side, self.side), mode="bilinear")
        masks = F.interpolate(masks[..., :height, :width], rgb.shape[:2], mode="bilinear")[0]
        return _best(masks.sigmoid(), found.iou_scores.flatten().float().cpu())

    def _square(self, rgb: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """(1, 3, side, side) as the network reads it, and height and width of the picture in its upper left corner."""
        height, width = rgb.shape[:2]
        scale = self.side / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        image = torch.from_numpy(np.array(rgb)).movedim(-1, 0)[None].float() / 255
        image = F.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in (MEAN, STD))
        return F.pad((image - mean) / std, (0, self.side - size[1], 0, self.side - size[0])), size


def _best(masks: Tensor, scores: Tensor) -> NDArray[np.float32] | None:
    """Of (M, H, W) masks the one with the highest score whose area can be a subject's."""
    areas = (masks > 0.5).float().mean((1, 2))
    fitting = [i for i, area in enumerate(areas.tolist()) if SMALLEST <= area <= LARGEST]
    if not fitting:
        return None
    return np.asarray(masks[max(fitting, key=lambda i: float(scores[i]))].numpy(), np.float32)


def _config(path: Path) -> Any:
    from transformers import SamConfig

    data = read_json(path)
    if data.get("model_type") != "sam":
        raise PriorError(
            f"{path} describes a model of type {shown(str(data.get('model_type')))}; only Segment Anything is read "
            "(type 'sam', such as facebook/sam-vit-base)"
        )
    parts = {}
    for name, rules in _PARTS.items():
        part = data.get(name, {})
        if not isinstance(part, dict):
            raise PriorError(f"{path}: {name!r} is no table; copy the file again")
        parts[name] = checked(part, rules, path)
    return build_on_meta(lambda: SamConfig(**parts), path)


def _loaded(config: Any, path: Path, described: Path) -> Any:
    from transformers import SamModel

    model: Any = build_on_meta(lambda: SamModel(config), described)
    shapes, found = shapes_of(model), read_header(path)[0]
    alone = next((one for one, other in ((_SHARED, _TWIN), (_TWIN, _SHARED)) if other not in found), None)
    missing = {_SHARED, _TWIN} - {alone} if alone else set[str]()
    tensors = read_tensors(path, {name: size for name, size in shapes.items() if name not in missing}, torch.float32)
    for name in missing & shapes.keys():
        tensors[name] = tensors[alone or name]
    model.load_state_dict(tensors, assign=True)
    return model
