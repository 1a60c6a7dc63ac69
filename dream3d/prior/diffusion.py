"""A multi-view diffusion prior from a folder, ready to steer a field."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.errors import PriorError
from dream3d.guidance import PredictionType, x0_from_prediction
from dream3d.prior.attention import MultiViewAttention
from dream3d.prior.base import TextContext
from dream3d.prior.catalogue import catalogue
from dream3d.prior.codec import load_codec
from dream3d.prior.folder import build_on_meta, check_files, read_json, read_settings, read_tensors, shapes_of
from dream3d.prior.text import PromptEncoder


class DiffusionPrior:
    """UNet, codec, text encoder and schedule of one folder, on one device."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        check_files(folder)
        self.folder = folder
        self.device = torch.device(device)
        self.settings = read_settings(folder)
        self.text = PromptEncoder(folder, self.settings.text_tokens)
        self.codec = load_codec(folder / "codec").to(self.device)
        self.alphas_cumprod, self.prediction_type = _load_schedule(folder / "scheduler" / "scheduler_config.json")
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self.unet = _load_unet(folder / "unet", self.dtype).to(self.device)
        self._check_fit()

    def _check_fit(self) -> None:
        config = self.unet.config
        if config.cross_attention_dim != self.text.width:
            raise PriorError(
                f"{self.folder}: the UNet reads text of width {config.cross_attention_dim}, "
                f"the text encoder gives {self.text.width}; the folder mixes two priors"
            )
        if config.in_channels != self.codec.scale.numel():
            raise PriorError(
                f"{self.folder}: the UNet has {config.in_channels} latent channels, "
                f"the codec {self.codec.scale.numel()}; the folder mixes two priors"
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
        """Views of one object that are judged together."""
        return self.settings.views

    @property
    def image_size(self) -> int:
        """Side of the images, pixels."""
        return self.settings.image_size

    @property
    def background(self) -> tuple[float, float, float]:
        """Background colour of the training images, sRGB in [0, 1]."""
        return self.settings.background

    def describe(self) -> dict[str, str]:
        """Name, version and licences, for the asset's provenance."""
        settings = self.settings
        return {
            "name": settings.name,
            "version": str(settings.version),
            "licence_weights": settings.licence_weights,
            "licence_data": settings.licence_data,
        }

    def text_cut(self, prompt: str) -> int | None:
        """Index of the first character of a prompt that the text encoder does not read, or None."""
        return self.text.cut(prompt)

    def encode_prompt(self, prompt: str, negative_prompt: str) -> TextContext:
        """Token states of the prompt and of the negative prompt ("" is the unconditional text)."""
        states = self.text.encode([prompt, negative_prompt], self.device).to(self.dtype)
        return TextContext(states[:1], states[1:])

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> latents (B, C, h, w); differentiable. The linear codec draws nothing."""
        return self.codec.encode(images * 2 - 1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> images (B, 3, S, S) in [0, 1]."""
        return (self.codec.decode(latents) * 0.5 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def predict_x0(self, x_t: Tensor, timestep: int, cameras: Cameras, text: TextContext) -> tuple[Tensor, Tensor]:
        """Clean latents (B, C, h, w) as predicted with the prompt and without it.

        One pass over [conditional; unconditional]; the cameras stay on in both halves (facts 1.4).
        """
        count = x_t.shape[0]
        if count % self.views:  # checked here, since both halves together could hide it from the attention
            raise ValueError(f"a batch of {count} images is not a multiple of {self.views} views")
        conditioning = cameras.conditioning().to(self.device, self.dtype)
        context = torch.cat([text.conditional.expand(count, -1, -1), text.unconditional.expand(count, -1, -1)])
        prediction = self.unet(
            torch.cat([x_t, x_t]).to(self.dtype),
            torch.full((2 * count,), timestep, device=self.device),
            context,
            class_labels=torch.cat([conditioning, conditioning]),
            cross_attention_kwargs={"num_views": self.views},
        ).sample.to(x_t.dtype)
        alpha_bar = float(self.alphas_cumprod[timestep])
        x0 = x0_from_prediction(torch.cat([x_t, x_t]), prediction, alpha_bar, self.prediction_type)
        conditional, unconditional = x0.chunk(2)
        return conditional, unconditional


def find_folder(name_or_path: str) -> Path:
    """Folder of a prior given by catalogue name or path; :class:`PriorError` lists what is known."""
    for info in catalogue():
        if info.name == name_or_path:
            if info.path is None:
                raise PriorError(info.absence())
            return info.path
    if not Path(name_or_path).is_dir():
        names = ", ".join(info.name for info in catalogue())
        raise PriorError(f"unknown prior {name_or_path!r}: neither a catalogue name ({names}) nor an existing folder")
    return Path(name_or_path)


def _load_unet(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    config_path = folder / "config.json"
    config = read_json(config_path)
    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    arguments = {key: value for key, value in config.items() if key in known}
    unet = build_on_meta(lambda: UNet2DConditionModel(**arguments), config_path)
    tensors = read_tensors(folder / "diffusion_pytorch_model.safetensors", shapes_of(unet), dtype)
    unet.load_state_dict(tensors, assign=True)
    unet.set_attn_processor(MultiViewAttention())
    return unet.requires_grad_(False).eval()


def _load_schedule(path: Path) -> tuple[Tensor, PredictionType]:
    config = read_json(path)
    known = inspect.signature(DDIMScheduler.__init__).parameters
    try:
        scheduler = DDIMScheduler(**{key: value for key, value in config.items() if key in known})
    except Exception as error:  # third-party constructors raise anything on a bad configuration
        raise PriorError(f"{path} does not describe a noise schedule ({type(error).__name__}: {error})") from error
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise PriorError(f"{path}: prediction type {kind!r} is not supported; use epsilon or v_prediction")
    return scheduler.alphas_cumprod.double(), kind
