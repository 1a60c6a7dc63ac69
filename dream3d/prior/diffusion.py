"""A multi-view diffusion prior from a folder, ready to steer a field."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.errors import PriorError
from dream3d.guidance import PredictionType, x0_from_prediction
from dream3d.prior.adapter import Adapter, merge
from dream3d.prior.base import Likeness
from dream3d.prior.codec import AutoencoderCodec, load_codec
from dream3d.prior.conditioning import Condition, Conditioning
from dream3d.prior.context import ContextCache
from dream3d.prior.folder import check_files, digest_of, read_settings
from dream3d.prior.image_adapter.folder import LoadedAdapter, load_adapter
from dream3d.prior.image_encoder import FOLDER, ImageEncoder, load_towers
from dream3d.prior.memory import MemoryPlan, Precision
from dream3d.prior.schedule import load_schedule
from dream3d.prior.text import PromptEncoder, with_suffix
from dream3d.prior.unet import call_unet, load_unet
from dream3d.prior.vocabulary import Unfamiliar, unfamiliar
from dream3d.prior.winograd import accelerate_convolutions, convolutions_pay


class DiffusionPrior:
    """UNet, codec, text encoder and schedule of one folder, on one device; with an adapter, the UNet that it means."""

    def __init__(
        self,
        folder: Path,
        device: torch.device | str = "cpu",
        memory: MemoryPlan | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        check_files(folder)
        self.folder, self.adapter = folder, adapter
        self.device = torch.device(device)
        self.settings = read_settings(folder) if adapter is None else adapter.settings
        self.text = PromptEncoder(folder, self.settings.text_tokens)
        self.codec = load_codec(folder).to(self.device)
        self.schedule = load_schedule(folder / "scheduler" / "scheduler_config.json")
        """Noise schedule of the training; samplers are made from its configuration."""
        self.alphas_cumprod = self.schedule.alphas_cumprod.double()
        self.prediction_type: PredictionType = self.schedule.config.prediction_type
        self.memory = memory or MemoryPlan()
        self.dtype = _dtype(self.memory.precision, self.device)
        self.unet = load_unet(folder / "unet", self.dtype, self.settings.attention).to(self.device)
        if adapter is not None:
            merge(self.unet, adapter)
        self._check_fit()
        if convolutions_pay(self.unet) and not self.memory.compile_unet:
            accelerate_convolutions(self.unet)
        if self.memory.slice_codec and isinstance(self.codec, AutoencoderCodec):
            self.codec.set_slicing(True)
        self._context = ContextCache(self.unet, lambda: self.image_adapter.module)
        self._network: Callable[..., Any] = self.unet
        if self.memory.compile_unet:
            self._network = torch.compile(self.unet)

    def _check_fit(self) -> None:
        config = self.unet.config
        if config.cross_attention_dim != self.text.width:
            raise PriorError(
                f"{self.folder}: the UNet reads text of width {config.cross_attention_dim}, "
                f"the text encoder gives {self.text.width}; the folder mixes two priors"
            )
        if config.in_channels != self.codec.channels:
            raise PriorError(
                f"{self.folder}: the UNet has {config.in_channels} latent channels, "
                f"the codec {self.codec.channels}; the folder mixes two priors"
            )
        if config.sample_size * self.codec.patch_size != self.image_size:
            raise PriorError(
                f"{self.folder}: images of {self.image_size} pixels in patches of {self.codec.patch_size} "
                f"are not the UNet's {config.sample_size} x {config.sample_size} latents; the folder mixes two priors"
            )

    @property
    def name(self) -> str:
        """Name from prior.json."""
        return self.settings.name

    @property
    def recommended_preset(self) -> str:
        """Recipe preset that this prior was tuned with."""
        return self.settings.recipe

    @property
    def views(self) -> int:
        """Views of one object that it was trained to judge together."""
        return self.settings.views

    @property
    def image_size(self) -> int:
        """Side of the images, pixels."""
        return self.settings.image_size

    @property
    def background(self) -> tuple[float, float, float]:
        """Background colour of the training images, sRGB in [0, 1]."""
        return self.settings.background

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the folder's files; with an adapter, of its files and the digest of its base."""
        return digest_of(self.folder) if self.adapter is None else self.adapter.digest

    @functools.cached_property
    def image_adapter(self) -> LoadedAdapter:
        """What makes it read pictures, loaded when it is first needed; :class:`PriorError` for a prior without."""
        return load_adapter(self.folder, self.name, self.unet, self.dtype, self.device)

    def describe(self) -> dict[str, str]:
        """Name, version and licences, for the asset's provenance; of a personalised prior also its base."""
        settings = self.settings
        words = {
            "name": settings.name,
            "version": str(settings.version),
            "licence_weights": settings.licence_weights,
            "licence_data": settings.licence_data,
        }
        if settings.base:
            words["base"] = f"{Path(settings.base).name} {settings.base_digest[:12]}"
        return words

    def text_cut(self, prompt: str) -> int | None:
        """Index of the first character of a prompt that the text encoder does not read, or None."""
        return self.text.cut(prompt)

    def unfamiliar(self, prompt: str) -> Unfamiliar | None:
        """The part of a prompt that is far from all names that the prior was taught, or None."""
        return unfamiliar(self.settings.names, self.text, [prompt], self.device)[0]

    def likeness(self, prompt: str, images: Tensor) -> Likeness | None:
        """How well images (N, 3, S, S) in [0, 1] of one object fit a prompt; None without a sound image encoder."""
        try:
            encoder = ImageEncoder(load_towers(self.folder / FOLDER), self.text, self.device)
        except PriorError:  # an optional file is no reason to fail a run at its end
            return None
        rivals = [name for name in self.settings.names if name.lower() not in prompt.lower()]
        similar = (encoder.embed_images(images) @ encoder.embed_texts([prompt, *rivals]).t()).mean(0)
        return Likeness(float(similar[0]), 1 + int((similar[1:] > similar[0]).sum()))

    def with_suffix(self, prompt: str) -> str:
        """The prompt as the prior's 3D captions were written: with its suffix, unless it says "3d" already.

        :meth:`encode_prompt` does not add it: MVDream's sampling does (whatever the prompt says), its score
        distillation does not.
        """
        return with_suffix(prompt, self.settings.prompt_suffix)

    def encode_prompt(self, prompt: str, negative_prompt: str) -> Conditioning:
        """Token states of the prompt and of the negative prompt ("" is the unconditional text)."""
        states = self.text.encode([prompt, negative_prompt], self.device).to(self.dtype)
        return Conditioning.from_text(states[:1], states[1:])

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> latents (B, C, h, w); differentiable. A VAE draws its posterior's noise."""
        return self.codec.encode(images * 2 - 1, generator)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> images (B, 3, S, S) in [0, 1]."""
        return (self.codec.decode(latents) * 0.5 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def predict(
        self, x_t: Tensor, timestep: int, cameras: Cameras | None, conditioning: Conditioning, views: int
    ) -> tuple[Tensor, Tensor]:
        """The network's outputs (B, C, h, w) with the prompt, and without it, in its own prediction type.

        ``x_t`` (B, C, h, w) holds groups of ``views`` images that are attended together, one camera each; without
        cameras (image mode, one view) each is a picture by itself. One pass
        over [conditional; unconditional], or one after the other if the memory plan says so; the cameras stay on in
        both halves (MVDream's released sampler). What the network looks at is made once for each ``conditioning``.
        PriorError for image tokens without an image adapter.
        """
        if len(x_t) % views:  # checked here, since both halves together could hide it from the attention
            raise ValueError(f"a batch of {len(x_t)} images is not a multiple of {views} views")
        halves = [conditioning.conditional, conditioning.unconditional]
        if self.memory.split_guidance:
            conditional, unconditional = (
                self._run(x_t, timestep, conditioning, [half], cameras, views) for half in halves
            )
            return conditional, unconditional
        conditional, unconditional = self._run(x_t, timestep, conditioning, halves, cameras, views).chunk(2)
        return conditional, unconditional

    def _run(
        self,
        x_t: Tensor,
        timestep: int,
        conditioning: Conditioning,
        halves: Sequence[Condition],
        cameras: Cameras | None,
        views: int,
    ) -> Tensor:
        """The network on ``x_t`` once for each of some halves of a conditioning, in one batch."""
        poses = None if cameras is None else cameras.conditioning().to(self.device, self.dtype)
        times, count = len(halves), len(x_t)
        prediction = call_unet(
            self._network,
            torch.cat([x_t] * times).to(self.dtype),
            torch.full((times * count,), timestep, device=self.device),
            torch.cat([half.text.expand(count, -1, -1) for half in halves]),
            None if poses is None else torch.cat([poses] * times),
            views,
            self._context.of(conditioning, halves, count),
        )
        return prediction.to(x_t.dtype)

    def predict_x0(
        self, x_t: Tensor, timestep: int, cameras: Cameras | None, conditioning: Conditioning, views: int
    ) -> tuple[Tensor, Tensor]:
        """Clean latents (B, C, h, w) as predicted with the prompt and without; see :meth:`predict`."""
        alpha_bar = float(self.alphas_cumprod[timestep])
        conditional, unconditional = (
            x0_from_prediction(x_t, prediction, alpha_bar, self.prediction_type)
            for prediction in self.predict(x_t, timestep, cameras, conditioning, views)
        )
        return conditional, unconditional


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
