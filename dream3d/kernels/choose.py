"""Which implementation of an operation is used, and why.

An operation has candidates in order of preference. Native ones are accelerators, never requirements: each is tried by
running it once on the device, forward and backward, because importing proves little (tiny-cuda-nn raises on import
without a GPU, nerfacc imports anywhere but compiles at its first call). The last candidate is plain
torch, the reference.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Implementation = TypeVar("Implementation")


@dataclass(frozen=True)
class Candidate(Generic[Implementation]):
    """One implementation of an operation."""

    name: str
    """The library: ``torch``, ``numba``, ``nerfacc``, ``tiny-cuda-nn``."""
    implementation: Implementation
    probe: Callable[[str], None] | None = None
    """Runs it on tiny inputs on the device, values and gradients, and raises where it does not work; None for what
    works on every device."""
    kind: Literal["cuda", "cpu"] = "cuda"
    """The devices that one with a probe runs on."""


@dataclass(frozen=True)
class Operation(Generic[Implementation]):
    """Something worth a fast path."""

    name: str
    candidates: tuple[Candidate[Implementation], ...]
    """The fastest first, the reference last."""


@dataclass(frozen=True)
class Choice(Generic[Implementation]):
    """What an operation runs on, with the reason in words."""

    operation: str
    name: str
    reason: str
    implementation: Implementation


@functools.cache
def choose(operation: Operation[Implementation], device: str, name: str | None = None) -> Choice[Implementation]:
    """The first candidate that works on a device ("cpu", "cuda", "cuda:1"); the answer is cached per process.

    With ``name`` only the candidate of that name is tried. LookupError with the reasons if none works.
    """
    reasons: list[str] = []
    for candidate in operation.candidates:
        if name not in (None, candidate.name):
            continue
        reason = _reason_against(candidate, device)
        if reason is None:
            passed = f"{candidate.name} passed a test with gradients here" if candidate.probe else "the reference"
            return Choice(operation.name, candidate.name, "; ".join(reasons) or passed, candidate.implementation)
        reasons.append(reason)
    why = "; ".join(reasons) or f"{name!r} is unknown"
    raise LookupError(f"no implementation of {operation.name} works on {device}: {why}")


def _reason_against(candidate: Candidate[Implementation], device: str) -> str | None:
    """Why a candidate cannot be used, or None."""
    if candidate.probe is None:
        return None
    if not device.startswith(candidate.kind):
        return f"{candidate.name} runs on {candidate.kind.upper()} only and the device is {device}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # a warning is no failure, even where warnings are made errors
            candidate.probe(device)
    except Exception as error:  # any failure of third-party native code means: use the next candidate
        first_line = (str(error).strip().splitlines() or [""])[0]
        return f"{candidate.name} is not usable here: {type(error).__name__}: {first_line}"
    return None
