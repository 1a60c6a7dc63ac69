"""The one camera convention of dream3d: poses, rays and the 16 numbers the prior is conditioned on.

World frame: right-handed, **z up**; the object sits inside the unit sphere around the origin and its
front faces **+x**. Azimuth 0 puts the camera on +x (it looks at the front) and grows counter-clockwise
seen from above: 0, 90, 180, 270 degrees are +x, +y, -x, -y. (MVDream's own image sampler counts from
-y: its azimuth is ours + 90.) Camera axes are OpenGL's: x right, y up, z backwards. A pose is a 4x4
camera-to-world matrix ``[right | up | back | position]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from dream3d.bounds import Between, Settings, Share

DistanceRule = Literal["tan", "sin"]


@dataclass(frozen=True)
class CameraRange(Settings):
    """The distribution SDS cameras are drawn from (one draw per object, shared by its views)."""

    elevation_deg: Annotated[tuple[float, float], Between(-90, 90, rising=True)] = (0.0, 30.0)
    """Elevation above the horizon, degrees."""
    sphere_elevation_probability: Share = 0.0
    """Share of draws that use the official "uniform on sphere" formula instead of a uniform elevation.
    That formula covers 0..19.47 degrees only for the range [0, 30]; it is kept because the published
    results were made with it."""
    fovy_deg: Annotated[tuple[float, float], Between(1, 170, rising=True)] = (15.0, 60.0)
    """Vertical field of view, degrees."""
    relative_distance: Annotated[tuple[float, float], Between(0.01, 100, rising=True)] = (0.8, 1.0)
    """Distance to the origin as a factor of the distance rule below."""
    distance_rule: DistanceRule = "tan"
    """``tan``: factor / tan(fovy / 2) (MVDream). ``sin``: factor / sin(fovy / 2), which at factor 1
    makes the unit sphere touch the image border exactly (the mini prior's renders)."""


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras with square pixels and a centred principal point."""

    c2w: Tensor
    """(N, 4, 4) camera-to-world matrices, OpenGL axes."""
    fovy_deg: Tensor
    """(N,) vertical field of view, degrees."""

    def __len__(self) -> int:
        return int(self.c2w.shape[0])

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return Cameras(self.c2w.to(device, non_blocking=True), self.fovy_deg.to(device, non_blocking=True))

    def conditioning(self) -> Tensor:
        """(N, 16) row-major poses with the position on the unit sphere: what the prior is told.

        Field of view and distance are not part of it (docs/method.md, Cameras: only elevation and azimuth are).
        """
        c2w = self.c2w.clone()
        position = c2w[:, :3, 3]
        c2w[:, :3, 3] = position / (position.norm(dim=-1, keepdim=True) + 1e-8)
        return c2w.reshape(-1, 16)

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """World-space rays through the pixel centres, row-major from the top-left pixel.

        Returns ``rays_o`` (N, H, W, 3) and ``rays_d`` (N, H, W, 3), the latter of unit length.
        """
        c2w = self.c2w
        half = torch.tan(torch.deg2rad(self.fovy_deg) / 2)  # image half-height at depth 1
        rows = 1 - (torch.arange(height, device=c2w.device, dtype=c2w.dtype) + 0.5) * 2 / height
        cols = ((torch.arange(width, device=c2w.device, dtype=c2w.dtype) + 0.5) * 2 / width - 1) * (width / height)
        y, x = torch.meshgrid(rows, cols, indexing="ij")
        directions = torch.stack(
            [
                x * half[:, None, None],
                y * half[:, None, None],
                -torch.ones_like(x).expand(len(self), -1, -1),
            ],
            dim=-1,
        )
        rays_d = torch.einsum("nij,nhwj->nhwi", c2w[:, :3, :3], directions)
        rays_d = rays_d / rays_d.norm(dim=-1, keepdim=True)
        rays_o = c2w[:, None, None, :3, 3].expand_as(rays_d)
        return rays_o, rays_d


def look_at_origin(elevation_deg: Tensor, azimuth_deg: Tensor, distance: Tensor) -> Tensor:
    """Camera-to-world matrices (N, 4, 4) of cameras on spheres around the origin, looking at it.

    All three arguments have shape (N,); degrees, degrees, world units. Closed form of MVDream's
    look-at (docs/method.md, Cameras) with our azimuth: position = distance * (cos e cos a, cos e sin a, sin e).
    The pole itself (elevation +-90) is well defined: "up" then points away from the azimuth.
    """
    elevation, azimuth = torch.deg2rad(elevation_deg), torch.deg2rad(azimuth_deg)
    sin_e, cos_e = torch.sin(elevation), torch.cos(elevation)
    sin_a, cos_a = torch.sin(azimuth), torch.cos(azimuth)
    zero = torch.zeros_like(sin_e)
    right = torch.stack([-sin_a, cos_a, zero], -1)
    up = torch.stack([-sin_e * cos_a, -sin_e * sin_a, cos_e], -1)
    back = torch.stack([cos_e * cos_a, cos_e * sin_a, sin_e], -1)
    c2w = torch.zeros(*sin_e.shape, 4, 4, dtype=sin_e.dtype, device=sin_e.device)
    c2w[..., :3, 0], c2w[..., :3, 1], c2w[..., :3, 2] = right, up, back
    c2w[..., :3, 3] = back * distance[..., None]
    c2w[..., 3, 3] = 1
    return c2w


def camera_distance(fovy_deg: Tensor, relative_distance: Tensor, rule: DistanceRule) -> Tensor:
    """Distance to the origin in world units for a field of view (degrees) and a relative distance."""
    half = torch.deg2rad(fovy_deg) / 2
    return relative_distance / (torch.tan(half) if rule == "tan" else torch.sin(half))


def orbit(
    views: int,
    *,
    elevation_deg: float = 15.0,
    azimuth_deg: float = 0.0,
    span_deg: float = 360.0,
    fovy_deg: float = 40.0,
    distance: float | None = None,
) -> Cameras:
    """``views`` cameras evenly spaced around the object: azimuth_deg + i * span_deg / views.

    ``distance`` in world units; by default the unit sphere just fits the image (1 / sin(fovy / 2)).
    """
    if views < 1:
        raise ValueError(f"an orbit needs at least one view, got {views}")
    index = torch.arange(views, dtype=torch.float32)
    azimuth = azimuth_deg + index * span_deg / views
    radius = 1 / math.sin(math.radians(fovy_deg) / 2) if distance is None else distance
    c2w = look_at_origin(torch.full((views,), float(elevation_deg)), azimuth, torch.full((views,), float(radius)))
    return Cameras(c2w, torch.full((views,), float(fovy_deg)))


def sample_orthogonal(ranges: CameraRange, objects: int, views: int, generator: torch.Generator) -> Cameras:
    """Random SDS cameras: ``objects`` groups of ``views`` cameras, consecutive in the batch.

    Within a group, azimuths are 360/views degrees apart from one random offset, and elevation, field
    of view and distance are shared (docs/method.md, Cameras). Drawn on the CPU, so that a seed means the
    same cameras on every device.
    """

    def uniform(low_high: tuple[float, float]) -> Tensor:
        low, high = low_high
        return low + (high - low) * torch.rand(objects, generator=generator)

    offset = torch.rand(objects, generator=generator)
    azimuth = (offset[:, None] + torch.arange(views)) / views * 360 - 180
    elevation = uniform(ranges.elevation_deg)
    on_sphere = torch.rand(objects, generator=generator) < ranges.sphere_elevation_probability
    elevation = torch.where(on_sphere, _sphere_elevation(uniform((0.0, 1.0)), ranges.elevation_deg), elevation)
    fovy = uniform(ranges.fovy_deg)
    distance = camera_distance(fovy, uniform(ranges.relative_distance), ranges.distance_rule)

    def per_view(values: Tensor) -> Tensor:
        return values.repeat_interleave(views)

    return Cameras(look_at_origin(per_view(elevation), azimuth.reshape(-1), per_view(distance)), per_view(fovy))


def _sphere_elevation(u: Tensor, range_deg: tuple[float, float]) -> Tensor:
    """The official elevation formula: asin(2 p - 1) with p uniform between (low + 90) / 180 and (high + 90) / 180."""
    low, high = ((bound + 90) / 180 for bound in range_deg)
    return torch.rad2deg(torch.asin(2 * (low + (high - low) * u) - 1))
