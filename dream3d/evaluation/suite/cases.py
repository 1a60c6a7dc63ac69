"""What is asked: prompts, the cameras that look, and what is known of the right answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import torch
from torch import Tensor

from dream3d.cameras import Cameras, orbit
from dream3d.dataset.cameras import pass_cameras
from dream3d.dataset.compositing import over, premultiplied
from dream3d.dataset.shards import ObjectViews
from dream3d.errors import UsageError

VIEWS = 4
"""Of one object: front, left, back and right, as MVDream's and MV-RAG's tables have them."""
Color = tuple[float, float, float]
"""sRGB in [0, 1]."""


@dataclass(frozen=True)
class Protocol:
    """Which prompts, how many at most, and what they are compared with."""

    name: str
    limit: int
    prompts: str = ""
    """Name of a list that comes with the package; "": the captions of held-out objects."""
    has_pictures: bool = False
    """Whether pictures of the prompt are looked for in a corpus."""
    has_truth: bool = False
    """Whether each view is compared, pixel by pixel, with the object's own."""


PROTOCOLS = {
    one.name: one
    for one in (
        Protocol("quick", 20, prompts="quick"),
        Protocol("mvdream", 1000),
        Protocol("dreamfusion", 415, prompts="dreamfusion"),
        Protocol("ood", 196, prompts="ood", has_pictures=True),
        Protocol("ind", 50, has_truth=True),
    )
}
"""``mvdream``: Table 1 of MVDream (Shi et al. 2023), the captions and cameras of held-out objects. ``ood`` and ``ind``:
Tables 1 and 3 of MV-RAG, things that are new to the prior, and everyday ones with their truth. ``dreamfusion``: the
prompts of DreamFusion's gallery, which many papers draw from."""


@dataclass(frozen=True, eq=False)
class Case:
    """One prompt."""

    prompt: str
    cameras: Cameras
    truth: Tensor | None = None
    """(V, 4, S, S) in [0, 1], premultiplied alpha: the object itself, seen by the cameras."""
    is_exact: bool = False
    """Whether the truth is the only right answer, and not an example of one."""
    pictures: Tensor | None = None
    """(R, 3, S, S) in [0, 1]: what the prompt names, from any side."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that a result depends on."""
        sha = hashlib.sha256(f"{self.prompt}\0{self.is_exact}".encode())
        for tensor in (self.cameras.c2w, self.cameras.fovy_deg, self.truth, self.pictures):
            sha.update(b"none" if tensor is None else tensor.cpu().float().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def truth_over(self, background: Color) -> Tensor | None:
        """(V, 3, S, S) in [0, 1]: the truth over a colour; None if it is not known."""
        return None if self.truth is None else over(self.truth, torch.tensor(background))


def packaged_prompts(name: str) -> list[str]:
    """A list of prompts that comes with the package."""
    text = (files("dream3d.evaluation") / "lists" / f"{name}.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def cases_of_prompts(
    prompts: Sequence[str], pictures_of: Callable[[str], Tensor | None] = lambda prompt: None
) -> list[Case]:
    """A case for each different prompt, seen from four sides at 15 degrees of elevation."""
    return [Case(prompt, orbit(VIEWS), pictures=pictures_of(prompt)) for prompt in dict.fromkeys(prompts)]


def cases_of_objects(objects: Sequence[ObjectViews], is_exact: bool) -> list[Case]:
    """A case for each object: its longest caption, and four views of its first pass, the first one being its truth's.

    Raises UsageError for passes of fewer views.
    """
    cases = []
    for item in objects:
        first = item.record.passes[0]
        count = len(first.azimuths_deg)
        if count % VIEWS:
            raise UsageError(f"{item.record.key}: {count} views in a pass; the protocol needs a multiple of {VIEWS}")
        chosen = [index * count // VIEWS for index in range(VIEWS)]
        picked = ObjectViews(item.record, item.rgba[:1, chosen])
        truth = premultiplied(picked, item.rgba.shape[-2]).float() / 255
        prompt = max(item.record.captions, key=len)
        cases.append(Case(prompt, pass_cameras(first, chosen), truth, is_exact))
    return cases
