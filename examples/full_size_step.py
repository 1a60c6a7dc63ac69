"""One score-distillation step of MVDream at full size on the CPU, with random weights: how long, how much memory.

    python examples/full_size_step.py                  # random weights, nothing is downloaded
    python examples/full_size_step.py --prior FOLDER   # a converted prior, or official weights
    python examples/full_size_step.py --size 64        # a quick look: smaller images

Four views of 256 px through the VAE's encoder, with gradients back to the pixels; a guidance scale of 50 with
rescale 0.5 (the ``mvdream`` preset); one UNet pass over [conditional; unconditional]. Random weights cost what
trained ones cost; their target means nothing.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from typing import Protocol

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn

from dream3d.cameras import Cameras, orbit
from dream3d.guidance import add_noise, distillation_loss, guided_target, x0_from_prediction
from dream3d.prior.attention import set_attention
from dream3d.prior.codec import AutoencoderCodec
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.unet import MultiViewUNet, call_unet
from dream3d.recipe.generation import GuidanceRecipe
from dream3d.recipe.presets import preset

VIEWS = 4
TIMESTEP = 500
TEXT = (1, 77, 1024)
CHANNELS = (320, 640, 1280, 1280)
"""Of the UNet's levels."""


class FullSizePrior(Protocol):
    """What the step asks of a prior."""

    unet: MultiViewUNet

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,) signal variance at each timestep."""
        ...

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(4, 3, S, S) in [0, 1] -> latents (4, 4, S / 8, S / 8)."""
        ...

    def predict_x0(
        self, x_t: Tensor, timestep: int, cameras: Cameras, conditioning: Conditioning, views: int
    ) -> tuple[Tensor, Tensor]:
        """Clean latents with and without the text."""
        ...


class RandomPrior:
    """SD 2.1's multi-view UNet and VAE, 951,226,027 random weights in float32; no text encoder."""

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        with torch.device("meta"):  # the layers' own initialisation would take longer than the step
            self.unet = MultiViewUNet(
                sample_size=32,
                block_out_channels=tuple(channels),
                cross_attention_dim=TEXT[-1],
                attention_head_dim=tuple(count // 64 for count in channels),
                use_linear_projection=True,
                class_embed_type="projection",
                projection_class_embeddings_input_dim=16,
            )
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=4,
            )
        generator = torch.Generator().manual_seed(0)
        for network in (self.unet, vae):
            _fill(network.to_empty(device="cpu"), generator)
        self.codec = AutoencoderCodec(vae)
        set_attention(self.unet, "3d")
        self.alphas_cumprod = DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear").alphas_cumprod.double()

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """As :meth:`dream3d.prior.diffusion.DiffusionPrior.encode_images`, differentiable."""
        return self.codec.encode(images * 2 - 1, generator)

    @torch.no_grad()
    def predict_x0(
        self, x_t: Tensor, timestep: int, cameras: Cameras, conditioning: Conditioning, views: int
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`dream3d.prior.diffusion.DiffusionPrior.predict_x0`: (4, 4, h, w) -> two of the same shape."""
        both, poses = torch.cat([x_t, x_t]), cameras.conditioning().repeat(2, 1)
        halves = (conditioning.conditional, conditioning.unconditional)
        context = torch.cat([half.text.expand(len(x_t), -1, -1) for half in halves])
        prediction = call_unet(self.unet, both, torch.full((len(both),), timestep), context, poses, views)
        x0 = x0_from_prediction(both, prediction, float(self.alphas_cumprod[timestep]), "epsilon")
        conditional, unconditional = x0.chunk(2)
        return conditional, unconditional


def _fill(network: nn.Module, generator: torch.Generator) -> None:
    """Weights as wide as their inputs allow; biases 0, scales of norms 1."""
    for name, parameter in network.eval().requires_grad_(False).named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            bound = parameter[0].numel() ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)


def main() -> None:
    """Load, take one step and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prior", help="prior folder or official weights; default: random weights")
    parser.add_argument("--size", type=int, default=256, help="side of the images, pixels; a multiple of 64")
    arguments = parser.parse_args()
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    prior: FullSizePrior
    if arguments.prior is None:
        prior = RandomPrior()
        text = Conditioning.from_text(torch.randn(TEXT, generator=generator), torch.randn(TEXT, generator=generator))
    else:
        from dream3d.weights.loading import load_prior  # needs libraries that random weights do not

        loaded = load_prior(arguments.prior)
        prior, text = loaded, loaded.encode_prompt("an elk skull", "")
    size = sum(parameter.numel() for parameter in prior.unet.parameters())
    print(f"UNet of {size:,} parameters ready after {time.perf_counter() - start:.1f} s, {memory()}")
    images = torch.rand(VIEWS, 3, arguments.size, arguments.size, generator=generator).requires_grad_()
    start = time.perf_counter()
    loss = step(prior, images, text, preset("mvdream").guidance, generator)
    gradient = images.grad
    if gradient is None:
        raise SystemExit("the step left no gradient")
    print(f"one step: {time.perf_counter() - start:.1f} s on {torch.get_num_threads()} thread(s), {memory()}")
    print(f"loss {loss:.4g}, gradient {tuple(gradient.shape)} with norm {float(gradient.norm()):.4g}")


def step(
    prior: FullSizePrior, images: Tensor, conditioning: Conditioning, recipe: GuidanceRecipe, generator: torch.Generator
) -> float:
    """One x0-reconstruction step on images (4, 3, S, S), whose gradient it fills; returns the loss."""
    start = time.perf_counter()
    latents = prior.encode_images(images, generator)
    print(f"latents {tuple(latents.shape)} after {time.perf_counter() - start:.1f} s, {memory()}")
    alpha_bar = float(prior.alphas_cumprod[TIMESTEP])
    noise = torch.randn(latents.shape, generator=generator)
    x_t = add_noise(latents.detach(), noise, alpha_bar)
    x0_text, x0_uncond = prior.predict_x0(x_t, TIMESTEP, orbit(VIEWS), conditioning, VIEWS)
    print(f"x0 with and without the text after {time.perf_counter() - start:.1f} s, {memory()}")
    target = guided_target(x0_text, x0_uncond, VIEWS, recipe)
    loss = distillation_loss(latents, target, x_t, noise, alpha_bar, recipe)
    loss.backward()
    return float(loss.detach())


def memory() -> str:
    """Peak resident memory of this process so far, as text."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"peak memory {peak / 2**30:.2f} GiB"


if __name__ == "__main__":
    main()
