"""The settings of variational score distillation's learnt copy of the prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dream3d.bounds import Between, Settings
from dream3d.recipe.scene import Rate


@dataclass(frozen=True)
class VsdRecipe(Settings):
    """How the copy of the prior learns the field's own views (docs/method.md, Guidance)."""

    rank: Annotated[int, Between(1, 256)] = 4
    """Of its low-rank matrices (LoRA)."""
    lr: Rate = 1e-4
    """Of AdamW on these matrices; ProlificDreamer's, for official weights."""
    updates: Annotated[int, Between(1, 100)] = 1
    """Of the copy for each update of the field, each at a new timestep; ProlificDreamer has one."""
