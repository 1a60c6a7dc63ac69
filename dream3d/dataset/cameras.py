"""The cameras that an object's views were drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dream3d.cameras import Cameras, look_at_origin
from dream3d.dataset.records import Pass


def pass_cameras(orbit: Pass, views: Sequence[int], distance: float | None = None) -> Cameras:
    """The cameras of some views of a pass, in the order of their indices ``views``.

    ``distance`` to the origin, in radii of the object's bounding sphere, is the pass's own by default. What a prior is
    told of a camera (:meth:`Cameras.conditioning`) does not depend on it, except for rounding.
    """
    azimuth = torch.tensor([orbit.azimuths_deg[i] for i in views])
    elevation = torch.full_like(azimuth, orbit.elevation_deg)
    radius = torch.full_like(azimuth, orbit.distance if distance is None else distance)
    return Cameras(look_at_origin(elevation, azimuth, radius), torch.full_like(azimuth, orbit.fovy_deg))
