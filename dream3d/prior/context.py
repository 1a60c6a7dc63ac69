"""Keys and values of what a network is told, made once for each conditioning and kept as long as it stays the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dream3d.prior.attention import Context, ContextKeys, cross_layers, keys_and_values
from dream3d.prior.conditioning import Condition, Conditioning
from dream3d.prior.image_adapter.adapter import ImageAdapter

MAX_ROWS = 32
"""Images of a batch up to which the text's keys and values are kept: 0.12 GB in half precision for SD 2.1."""


def make_context(
    unet: UNet2DConditionModel, text: Tensor | None, images: Tensor | None, adapter: ImageAdapter | None
) -> dict[str, ContextKeys]:
    """What every cross-attention layer looks at, for ``text`` (B, T, W) and pictures' tokens (B, M, W).

    The products are those that the stock layers would do, of the same shapes, so that the result is theirs bit for bit.
    """
    made = {}
    for name, layer in cross_layers(unet).items():
        seen = None if text is None else keys_and_values(layer, text)
        if images is None or adapter is None:
            made[name] = ContextKeys(seen)
        else:
            made[name] = ContextKeys(seen, adapter.keys(name, images, layer.heads))
    return made


@dataclass
class _Kept:
    """Of one conditioning, in one state of all tensors that count."""

    conditioning: Conditioning
    """The object itself: while it is held here, no other can be taken for it."""
    versions: tuple[int, ...]
    by_layout: dict[tuple[int, ...], Context] = field(default_factory=dict)


class ContextCache:
    """Of one prior. What was made for another conditioning, or before a tensor was changed in place, is made again."""

    def __init__(self, unet: UNet2DConditionModel, adapter: Callable[[], ImageAdapter]) -> None:
        """``adapter`` is asked for when there are pictures."""
        self.unet, self._adapter = unet, adapter
        layers = cross_layers(unet).values()
        self._weights = [weight for layer in layers for weight in (layer.to_k.weight, layer.to_v.weight)]
        self._kept: _Kept | None = None

    @torch.no_grad()
    def of(self, conditioning: Conditioning, halves: Sequence[Condition], count: int) -> Context | None:
        """What the network looks at in a batch with ``count`` images of each of the conditioning's ``halves``.

        None for a large batch without pictures: the layers then make their own.
        """
        has_images = conditioning.has_images
        if len(halves) * count > MAX_ROWS and not has_images:
            return None
        versions = tuple(map(_version, self._tensors(conditioning)))
        kept = self._kept
        if kept is None or kept.conditioning is not conditioning or kept.versions != versions:
            kept = self._kept = _Kept(conditioning, versions)
        layout = (*(int(half is conditioning.unconditional) for half in halves), count)
        if layout not in kept.by_layout:
            kept.by_layout[layout] = self._make(conditioning, halves, count)
        return kept.by_layout[layout]

    def _make(self, conditioning: Conditioning, halves: Sequence[Condition], count: int) -> Context:
        text = torch.cat([half.text.expand(count, -1, -1) for half in halves])
        if not conditioning.has_images:
            return make_context(self.unet, text, None, None)
        tokens = [half.image_tokens for half in halves if half.image_tokens is not None]
        assert len(tokens) == len(halves)  # Conditioning checks it
        images = torch.cat([one.expand(count, -1, -1) for one in tokens]).to(text.dtype)
        made = make_context(self.unet, text, images, self._adapter())
        text_weight, image_weight = conditioning.text_weight, conditioning.image_weight
        return {name: keys._replace(text_weight=text_weight, image_weight=image_weight) for name, keys in made.items()}

    def _tensors(self, conditioning: Conditioning) -> list[Tensor]:
        told = [conditioning.conditional, conditioning.unconditional]
        found = [one.text for one in told] + [one.image_tokens for one in told if one.image_tokens is not None]
        return [*found, *self._weights]


def _version(tensor: Tensor) -> int:
    """Which tensor it is, and how often it was changed in place."""
    return hash((id(tensor), 0 if tensor.is_inference() else tensor._version))
