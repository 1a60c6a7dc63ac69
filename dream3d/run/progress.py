"""What a running job tells its watcher: plain data, so that a terminal, a log or a test can listen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dream3d.prior.base import Likeness

StageName = Literal["prepare", "optimise", "extract", "export", "pictures"]


Preview = Callable[[int, int], NDArray[np.uint8]]
"""Renders so many views, of so many pixels a side: (views, size, size, 3) sRGB. One of 32 pixels costs milliseconds."""


@dataclass(frozen=True)
class Progress:
    """One report. ``step`` counts finished steps of ``stage``, out of ``steps``."""

    stage: StageName
    step: int
    steps: int
    loss: float | None = None
    timestep_range: tuple[int, int] | None = None
    """Bounds the diffusion timestep is drawn from, inclusive."""
    occupancy: float | None = None
    """Share of occupancy cells that are not skipped, 0..1."""
    message: str | None = None
    """A sentence worth keeping in a log: a fallback taken, a level chosen."""
    targets: NDArray[np.uint8] | None = None
    """If a round began: some of the images that the field is now fitted to, (n, S, S, 3)."""
    preview: Preview | None = None
    """Of the current field; call it seldom."""


class Measured(NamedTuple):
    """The numbers of a step."""

    loss: float
    opacity: float
    """Mean opacity of the step's renders, 0..1."""
    occupancy: float
    """Share of occupancy cells in use, 0..1."""
    skipped: float
    """Updates so far that were left out, because the loss or a gradient was not finite."""
    skipped_in_a_row: float
    """How many of them were the last ones."""


@dataclass(frozen=True)
class StepReport:
    """What one step of the optimisation measured."""

    timestep: int
    timestep_range: tuple[int, int]
    """Bounds that the diffusion timestep is drawn from, inclusive."""
    measured: Tensor
    """(5,) the numbers of :class:`Measured`, on the run's device: to read them is to wait for it."""
    coarsened: int = 0
    """Renders so far whose marching step was doubled to keep the sample budget."""
    targets: tuple[Tensor, ...] = ()
    """If the step's target is one to be looked at: images of all such targets so far, (n, S, S, 3) in uint8, the newest
    last."""
    consistency: float | None = None
    """Of such a step: how well the silhouettes of its target fit one solid thing, 0..1."""


def read(reports: Sequence[StepReport]) -> list[Measured]:
    """The numbers of steps; waits once for the device."""
    return [Measured(*numbers) for numbers in torch.stack([report.measured for report in reports]).tolist()]


Observer = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """An observer that ignores every report."""


@dataclass(frozen=True)
class Score:
    """How well a textured mesh fits the prior, seen by cameras between those that its texture was fitted at."""

    agreement: float
    """PSNR, dB, of its views and what the prior makes of them from little noise."""
    similarity: float | None
    """To the prompt, by the prior's image encoder; None without one."""


@dataclass(frozen=True)
class Comparison:
    """What a refinement came to."""

    before: Score
    after: Score

    @property
    def kept(self) -> bool:
        """Whether one of the figures rose: if none does, all stays as it was."""
        if self.after.agreement > self.before.agreement:
            return True
        one, other = self.after.similarity, self.before.similarity
        return one is not None and other is not None and one > other

    def told(self, what: str) -> str:
        """A user is told of the refined ``what``."""
        parts = [f"views agree with the prior's to {self.before.agreement:.1f} dB, then {self.after.agreement:.1f} dB"]
        if self.before.similarity is not None and self.after.similarity is not None:
            parts.append(f"similarity to the prompt {self.before.similarity:.3f}, then {self.after.similarity:.3f}")
        return f"the refined {what} is {'kept' if self.kept else 'not kept'}: {'; '.join(parts)}"

    def figures(self, what: str) -> dict[str, bool | float | None]:
        """Those of the refined ``what`` in ``run.json``."""
        return {
            f"{what}_refined": self.kept,
            f"{what}_agreement_before": self.before.agreement,
            f"{what}_agreement_after": self.after.agreement,
            f"{what}_similarity_before": self.before.similarity,
            f"{what}_similarity_after": self.after.similarity,
        }


@dataclass(frozen=True)
class MovedShape(Comparison):
    """What the refinement of a shape came to: with the texture that was kept, before and after the vertices moved."""

    distance: float
    """That they moved, mean, voxels."""

    @property
    def kept(self) -> bool:
        """Whether one of the figures rose and none fell: a bent shape does more harm than another colour."""
        before, after = self.before, self.after
        if before.similarity is None or after.similarity is None:
            return after.agreement > before.agreement
        rose = after.agreement > before.agreement or after.similarity > before.similarity
        return rose and after.agreement >= before.agreement and after.similarity >= before.similarity

    def told(self, what: str) -> str:
        """See :meth:`Comparison.told`."""
        return f"{super().told(what)}; it moved by {self.distance:.2f} voxels in the mean"

    def figures(self, what: str) -> dict[str, bool | float | None]:
        """See :meth:`Comparison.figures`."""
        return super().figures(what) | {f"{what}_moved_voxels": self.distance}


@dataclass(frozen=True)
class Refinement(Comparison):
    """What the refinement of a texture came to, and that of the shape below it, if it was asked for."""

    shape: MovedShape | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a user is told."""
        return (self.told("texture"), *((self.shape.told("shape"),) if self.shape else ()))

    def to_dict(self) -> dict[str, bool | float | None]:
        """The figures in ``run.json``."""
        return self.figures("texture") | (self.shape.figures("shape") if self.shape else {})


@dataclass(frozen=True)
class Outcome:
    """What a finished run made."""

    mesh_path: Path
    run_dir: Path
    vertices: int
    faces: int
    iso_level: float
    """Density (per world unit) of the extracted surface."""
    seconds: float
    peak_memory_bytes: int
    """Largest resident size of this process so far."""
    silhouette_iou: float
    """Mean IoU, 0..1, of the mesh's silhouettes and the field's."""
    floaters: float
    """Mean opacity, 0..1, of the field in pixels that the mesh does not cover."""
    cap_area: float
    """Share, 0..1, of the mesh's area where the border of the volume cut the object off flat."""
    likeness: Likeness | None
    """Of the mesh to the prompt, if the prior has an image encoder."""
    watertight: bool = True
    """Whether the mesh's surface is closed."""
    texture: int = 0
    """Side of the mesh's texture, pixels; 0 for vertex colours."""
    consistency: float | None = None
    """How well the silhouettes of the last target that was looked at fit one solid thing, 0..1; None if none was."""
    janus: float | None = None
    """How much the mesh's back repeats its front, 0..1."""
    refinement: Refinement | None = None
    """Of the mesh's texture by the prior, if it was asked for."""
