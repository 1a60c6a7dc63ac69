"""Which optional native code is used, and why: the one place that decides (design, decision 3).

tiny-cuda-nn and nerfacc are accelerators on CUDA, never requirements. Each is tried once by running
a tiny forward pass, because importing proves little: tiny-cuda-nn raises on import without a GPU, and
nerfacc imports anywhere but compiles at its first call.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

Component = Literal["field", "render"]


@dataclass(frozen=True)
class BackendChoice:
    """What a component runs on, with the reason in words."""

    component: Component
    name: str
    """``torch`` (the reference), ``tiny-cuda-nn`` or ``nerfacc``."""
    reason: str


def _probe_tinycudann() -> None:
    tcnn = importlib.import_module("tinycudann")
    encoding = tcnn.Encoding(3, {"otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8})
    values = encoding(torch.full((128, 3), 0.5, device="cuda"))
    if not bool(torch.isfinite(values).all()):
        raise RuntimeError("its hash grid returned values that are not finite")


def _probe_nerfacc() -> None:
    nerfacc = importlib.import_module("nerfacc")
    ones = torch.ones(4, device="cuda")
    starts = torch.arange(4, device="cuda", dtype=torch.float32)
    index = torch.zeros(4, device="cuda", dtype=torch.long)
    weights = nerfacc.render_weight_from_density(starts, starts + 1, ones, ray_indices=index, n_rays=1)[0]
    if not bool(torch.isfinite(weights).all()):
        raise RuntimeError("its rendering returned weights that are not finite")


_PROBES: dict[Component, tuple[str, Callable[[], None]]] = {
    "field": ("tiny-cuda-nn", _probe_tinycudann),
    "render": ("nerfacc", _probe_nerfacc),
}


@functools.cache
def choose(component: Component, device_type: str) -> BackendChoice:
    """The backend of a component on a device type ("cpu", "cuda"); the answer is cached per process."""
    library, probe = _PROBES[component]
    if device_type != "cuda":
        return BackendChoice(component, "torch", f"{library} runs on CUDA only and the device is {device_type}")
    try:
        probe()
    except Exception as error:  # any failure of third-party native code means: use the reference
        first_line = (str(error).strip().splitlines() or [""])[0]
        return BackendChoice(component, "torch", f"{library} is not usable here: {type(error).__name__}: {first_line}")
    return BackendChoice(component, library, f"{library} passed a forward test on this GPU")


def report(device: str) -> list[BackendChoice]:
    """Every component's backend on a device such as "cpu" or "cuda:0", for ``dream3d doctor``."""
    device_type = torch.device(device).type
    return [choose(component, device_type) for component in _PROBES]
