"""A prior without weights: the exact denoiser for a small set of known coloured objects.

It proves the loop apart from any network. For noise x_t = alpha x0 + sigma e over all views of an object
jointly, the best denoiser is the posterior mean over the set's renders at the same cameras, with weights
softmax(-||x_t - alpha x0_i||^2 / (2 sigma^2)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.prior.base import Likeness
from dream3d.prior.conditioning import Conditioning

Vector = tuple[float, float, float]
BACKGROUND: Vector = (0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Sphere:
    """A ball of one colour."""

    center: Vector
    radius: float
    color: Vector

    def hit(self, rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor]:
        """Distance (R,) along rays (R, 3), inf where missed, and the outward normal (R, 3) there."""
        offset = rays_o - torch.tensor(self.center)
        b = (offset * rays_d).sum(-1)
        discriminant = b * b - (offset * offset).sum(-1) + self.radius**2
        distance = -b - discriminant.clamp_min(0).sqrt()
        distance = torch.where((discriminant > 0) & (distance > 0), distance, torch.inf)
        point = offset + distance.nan_to_num(0, 0, 0)[:, None] * rays_d
        return distance, F.normalize(point, dim=-1)


@dataclass(frozen=True)
class Box:
    """An axis-aligned box of one colour."""

    low: Vector
    high: Vector
    color: Vector

    def hit(self, rays_o: Tensor, rays_d: Tensor) -> tuple[Tensor, Tensor]:
        """Distance (R,) along rays (R, 3), inf where missed, and the outward normal (R, 3) there."""
        direction = torch.where(rays_d.abs() < 1e-9, torch.full_like(rays_d, 1e-9), rays_d)
        first = (torch.tensor(self.low) - rays_o) / direction
        second = (torch.tensor(self.high) - rays_o) / direction
        near, axis = torch.minimum(first, second).max(-1)
        far = torch.maximum(first, second).amin(-1)
        normal = -torch.sign(direction) * F.one_hot(axis, 3)
        return torch.where((near < far) & (near > 0), near, torch.inf), normal


Shape = Sphere | Box
_SUN = F.normalize(torch.tensor([0.5, 0.3, 0.8]), dim=0)

MASCOT: tuple[Shape, ...] = (
    Box((-0.45, -0.45, -0.75), (0.45, 0.45, -0.15), (0.15, 0.3, 0.85)),
    Sphere((0.0, 0.0, 0.25), 0.42, (0.85, 0.15, 0.1)),
    Box((0.3, -0.12, 0.1), (0.62, 0.12, 0.34), (0.95, 0.8, 0.1)),
)
"""A red head on a blue box, with a yellow nose on the front (+x): front, side and back all differ."""

TABLE: tuple[Shape, ...] = (
    Box((-0.5, -0.7, 0.1), (0.5, 0.7, 0.25), (0.55, 0.35, 0.15)),
    *(
        Box((x - 0.09, y - 0.09, -0.6), (x + 0.09, y + 0.09, 0.1), (0.3, 0.2, 0.1))
        for x in (-0.38, 0.38)
        for y in (-0.56, 0.56)
    ),
)

TREE: tuple[Shape, ...] = (
    Box((-0.1, -0.1, -0.8), (0.1, 0.1, -0.3), (0.4, 0.25, 0.1)),
    Sphere((0.0, 0.0, -0.1), 0.45, (0.1, 0.45, 0.15)),
    Sphere((0.0, 0.0, 0.35), 0.33, (0.15, 0.6, 0.2)),
)


def draw(shapes: tuple[Shape, ...], cameras: Cameras, size: int, supersample: int = 2) -> tuple[Tensor, Tensor]:
    """Antialiased pictures (N, 3, size, size) in [0, 1] over the background, and coverage (N, size, size)."""
    large = size * supersample
    rays_o, rays_d = (rays.reshape(-1, 3) for rays in cameras.rays(large, large))
    nearest = torch.full((len(rays_o),), torch.inf)
    color = torch.tensor(BACKGROUND).repeat(len(rays_o), 1)
    for shape in shapes:
        distance, normal = shape.hit(rays_o, rays_d)
        closer = distance < nearest
        light = 0.7 + 0.3 * (normal @ _SUN)[:, None]
        color = torch.where(closer[:, None], torch.tensor(shape.color) * light, color)
        nearest = torch.minimum(nearest, distance)
    images = color.view(len(cameras), large, large, 3).movedim(-1, 1)
    coverage = torch.isfinite(nearest).float().view(len(cameras), 1, large, large)
    return F.avg_pool2d(images, supersample), F.avg_pool2d(coverage, supersample)[:, 0]


class OraclePrior:
    """The exact denoiser for a set of objects; latents are the pixels in [-1, 1]."""

    views = 4
    background = BACKGROUND

    def __init__(self, *objects: tuple[Shape, ...], image_size: int = 64) -> None:
        self.objects, self.image_size = objects, image_size
        self._drawn: tuple[Cameras, Tensor] | None = None
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas_cumprod = torch.cumprod(1 - betas, 0)

    def encode_prompt(self, prompt: str, negative_prompt: str) -> Conditioning:
        """Text is ignored: the set of objects is the prompt."""
        return Conditioning.from_text(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> the same in [-1, 1]."""
        return images * 2 - 1

    def decode_latents(self, latents: Tensor) -> Tensor:
        """The inverse of :meth:`encode_images`."""
        return (latents * 0.5 + 0.5).clamp(0, 1)

    def predict_x0(
        self, x_t: Tensor, timestep: int, cameras: Cameras | None, conditioning: Conditioning, views: int
    ) -> tuple[Tensor, Tensor]:
        """The posterior mean, per group of views; the same with and without the prompt."""
        assert cameras is not None, "it knows objects as they are seen from somewhere"
        alpha_bar = float(self.alphas_cumprod[timestep])
        if self._drawn is None or self._drawn[0] is not cameras:  # asked at each step of denoising
            drawn = [draw(shapes, cameras, self.image_size)[0] * 2 - 1 for shapes in self.objects]
            self._drawn = cameras, torch.stack(drawn)
        clean = self._drawn[1]
        error = (x_t - alpha_bar**0.5 * clean).square()  # (objects in the set, B, C, h, w)
        groups = error.unflatten(1, (-1, views)).flatten(2).sum(-1)  # (objects in the set, groups)
        weights = torch.softmax(-groups / (2 * (1 - alpha_bar)), dim=0).repeat_interleave(views, dim=1)
        mean = (weights[:, :, None, None, None] * clean).sum(0)
        return mean, mean

    def unfamiliar(self, prompt: str) -> None:
        """It warns of nothing."""

    def likeness(self, prompt: str, images: Tensor) -> Likeness | None:
        """It has no opinion."""
        return None

    digest = "0" * 64

    def describe(self) -> dict[str, str]:
        """Provenance of an asset made with the oracle."""
        return {"name": "oracle", "version": "0", "licence_weights": "none", "licence_data": "none"}
