"""What a prior draws of a thing, and how much that resembles photos of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dream3d.bounds import MAX_SEED
from dream3d.cameras import Cameras, orbit
from dream3d.dataset.decoding import read_rgba
from dream3d.errors import DatasetError, PriorError
from dream3d.files import read_regular
from dream3d.images import Picture, side_by_side, to_uint8, write_png
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_encoder import FOLDER, ImageEncoder, load_towers
from dream3d.prior.sampling import sample_pictures, sample_views, sampling_for

MAX_STRIP_BYTES = 2**28
"""Of the PNG with pictures that a prior drew."""
PICTURES_AT_ONCE = 8
"""Single pictures that are drawn together, to bound the memory."""
KEEP_SEED = 1000
"""Of the first set of views that are kept: others than those that the check draws."""


def cameras_of(prior: DiffusionPrior) -> Cameras:
    """As many cameras around the thing as the prior judges together."""
    return orbit(prior.views)


def draw_views(prior: DiffusionPrior, prompt: str, seed: int) -> Tensor:
    """(views, 3, S, S) in [0, 1] around one thing, as ``dream3d views`` draws them."""
    text = prior.encode_prompt(prior.with_suffix(prompt), "")
    return sample_views(prior, text, cameras_of(prior), sampling_for(prior.recommended_preset), seed).cpu()


def draw_pictures(prior: DiffusionPrior, prompt: str, count: int, seed: int) -> Tensor:
    """(count, 3, S, S) in [0, 1]: single pictures in image mode, each with noise of its own."""
    text, recipe = prior.encode_prompt(prompt, ""), sampling_for(prior.recommended_preset)
    firsts = range(0, count, PICTURES_AT_ONCE)
    seeds = {first: (seed + first) % MAX_SEED for first in firsts}
    parts = [sample_pictures(prior, text, min(PICTURES_AT_ONCE, count - i), recipe, seeds[i]) for i in firsts]
    return torch.cat(parts).cpu()


def encoder_of(prior: DiffusionPrior) -> ImageEncoder | None:
    """The prior's image encoder, or None if it has none that is sound."""
    try:
        return ImageEncoder(load_towers(prior.folder / FOLDER), prior.text, prior.device)
    except PriorError:
        return None


def likeness(encoder: ImageEncoder, drawn: Tensor, photos: Tensor) -> float:
    """The identity score: mean cosine of all pairs of (N, 3, S, S) drawn pictures and (M, 3, S, S) photos, -1 to 1.

    DreamBooth's CLIP-I (Ruiz et al. 2023, section 4.1) with the prior's own encoder.
    """
    return float((encoder.embed_images(drawn) @ encoder.embed_images(photos).t()).mean())


def as_tensor(pictures: Picture) -> Tensor:
    """(N, S, S, 3) bytes -> (N, 3, S, S) in [0, 1]."""
    return torch.from_numpy(pictures).movedim(-1, 1).contiguous().float() / 255


def rose(scores: Sequence[float], patience: int, rise: float) -> bool:
    """Whether one of the last ``patience`` scores was more than ``rise`` above the best before it.

    True too while there are too few scores to tell, and for a patience of 0.
    """
    if not patience or len(scores) <= patience:
        return True
    best, last = scores[0], 0
    for index, score in enumerate(scores):
        if score > best + rise:
            best, last = score, index
    return len(scores) - 1 - last < patience


def kept(path: Path, count: int, side: int, draw: Callable[[], Tensor]) -> Picture:
    """(count, side, side, 3) pictures as ``draw`` makes them, (count, 3, side, side) in [0, 1].

    They are kept in a PNG, one beside the other, and read from there if it fits.
    """
    with suppress(OSError, ValueError, DatasetError):
        rgba = read_rgba(read_regular(path, MAX_STRIP_BYTES), count * side * side, ("PNG",))
        return np.stack(np.split(rgba[..., :3], count, axis=1)).reshape(count, side, side, 3)
    pictures = to_uint8(draw().movedim(1, -1))
    write_png(path, side_by_side(pictures))
    return pictures


def class_views(path: Path, prior: DiffusionPrior, phrase: str, sets: int, seed: int) -> Picture:
    """(sets, views, S, S, 3): what a frozen prior draws of a class, kept in a PNG as by :func:`kept`."""
    seeds = [(KEEP_SEED + seed + index) % MAX_SEED for index in range(sets)]
    strip = kept(
        path,
        sets * prior.views,
        prior.image_size,
        lambda: torch.cat([draw_views(prior, phrase, one) for one in seeds]),
    )
    return strip.reshape(sets, prior.views, *strip.shape[1:])
