"""Staying as one was: the network answers on views of the class as the frozen one does.

What photos teach in image mode also moves what the network draws with cameras: for the class, for all else, and for no
text, which guidance amplifies. To compare answers costs nothing where nothing has changed; the loss of drawn pictures
has noise even there (docs/dreambooth.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.dataset.captions.templates import article
from dream3d.personalise.words import Subject
from dream3d.prior.unet import call_unet

CLASS_SHARE, EMPTY_SHARE = 0.5, 0.25
"""How often the text is the class, and none; else it is another name that the prior knows."""
MOST_NAMES = 200
"""Of these; each is read once by the text encoder."""


@dataclass(frozen=True)
class Asked:
    """What is asked in one step."""

    index: int
    """Of the set of views."""
    caption: str


def captions_of(subject: Subject, names: Sequence[str], suffix: str) -> list[str]:
    """The class, no text, and the other names that a prior knows, as its 3D captions have them."""
    others = [name for name in names if subject.kind not in name.lower()][:MOST_NAMES]
    return [subject.class_phrase + suffix, "", *(f"{article(name)} {name}{suffix}" for name in others)]


def ask(sets: int, captions: Sequence[str], rng: np.random.Generator) -> Asked:
    """A random set of views, and a random one of :func:`captions_of`."""
    index, chance = int(rng.integers(sets)), rng.random()
    if chance < CLASS_SHARE or len(captions) < 3:
        return Asked(index, captions[0 if chance < 1 - EMPTY_SHARE else 1])
    if chance < CLASS_SHARE + EMPTY_SHARE:
        return Asked(index, captions[1])
    return Asked(index, captions[2 + int(rng.integers(len(captions) - 2))])


def answers(
    unet: Any, frozen: Any, noisy: Tensor, timesteps: Tensor, text: Tensor, cameras: Cameras
) -> tuple[Tensor, Tensor]:
    """Outputs (V, C, h, w) of the network and of the frozen one for noisy latents of V views of one object.

    ``timesteps`` (V,), ``text`` (tokens, width).
    """
    poses, states = cameras.conditioning().to(noisy.device), text.expand(len(noisy), -1, -1)
    with torch.no_grad():
        target = call_unet(frozen, noisy, timesteps, states, poses, len(noisy))
    return call_unet(unet, noisy, timesteps, states, poses, len(noisy)), target
