"""The noise schedule of a prior folder."""

from __future__ import annotations

from pathlib import Path

from diffusers import DDIMScheduler

from dream3d.errors import PriorError
from dream3d.prior.folder import known_arguments, read_json


def load_schedule(path: Path) -> DDIMScheduler:
    """The noise schedule that a ``scheduler_config.json`` describes; :class:`PriorError` if it describes none."""
    config = read_json(path)
    try:
        scheduler = DDIMScheduler(**known_arguments(DDIMScheduler, config))
    except Exception as error:  # third-party constructors raise anything on a bad configuration
        raise PriorError(f"{path} does not describe a noise schedule ({type(error).__name__}: {error})") from error
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise PriorError(f"{path}: prediction type {kind!r} is not supported; use epsilon or v_prediction")
    return scheduler
