"""Inception v3 (Szegedy et al. 2015) for FID and IS, from a folder: torchvision's weights, or those of published FIDs.

Both files have the same names. In the network that published FIDs use (Heusel et al. 2017, as torch-fidelity and
pytorch-fid have it) average pooling leaves the border out, one pooling takes the maximum, and there are 1,008 classes.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream3d.evaluation.judge_files import CONFIG, IMAGENET_MEAN, IMAGENET_STD, WEIGHTS, loaded, shown_to
from dream3d.files import hash_file
from dream3d.prior.folder import check_has
from dream3d.prior.schema import check, one_of, read_json

FILES = (CONFIG, WEIGHTS)
SIDE = 299
"""Pixels along a side that it is shown."""
Variant = Literal["fid", "torchvision"]
CLASSES = {"fid": 1008, "torchvision": 1000}
FID_MIDDLE = (128 / 255, 128 / 255, 128 / 255)
"""Mean and spread of the colours, as published FIDs take them: (value - 128) / 128."""


class _Conv(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inside: int, out: int, size: int | tuple[int, int], stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        rows, columns = (size, size) if isinstance(size, int) else size
        padding = (rows // 2, columns // 2) if pad else 0
        self.conv = nn.Conv2d(inside, out, (rows, columns), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches of convolutions beside each other, and one that pools first, or pools alone.

    ``branches`` are chains of layer names; a pair of names in place of one splits a branch in two.
    """

    def __init__(
        self, layers: dict[str, nn.Module], branches: tuple[tuple[str | tuple[str, str], ...], ...], pool: str
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._branches, self._pool = branches, pool

    def forward(self, x: Tensor) -> Tensor:
        parts = [self._through(branch, x) for branch in self._branches]
        return torch.cat([*parts, self._pooled(x)], 1)

    def _through(self, branch: tuple[str | tuple[str, str], ...], x: Tensor) -> Tensor:
        for name in branch:
            both = (name,) if isinstance(name, str) else name
            x = torch.cat([self.get_submodule(one)(x) for one in both], 1)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if self._pool == "stride":
            return F.max_pool2d(x, 3, 2)
        if self._pool == "max":
            pooled = F.max_pool2d(x, 3, 1, 1)
        else:
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=self._pool == "average")
        projected: Tensor = self.get_submodule("branch_pool")(pooled)
        return projected


def _mixed_a(inside: int, pool_width: int, pool: str) -> _Mixed:
    layers: dict[str, nn.Module] = {
        "branch1x1": _Conv(inside, 64, 1),
        "branch5x5_1": _Conv(inside, 48, 1),
        "branch5x5_2": _Conv(48, 64, 5),
        "branch3x3dbl_1": _Conv(inside, 64, 1),
        "branch3x3dbl_2": _Conv(64, 96, 3),
        "branch3x3dbl_3": _Conv(96, 96, 3),
        "branch_pool": _Conv(inside, pool_width, 1),
    }
    triple = ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
    return _Mixed(layers, (("branch1x1",), ("branch5x5_1", "branch5x5_2"), triple), pool)


