"""Pictures and sentences to unit vectors that lie close when the sentence describes the picture.

A small relative of CLIP (Radford et al. 2021): the pictures go through a convolutional network, the sentences through
the prior's own frozen text encoder and one learnt linear map. It is an optional part of a prior folder,
``image_encoder/config.json`` and ``image_encoder/model.safetensors``, and learnt by ``dream3d train-encoder``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from dream3d.errors import PriorError, shown
from dream3d.files import write_atomically, write_json
from dream3d.prior.folder import build_on_meta, check_has, known_arguments, read_settings, read_tensors, shapes_of
from dream3d.prior.schema import WIDTH, read_json, whole
from dream3d.prior.text import PromptEncoder

FOLDER = "image_encoder"
"""Its place inside a prior folder."""
BATCH = 256
"""Pictures or sentences that pass through the networks together."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the two towers. Raises :class:`PriorError` for what cannot be built."""

    image_size: int = 64
    """Pixels along a side of the pictures that the network reads; others are resized."""
    channels: tuple[int, ...] = (48, 64, 128, 256)
    """Of each stage; each stage halves the picture. Multiples of 8."""
    dim: int = 256
    """Numbers in a vector."""
    text_width: int = 384
    """Numbers in a state of the text encoder: MiniLM's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        widths = range(GROUPS, 1025, GROUPS)
        if not 1 <= len(self.channels) <= 6 or not all(type(c) is int and c in widths for c in self.channels):
            raise PriorError(f"image encoder: channels {self.channels!r}: 1 to 6 multiples of {GROUPS} up to 1024")
        for name, rule in (("image_size", whole(16, 512)), ("dim", whole(1, 4096)), ("text_width", WIDTH)):
            if not rule.accepts(getattr(self, name)):
                raise PriorError(f"image encoder: {name} is {shown(getattr(self, name))}, not {rule.words}")


GROUPS = 8
"""Of the normalisation; per picture, so that one trains and embeds alike whatever the batch."""


class _Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, with the normalisation first)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if stride > 1 or inputs != outputs else nn.Identity()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return self.shortcut(x) + y


class Towers(nn.Module):
    """The weights that are learnt: pictures and mean text states to unit vectors of one space."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        first, *rest = config.channels
        stages: list[nn.Module] = [nn.Conv2d(3, first, 3, stride=2, padding=1)]
        for depth, (inputs, outputs) in enumerate(zip(config.channels, rest, strict=False)):
            stages.append(_Block(inputs, outputs, 2))
            if depth:  # a second block where the picture is small already and costs little
                stages.append(_Block(outputs, outputs, 1))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(GROUPS, config.channels[-1])
        self.head = nn.Linear(config.channels[-1], config.dim)
        self.text = nn.Linear(config.text_width, config.dim)

    def features(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1], S the configuration's -> the last feature map (N, channels[-1], h, w)."""
        return F.silu(self.norm(self.stages(pictures * 2 - 1)))

    def images(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1], S the configuration's -> (N, dim) of length 1."""
        return F.normalize(self.head(self.features(pictures).mean((2, 3))), dim=-1)

    def texts(self, pooled: Tensor) -> Tensor:
        """(N, text_width) as :func:`pool_states` makes them -> (N, dim) of length 1."""
        return F.normalize(self.text(pooled), dim=-1)


def pool_states(states: Tensor) -> Tensor:
    """(N, tokens, width) -> (N, width): the mean over real tokens, which are those that are not all zero."""
    real = states.abs().amax(-1, keepdim=True) > 0
    return (states * real).sum(1) / real.sum(1).clamp_min(1)


def pooled_texts(text: PromptEncoder, prompts: list[str], device: torch.device) -> Tensor:
    """(len(prompts), width) on the device: the mean token states of sentences."""
    parts = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]
    pooled = [pool_states(text.encode(part, device)) for part in parts]
    return torch.cat(pooled) if pooled else torch.zeros(0, text.width, device=device)


class ImageEncoder:
    """Learnt towers and the frozen text encoder that they were learnt with, on one device."""

    def __init__(self, towers: Towers, text: PromptEncoder, device: torch.device | str = "cpu") -> None:
        if towers.config.text_width != text.width:
            raise PriorError(
                f"the image encoder reads text of width {towers.config.text_width}, the text encoder gives "
                f"{text.width}; take the folder of the prior that it was trained with"
            )
        self.device = torch.device(device)
        self.towers = towers.to(self.device).requires_grad_(False).eval()
        self.text = text

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self.towers.config.dim

    @torch.no_grad()
    def embed_images(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1], any S -> (N, dim) of length 1, float32; larger or smaller pictures are resized."""
        size = self.towers.config.image_size
        vectors = []
        for part in pictures.split(BATCH):
            part = part.to(self.device, torch.float32)
            if part.shape[-2:] != (size, size):
                part = F.interpolate(part, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
            vectors.append(self.towers.images(part))
        return torch.cat(vectors)

    @torch.no_grad()
    def embed_texts(self, prompts: list[str]) -> Tensor:
        """(len(prompts), dim) of length 1, float32."""
        return self.towers.texts(pooled_texts(self.text, prompts, self.device))


def save_towers(towers: Towers, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` (fp16) into an existing folder."""
    write_json(folder / "config.json", {"type": "contrastive", **dataclasses.asdict(towers.config)})
    tensors = {name: value.detach().half().cpu().contiguous() for name, value in towers.state_dict().items()}
    write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path))


def load_towers(folder: Path) -> Towers:
    """The towers of an ``image_encoder`` folder in float32; :class:`PriorError` for missing or damaged files."""
    advice = "this prior has no image encoder: train one with 'dream3d train-encoder SHARDS --out FOLDER'"
    check_has(folder, ("config.json", "model.safetensors"), advice)
    path = folder / "config.json"
    config = _read_config(path)
    towers = build_on_meta(lambda: Towers(config), path)
    tensors = read_tensors(folder / "model.safetensors", shapes_of(towers), torch.float32)
    towers.load_state_dict(tensors, assign=True)
    return towers


def _read_config(path: Path) -> EncoderConfig:
    data: dict[str, Any] = read_json(path)
    if data.get("type") != "contrastive":
        raise PriorError(f"{path}: unknown image encoder {data.get('type')!r}; known: contrastive")
    if not isinstance(data.get("channels", []), list):
        raise PriorError(f"{path}: 'channels' is {data['channels']!r}, not a list")
    return EncoderConfig(**known_arguments(EncoderConfig, data))


def load_image_encoder(
    folder: Path, text_folder: Path | None = None, device: torch.device | str = "cpu"
) -> ImageEncoder:
    """The image encoder of a folder. Raises :class:`PriorError`, which says how to get one, if there is none.

    ``text_folder`` is the prior whose text encoder it was trained with; the folder itself by default.
    """
    towers = load_towers(folder / FOLDER)
    return ImageEncoder(towers, load_text(text_folder or folder), device)


def load_text(folder: Path) -> PromptEncoder:
    """The text encoder of a prior folder alone; :class:`PriorError` if its files are missing or damaged."""
    names = ("prior.json", "tokenizer/tokenizer.json", "text_encoder/config.json", "text_encoder/model.safetensors")
    check_has(folder, names, "give the folder of a prior with a text encoder")
    return PromptEncoder(folder, read_settings(folder).text_tokens)
