"""The noise schedule of a prior folder."""

from __future__ import annotations

from pathlib import Path

from diffusers import DDIMScheduler

from dream3d.errors import PriorError
from dream3d.prior.schema import SCHEDULE, checked, read_json


def load_schedule(path: Path) -> DDIMScheduler:
    """The noise schedule that a ``scheduler_config.json`` describes; :class:`PriorError` if it describes none."""
    config = checked(read_json(path), SCHEDULE, path, DDIMScheduler)
    try:
        scheduler = DDIMScheduler(**config)
    except Exception as error:  # third-party constructors raise anything on a bad configuration
        raise PriorError(f"{path} does not describe a noise schedule ({type(error).__name__}: {error})") from error
    signal = scheduler.alphas_cumprod
    steps = scheduler.config.num_train_timesteps
    if len(signal) != steps or not (signal.diff() <= 0).all() or not 0 <= float(signal[-1]) < float(signal[0]) <= 1:
        raise PriorError(f"{path}: the signal does not fall over {steps} timesteps; copy the file again")
    return scheduler
