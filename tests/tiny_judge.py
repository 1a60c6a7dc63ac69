"""A tiny prior with an image encoder, and a classifier that knows four colours: judges that cost nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_prior import write_tiny_prior
from torch import Tensor

from dream3d.evaluation.encoders import PriorEncoder
from dream3d.evaluation.suite.measure import Judges
from dream3d.prior.image_encoder import EncoderConfig, Towers, save_towers


def write_tiny_judge(folder: Path) -> Path:
    """A tiny prior's folder with ``image_encoder/``, of random weights; returns it."""
    write_tiny_prior(folder)
    torch.manual_seed(1)
    (folder / "image_encoder").mkdir()
    save_towers(Towers(EncoderConfig(16, (8, 16), 8, text_width=12)), folder / "image_encoder")
    return folder


class Colors:
    """Takes pictures apart by their mean colour."""

    name, digest = "mean colours", "colours"

    def classify(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        means = pictures.mean((2, 3))
        return means, torch.cat([means, 1 - means.mean(1, keepdim=True)], 1).mul(9).softmax(-1)


def tiny_judges(folder: Path) -> Judges:
    """Of a folder of :func:`write_tiny_judge`."""
    return Judges(PriorEncoder(folder, "tiny"), Colors())
