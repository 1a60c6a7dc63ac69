"""Which device a run uses: decided once, here, at the edge."""

from __future__ import annotations

from dream3d.checks import check_device_name
from dream3d.errors import UsageError


def resolve_device(name: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N`` for what the user typed; ``auto`` is CUDA where there is one.

    Raises UsageError for an unknown name and for a CUDA device that this machine does not have.
    """
    name = check_device_name(name)
    if name == "cpu":
        return name
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if count else "cpu"
    if not count:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        raise UsageError(f"--device {name}: {why}; use --device cpu, or see 'dream3d doctor'")
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        raise UsageError(f"--device {name}: the CUDA devices are {', '.join(f'cuda:{i}' for i in range(count))}")
    return name
