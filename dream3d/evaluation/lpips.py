"""LPIPS (Zhang et al. 2018): how different two pictures look, by the features of a classifier, from a folder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dream3d.evaluation.judge_files import BATCH, CONFIG, WEIGHTS, loaded
from dream3d.files import hash_file
from dream3d.prior.folder import check_has
from dream3d.prior.schema import check, one_of, read_json

FILES = (CONFIG, WEIGHTS)
Backbone = Literal["alex", "vgg"]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pictures in [-1, 1], before the backbone."""
_PARTS = {"alex": (2, 5, 8, 10, 12), "vgg": (4, 9, 16, 23, 30)}
"""Where each of five parts of a backbone's layers ends; its output is compared."""


def _alex() -> list[nn.Module]:
    """AlexNet's layers up to its last ReLU, as torchvision numbers them."""
    relu = nn.ReLU
    return [
        *(nn.Conv2d(3, 64, 11, 4, 2), relu(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), relu(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), relu(), nn.Conv2d(384, 256, 3, padding=1), relu()),
        *(nn.Conv2d(256, 256, 3, padding=1), relu()),
    ]


def _vgg() -> list[nn.Module]:
    """VGG-16's layers up to its last ReLU, as torchvision numbers them."""
    layers: list[nn.Module] = []
    channels = 3
    for number, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers += [nn.MaxPool2d(2, 2)] * bool(number)
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return layers


class Lpips(nn.Module):
    """The network; its weights have the names of the package ``lpips``."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        layers = _alex() if backbone == "alex" else _vgg()
        ends = _PARTS[backbone]
        self.net, widths = nn.Module(), list[int]()
        for number, (start, end) in enumerate(zip((0, *ends[:-1]), ends, strict=True)):
            part = nn.Sequential()
            for index in range(start, end):
                part.add_module(str(index), layers[index])
            self.net.add_module(f"slice{number + 1}", part)
            widths.append([layer.out_channels for layer in part if isinstance(layer, nn.Conv2d)][-1])
        for number, width in enumerate(widths):
            weight = nn.Module()
            weight.model = nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False))
            self.add_module(f"lin{number}", weight)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(N,) distances of (N, 3, H, W) pictures in [0, 1]: equation 1, with the learnt weights of channels."""
        shift, scale = (one.new_tensor(values).view(3, 1, 1) for values in (SHIFT, SCALE))
        seen = torch.cat([(pictures * 2 - 1 - shift) / scale for pictures in (one, other)])
        total = one.new_zeros(len(one))
        for number, part in enumerate(self.net.children()):
            seen = part(seen)
            first, second = (seen / torch.sqrt(1e-8 + seen.square().sum(1, keepdim=True))).chunk(2)
            weight: nn.Module = self.get_submodule(f"lin{number}.model")
            total = total + weight((first - second).square()).mean((1, 2, 3))
        return total


class LpipsFolder:
    """A :class:`dream3d.evaluation.encoders.PerceptualDistance`, from ``config.json`` and ``model.safetensors``.

    ``config.json`` says ``{"model_type": "lpips", "backbone": "alex"}``, or vgg. Raises :class:`PriorError` for files
    that are missing, damaged, or do not belong together.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_has(folder, FILES, "give a folder with the weights of LPIPS as safetensors")
        backbone = check(read_json(folder / CONFIG).get("backbone"), one_of(*_PARTS), "backbone", folder / CONFIG)
        self.name, self._folder = f"LPIPS ({backbone}) of {folder.resolve().name}", folder
        self.device = torch.device(device)
        self._network = loaded(lambda: Lpips(backbone), folder / WEIGHTS, _is_repeated).to(self.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of configuration and weights, one after the other."""
        return "".join(hash_file(self._folder / name) for name in FILES)

    @torch.no_grad()
    def distances(self, pictures: Tensor, truth: Tensor) -> Tensor:
        """(N,) on the CPU, 0 for equal pictures, of (N, 3, S, S) in [0, 1]; small ones are enlarged to 64 pixels."""
        found = []
        for pair in zip(pictures.split(BATCH), truth.split(BATCH), strict=True):
            one, other = (_large(part.to(self.device, torch.float32)) for part in pair)
            found.append(self._network(one, other).cpu())
        return torch.cat(found)


def _large(pictures: Tensor) -> Tensor:
    """Pictures of 64 pixels a side at least: below, nothing is left behind the pooling of AlexNet."""
    if pictures.shape[-1] >= 64:
        return pictures
    return F.interpolate(pictures, (64, 64), mode="bilinear", antialias=True).clamp(0, 1)


def _is_repeated(name: str) -> bool:
    """What the package's files hold beside the weights: the constants, and the same layers again in a list."""
    return name.startswith(("lins.", "scaling_layer."))
