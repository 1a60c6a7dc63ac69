"""The cameras that a data set's views were drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dream3d.cameras import Cameras, look_at_origin
from dream3d.dataset.records import Pass


def pass_cameras(orbit: Pass, chosen: Sequence[int]) -> Cameras:
    """The cameras of some views of a pass; IndexError for a view that it has not."""
    azimuth = torch.tensor([orbit.azimuths_deg[i] for i in chosen])
    elevation, distance = (torch.full_like(azimuth, value) for value in (orbit.elevation_deg, orbit.distance))
    return Cameras(look_at_origin(elevation, azimuth, distance), torch.full_like(azimuth, orbit.fovy_deg))
