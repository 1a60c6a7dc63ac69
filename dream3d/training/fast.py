"""A faster training step for the small UNet on CPUs with AMX: bf16 matrix products instead of oneDNN convolutions.

On one such core a bf16 matrix product runs at six times the fp32 rate, while `convolution_backward` and the flash
attention backward are slow in bf16. `accelerate_products` replaces the forward of every 3x3 convolution by an unfolding
and a product (its backward consists of two products too); attention uses plain products.

Just as much is lost in page faults of large fresh allocations. Keep the memory in the process (a third off a step):

    export GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from dream3d.prior.attention import CrossAttention, SelfAttention, plain_dot_product, set_attention
from dream3d.prior.layout import AttentionKind
from dream3d.prior.winograd import accelerate_convolutions, replace_forward
from dream3d.training.recipe import TrainingRecipe


def unfold3(x: Tensor, stride: int) -> Tensor:
    """3x3 patches with padding 1 of an NHWC tensor: (N, H, W, C) -> (N * H' * W', 9 * C)."""
    n, h, w, c = x.shape
    p = F.pad(x, (0, 0, 1, 1, 1, 1))
    ho, wo = (h - 1) // stride + 1, (w - 1) // stride + 1
    s = p.stride()
    return p.as_strided((n, ho, wo, 3, 3, c), (s[0], s[1] * stride, s[2] * stride, s[1], s[2], s[3])).reshape(-1, 9 * c)


def weight_gradient(g: Tensor, x: Tensor) -> Tensor:
    """g^T x in fp32 for (rows, out) and (rows, in); the transposed copy makes the product twice as fast."""
    return (g.t().contiguous() @ x).float()


class Conv3x3(torch.autograd.Function):
    """3x3 convolution, padding 1, stride 1 or 2, of NHWC bf16 data with an fp32 master weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        """(N, H, W, C) -> (N, H', W', out); keeps the unfolded columns for the backward pass."""
        n, h, w, c = x.shape
        out = weight.shape[0]
        kernel = weight.to(torch.bfloat16).permute(0, 2, 3, 1).reshape(out, 9 * c)
        columns = unfold3(x, stride)
        y = F.linear(columns, kernel, bias.to(torch.bfloat16))
        ctx.save_for_backward(columns, weight)
        ctx.shape, ctx.stride = x.shape, stride
        return y.view(n, (h - 1) // stride + 1, (w - 1) // stride + 1, out)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Gradients of the data (bf16), the weight and the bias (fp32), those that are needed."""
        (g,) = grad_outputs
        columns, weight = ctx.saved_tensors
        n, h, w, c = ctx.shape
        out, stride = weight.shape[0], ctx.stride
        g = g.contiguous()
        flat = g.view(-1, out)
        dw = db = dx = None
        if ctx.needs_input_grad[1]:
            dw = weight_gradient(flat, columns).view(out, 3, 3, c).permute(0, 3, 1, 2)
            db = flat.sum(0, dtype=torch.float32)
        if ctx.needs_input_grad[0]:
            if stride == 2:  # put the gradient on the fine grid, then as for stride 1
                fine = g.new_zeros(n, h, w, out)
                fine[:, ::2, ::2] = g
                g = fine
            kernel = weight.to(torch.bfloat16).flip(2, 3).permute(2, 3, 0, 1).reshape(9 * out, c)
            dx = (unfold3(g, 1) @ kernel).view(n, h, w, c)
        return dx, dw, db, None


class GroupNormNHWC(torch.autograd.Function):
    """Group normalisation of bf16 data laid out as (N, H * W, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """(N, H * W, C) -> the same shape; statistics in fp32."""
        n, positions, c = x.shape
        z = x.float()
        mean = z.mean(1).view(n, groups, -1).mean(-1)
        square = (z * z).sum(1).view(n, groups, -1).sum(-1) / (positions * c // groups)
        rstd = (square - mean.square() + eps).rsqrt()
        mean, rstd = (t.repeat_interleave(c // groups, 1) for t in (mean, rstd))
        scale = rstd * weight
        y = torch.addcmul((bias - mean * scale)[:, None], z, scale[:, None])
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups = groups
        return y.to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of the data (bf16), the weight and the bias (fp32)."""
        (g,) = grad_outputs
        x, weight, mean, rstd = ctx.saved_tensors
        n, positions, c = x.shape
        g, z = g.float(), x.float()
        sg, sgx = g.sum(1), (g * z).sum(1)  # (n, c)
        dw_n = (sgx - mean * sg) * rstd  # sum over positions of g * xhat
        dw, db = dw_n.sum(0), sg.sum(0)

        def average(t: Tensor) -> Tensor:
            t = t.view(n, ctx.groups, -1)
            return (t.sum(-1, keepdim=True) / (positions * t.shape[-1])).expand_as(t).reshape(n, c)

        a, b = average(sg * weight), average(dw_n * weight)
        # dx = rstd * (g w - a - xhat b)
        kx = -rstd * rstd * b
        k0 = -rstd * a - kx * mean
        dx = torch.addcmul(torch.addcmul(k0[:, None], z, kx[:, None]), g, (rstd * weight)[:, None])
        return dx.to(torch.bfloat16), dw, db, None, None


class Multiply(torch.autograd.Function):
    """Linear layer (and 1x1 convolution) in bf16 with fp32 gradients of the master weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(..., in) -> (..., out)."""
        w = weight.to(torch.bfloat16)
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return F.linear(x, w, None if bias is None else bias.to(torch.bfloat16))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of the data (bf16), the weight and the bias (fp32), those that are needed."""
        (g,) = grad_outputs
        x, weight = ctx.saved_tensors
        flat = g.reshape(-1, g.shape[-1])
        dx = (flat @ weight.to(torch.bfloat16)).view(x.shape) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None, None
        dw = weight_gradient(flat, x.reshape(-1, x.shape[-1]))
        return dx, dw, flat.sum(0, dtype=torch.float32) if ctx.has_bias else None


def _conv_forward(self: nn.Conv2d, x: Tensor) -> Tensor:
    """NCHW in and out, stored channels-last, so that the permutations cost nothing between convolutions."""
    nhwc = x.to(torch.bfloat16).permute(0, 2, 3, 1).contiguous()
    y: Tensor
    if self.kernel_size == (1, 1):
        n, h, w, c = nhwc.shape
        y = Multiply.apply(nhwc.view(-1, c), self.weight.flatten(1), self.bias)  # type: ignore[no-untyped-call]
        y = y.view(n, h, w, -1)
    else:
        y = Conv3x3.apply(nhwc, self.weight, self.bias, self.stride[0])  # type: ignore[no-untyped-call]
    return y.permute(0, 3, 1, 2)


def _linear_forward(self: nn.Linear, x: Tensor) -> Tensor:
    y: Tensor = Multiply.apply(x.to(torch.bfloat16), self.weight, self.bias)  # type: ignore[no-untyped-call]
    return y


def _norm_forward(self: nn.GroupNorm, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    flat = x.to(torch.bfloat16).permute(0, 2, 3, 1).reshape(n, h * w, c)
    y: Tensor = GroupNormNHWC.apply(  # type: ignore[no-untyped-call]
        flat, self.weight, self.bias, self.num_groups, self.eps
    )
    return y.view(n, h, w, c).permute(0, 3, 1, 2)


def accelerate_products(unet: nn.Module) -> None:
    """Replace the forwards of all convolutions and linear layers; parameters and their names stay as they are."""
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            replace_forward(module, _conv_forward)
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        elif isinstance(module, nn.Linear):
            replace_forward(module, _linear_forward)
        elif isinstance(module, nn.GroupNorm):
            replace_forward(module, _norm_forward)


def accelerate(unet: UNet2DConditionModel, joint: bool = True) -> UNet2DConditionModel:
    """Give a prior's fp32 UNet the faster layers, in place: products, and keys and values of the text once an object.

    ``joint``: whether self-attention sees all views of an object, or each view by itself.
    """
    own, cross = SelfAttention(joint, plain_dot_product), CrossAttention(True, plain_dot_product)
    set_attention(unet, "3d", cross, own)
    accelerate_products(unet)
    return unet


def products_pay() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware; False where the system does not tell."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def speed_up(
    unet: UNet2DConditionModel, recipe: TrainingRecipe, attention: AttentionKind, device: torch.device
) -> bool:
    """Give a network with a kind of self-attention the faster layers that recipe and machine allow.

    Whether its cross-attention is per object then: :func:`accelerate` makes it so.
    """
    kind = recipe.products
    if kind == "auto":
        possible = attention != "temporal" and recipe.precision == "fp32" and device.type == "cpu"
        kind = ("on" if products_pay() else "winograd") if possible else "off"
    if kind == "on":
        accelerate(unet, joint=attention == "3d")
    elif kind == "winograd":
        accelerate_convolutions(unet)
    return kind == "on"