def _mixed_b(inside: int) -> _Mixed:
    layers: dict[str, nn.Module] = {
        "branch3x3": _Conv(inside, 384, 3, 2, pad=False),
        "branch3x3dbl_1": _Conv(inside, 64, 1),
        "branch3x3dbl_2": _Conv(64, 96, 3),
        "branch3x3dbl_3": _Conv(96, 96, 3, 2, pad=False),
    }
    return _Mixed(layers, (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")), "stride")


def _mixed_c(width: int, pool: str) -> _Mixed:
    row, column = (1, 7), (7, 1)
    layers: dict[str, nn.Module] = {
        "branch1x1": _Conv(768, 192, 1),
        "branch7x7_1": _Conv(768, width, 1),
        "branch7x7_2": _Conv(width, width, row),
        "branch7x7_3": _Conv(width, 192, column),
        "branch7x7dbl_1": _Conv(768, width, 1),
        "branch7x7dbl_2": _Conv(width, width, column),
        "branch7x7dbl_3": _Conv(width, width, row),
        "branch7x7dbl_4": _Conv(width, width, column),
        "branch7x7dbl_5": _Conv(width, 192, row),
        "branch_pool": _Conv(768, 192, 1),
    }
    seven = tuple(f"branch7x7_{number}" for number in (1, 2, 3))
    double = tuple(f"branch7x7dbl_{number}" for number in (1, 2, 3, 4, 5))
    return _Mixed(layers, (("branch1x1",), seven, double), pool)


def _mixed_d() -> _Mixed:
    layers: dict[str, nn.Module] = {
        "branch3x3_1": _Conv(768, 192, 1),
        "branch3x3_2": _Conv(192, 320, 3, 2, pad=False),
        "branch7x7x3_1": _Conv(768, 192, 1),
        "branch7x7x3_2": _Conv(192, 192, (1, 7)),
        "branch7x7x3_3": _Conv(192, 192, (7, 1)),
        "branch7x7x3_4": _Conv(192, 192, 3, 2, pad=False),
    }
    seven = tuple(f"branch7x7x3_{number}" for number in (1, 2, 3, 4))
    return _Mixed(layers, (("branch3x3_1", "branch3x3_2"), seven), "stride")


def _mixed_e(inside: int, pool: str) -> _Mixed:
    layers: dict[str, nn.Module] = {
        "branch1x1": _Conv(inside, 320, 1),
        "branch3x3_1": _Conv(inside, 384, 1),
        "branch3x3_2a": _Conv(384, 384, (1, 3)),
        "branch3x3_2b": _Conv(384, 384, (3, 1)),
        "branch3x3dbl_1": _Conv(inside, 448, 1),
        "branch3x3dbl_2": _Conv(448, 384, 3),
        "branch3x3dbl_3a": _Conv(384, 384, (1, 3)),
        "branch3x3dbl_3b": _Conv(384, 384, (3, 1)),
        "branch_pool": _Conv(inside, 192, 1),
    }
    single = ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b"))
    double = ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b"))
    return _Mixed(layers, (("branch1x1",), single, double), pool)


class InceptionV3(nn.Module):
    """(N, 3, 299, 299) normalised pictures -> pooled features (N, 2048) and logits of the classes.

    Published inception scores are of logits without their bias, so that those of ``fid`` have none.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        pool = "average inside" if variant == "fid" else "average"
        last = "max" if variant == "fid" else pool
        stem = {
            "Conv2d_1a_3x3": _Conv(3, 32, 3, 2, pad=False),
            "Conv2d_2a_3x3": _Conv(32, 32, 3, pad=False),
            "Conv2d_2b_3x3": _Conv(32, 64, 3),
            "": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": _Conv(64, 80, 1),
            "Conv2d_4a_3x3": _Conv(80, 192, 3, pad=False),
        }
        blocks = {
            "Mixed_5b": _mixed_a(192, 32, pool),
            "Mixed_5c": _mixed_a(256, 64, pool),
            "Mixed_5d": _mixed_a(288, 64, pool),
            "Mixed_6a": _mixed_b(288),
            "Mixed_6b": _mixed_c(128, pool),
            "Mixed_6c": _mixed_c(160, pool),
            "Mixed_6d": _mixed_c(160, pool),
            "Mixed_6e": _mixed_c(192, pool),
            "Mixed_7a": _mixed_d(),
            "Mixed_7b": _mixed_e(1280, pool),
            "Mixed_7c": _mixed_e(2048, last),
        }
        order = [*stem.items(), ("", nn.MaxPool2d(3, 2)), *blocks.items()]
        for number, (name, layer) in enumerate(order):
            self.add_module(name or f"pool_{number}", layer)  # a pooling has no weights
        self.fc = nn.Linear(2048, CLASSES[variant])

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        x = pixels
        for name, layer in self.named_children():
            x = x if name == "fc" else layer(x)
        pooled = x.mean((2, 3))
        return pooled, F.linear(pooled, self.fc.weight, None if self.variant == "fid" else self.fc.bias)


class InceptionFolder:
    """A :class:`dream3d.evaluation.encoders.ClassifyingEncoder`, from ``config.json`` and ``model.safetensors``.

    ``config.json`` says ``{"model_type": "inception_v3", "variant": "fid"}``, or torchvision. Raises
    :class:`PriorError` for files that are missing, damaged, or do not belong together.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_has(folder, FILES, "give a folder with the weights of Inception v3 as safetensors")
        path = folder / CONFIG
        self.variant: Variant = check(read_json(path).get("variant"), one_of(*CLASSES), "variant", path)
        self.name, self._folder = f"Inception v3 ({self.variant}) of {folder.resolve().name}", folder
        self.device = torch.device(device)
        network = loaded(lambda: InceptionV3(self.variant), folder / WEIGHTS, _is_no_weight)
        self._network = network.to(self.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of configuration and weights, one after the other."""
        return "".join(hash_file(self._folder / name) for name in FILES)

    @torch.no_grad()
    def classify(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (N, 2048) and probabilities. Pictures are resized by torch, not as TensorFlow did."""
        mean, std = (FID_MIDDLE, FID_MIDDLE) if self.variant == "fid" else (IMAGENET_MEAN, IMAGENET_STD)
        features, probabilities = [], []
        for pixels in shown_to(pictures, SIDE, mean, std, self.device):
            pooled, logits = self._network(pixels)
            features.append(pooled.cpu())
            probabilities.append(logits.softmax(-1).cpu())
        return torch.cat(features), torch.cat(probabilities)


def _is_no_weight(name: str) -> bool:
    """What files hold that is not needed here: counts, and layers for training alone."""
    return name.startswith("AuxLogits.") or name.endswith("num_batches_tracked")
