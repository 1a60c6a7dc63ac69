"""A faster 3x3 convolution in float32 for CPUs: fewer products, by Winograd's minimal filtering (Lavin and Gray 2016).

Y = A^T [(G g G^T) * (B^T d B)] A for each tile: the products of all tiles and channels at one of its places are one
matrix product. Tiles of 4 x 4 results need a quarter of a plain convolution's products, and tiles of 2 x 2 four ninths.
Errors are about 1e-5 of the largest value. The transforms of both axes are one matrix (a Kronecker product), so that
they are matrix products too; autograd makes the backward pass of them, in which the same is saved. Kernels that do not
train are transformed once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_B4 = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G4 = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))
_A4 = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_B2 = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_G2 = ((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2))
_A2 = ((1, 1, 1, 0), (0, 1, -1, -1))
MOST_WEIGHTS = 64_000_000
"""Of a network whose kernels are kept transformed."""
_FORMS = {4: (_B4, _G4, 24, _A4), 2: (_B2, _G2, 2, _A2)}
"""By the side of a tile of results: B^T, G times a number, that number, A^T."""


@cache
def transforms(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of data (s, s), of kernels (s, 9) and of results (side^2, s), for tiles of ``side`` 4 or 2 results.

    s = (side + 2)^2 are the places of a tile of data.
    """
    data, kernel, divisor, result = (torch.tensor(one, dtype=torch.float64) for one in _FORMS[side])
    kernel = kernel / divisor
    return torch.kron(data, data).float(), torch.kron(kernel, kernel).float(), torch.kron(result, result).float()


class Tiles(torch.autograd.Function):
    """Overlapping tiles of an NHWC tensor padded by 1; backwards, their gradients added where they overlap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: int) -> Tensor:
        """(N, H, W, C), both sides multiples of ``side``, -> ((side + 2)^2, N * tiles * C)."""
        n, h, w, c = x.shape
        ctx.shape, ctx.side = x.shape, side
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        s = padded.stride()
        shape = (side + 2, side + 2, n, h // side, w // side, c)
        tiles = padded.as_strided(shape, (s[1], s[2], s[0], s[1] * side, s[2] * side, s[3]))
        return tiles.reshape((side + 2) ** 2, -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        """A tile reaches two places into the next one, which has the places of its own first."""
        n, h, w, c = ctx.shape
        m = ctx.side
        rows, columns = h // m, w // m
        tiles = grad_outputs[0].view(m + 2, m + 2, n, rows, columns, c).permute(2, 3, 0, 4, 1, 5)
        sums = tiles.new_zeros(n, rows + 1, m, columns + 1, m, c)
        sums[:, :rows, :, :columns] += tiles[:, :, :m, :, :m]
        sums[:, 1:, :2, :columns] += tiles[:, :, m:, :, :m]
        sums[:, :rows, :, 1:, :2] += tiles[:, :, :m, :, m:]
        sums[:, 1:, :2, 1:, :2] += tiles[:, :, m:, :, m:]
        return sums.view(n, h + m, w + m, c)[:, 1 : h + 1, 1 : w + 1], None


def transformed(weight: Tensor, side: int) -> Tensor:
    """Kernels (O, C, 3, 3) -> ((side + 2)^2, C, O), for :func:`convolve3`."""
    out, c = weight.shape[:2]
    kernel = transforms(side)[1].to(weight.device)
    return (kernel @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, c, out)


def convolve3(x: Tensor, kernels: Tensor, bias: Tensor | None, side: int) -> Tensor:
    """A convolution with padding 1 of (N, C, H, W), both multiples of ``side``, -> (N, O, H, W).

    ``kernels`` are those of :func:`transformed`. The result is stored channels-last, and data that is so too is not
    copied.
    """
    data, _, result = (one.to(x.device) for one in transforms(side))
    n, c, h, w = x.shape
    places, _, out = kernels.shape
    tiles: Tensor = Tiles.apply(x.permute(0, 2, 3, 1).contiguous(), side)  # type: ignore[no-untyped-call]
    seen = (data @ tiles).view(places, -1, c)
    y = result @ torch.bmm(seen, kernels).view(places, -1)
    y = y.view(side, side, n, h // side, w // side, out).permute(2, 3, 0, 4, 1, 5).reshape(n, h, w, out)
    return (y if bias is None else y + bias).permute(0, 3, 1, 2)


class Kernels:
    """A layer's transformed kernels, made again only when they have changed or are to be trained."""

    def __init__(self) -> None:
        self._of: tuple[int, ...] = ()
        self._kept: Tensor | None = None

    def __deepcopy__(self, memo: object) -> Kernels:
        """A network's copy keeps kernels of its own."""
        return Kernels()

    def of(self, weight: Tensor, side: int) -> Tensor:
        """See :func:`transformed`."""
        if weight.requires_grad:
            self._kept = None
            return transformed(weight, side)
        of = (weight.data_ptr(), weight._version, side)
        if self._kept is None or self._of != of:
            self._of, self._kept = of, transformed(weight, side)
        return self._kept


def _forward3(self: nn.Conv2d, x: Tensor) -> Tensor:
    side = 4 if min(x.shape[2:]) >= 8 else 2  # one large tile has little data for its many products with the kernels
    if x.shape[2] % side or x.shape[3] % side:
        return F.conv2d(x, self.weight, self.bias, padding=1)
    kernels: Kernels = self.kernels  # type: ignore[assignment]  # a module's attributes have no types of their own
    return convolve3(x, kernels.of(self.weight, side), self.bias, side)


def _forward1(self: nn.Conv2d, x: Tensor) -> Tensor:
    return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def replace_forward(module: nn.Module, forward: Callable[..., Tensor]) -> None:
    """Let a layer compute by a function of itself and its input."""
    module.forward = MethodType(forward, module)


def accelerate_convolutions(unet: nn.Module) -> None:
    """Replace the forwards of 3x3 and 1x1 convolutions with stride 1; parameters and their names stay as they are."""
    for module in unet.modules():
        if not isinstance(module, nn.Conv2d) or module.stride != (1, 1):
            continue
        if (module.kernel_size, module.padding) == ((3, 3), (1, 1)):
            module.kernels = Kernels()  # type: ignore[assignment]
            replace_forward(module, _forward3)
            # As the transform reads it, so that nothing is copied, nor in the optimiser's step.
            stored = module.weight.data.permute(2, 3, 1, 0).contiguous()
            module.weight.data = stored.permute(3, 2, 0, 1)
        elif (module.kernel_size, module.padding) == ((1, 1), (0, 0)):
            replace_forward(module, _forward1)


def convolutions_pay(unet: nn.Module) -> bool:
    """Whether :func:`accelerate_convolutions` is for this network: float32 on a CPU, and small.

    Transformed kernels take up to four times the memory of the plain ones.
    """
    first = next(unet.parameters())
    count = sum(value.numel() for value in unet.parameters())
    return first.device.type == "cpu" and first.dtype == torch.float32 and count <= MOST_WEIGHTS
