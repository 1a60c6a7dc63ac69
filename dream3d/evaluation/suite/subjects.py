"""What is evaluated: a prior that draws, assets of any system, and the truth itself as the upper bound."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dream3d.cameras import Cameras
from dream3d.dataset.check.file import CHECKS, check_file
from dream3d.errors import DatasetError, Dream3DError, ExportError, UsageError
from dream3d.evaluation.protocols.views import draw
from dream3d.evaluation.suite.cases import Case, Color
from dream3d.evaluation.suite.sheets import SUFFIXES, read_sheet
from dream3d.files import hash_file
from dream3d.mesh.appearance import Texture
from dream3d.mesh.export import Asset, read_provenance
from dream3d.mesh.foreign import read_scene
from dream3d.mesh.reading import read_asset
from dream3d.mesh.shading import shade_asset
from dream3d.names import slug
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import SamplingRecipe, sampling_for

ASSET_SIZE = 256
"""Side in pixels of the pictures of assets."""
REFERRING = (".obj", ".gltf")
"""Models whose textures, and more, may lie in other files."""
MAX_ASSETS = 100_000


class Subject(Protocol):
    """Something with an answer to a case."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def background(self) -> Color:
        """Behind its objects."""
        ...

    def key(self, case: Case, seed: int) -> str | None:
        """What its answer depends on besides the case and the seed; None if it has none."""
        ...

    def views(self, case: Case, seed: int) -> Tensor:
        """(V, 3, S, S) in [0, 1] on the CPU, from the case's cameras."""
        ...


class Told(Protocol):
    """What a prior is told of a prompt besides its text: pictures."""

    def key(self, prior: DiffusionPrior, prompt: str) -> str | None:
        """What it depends on; None for a prompt of which there is nothing to tell, and so no answer."""
        ...

    def tell(
        self,
        prior: DiffusionPrior,
        prompt: str,
        text: Conditioning,
        seed: int,
        cameras: Cameras,
        recipe: SamplingRecipe,
    ) -> Conditioning:
        """The text with what there is to tell."""
        ...


@dataclass(frozen=True)
class PriorSubject:
    """A prior that samples the views of each prompt."""

    name: str
    prior: DiffusionPrior
    steps: int | None = None
    """Of sampling; the prior's own by default."""
    told: Told | None = None
    """None: the text alone."""

    @property
    def background(self) -> Color:
        """The prior's own."""
        return self.prior.background

    def key(self, case: Case, seed: int) -> str | None:
        """See :class:`Subject`."""
        key = f"{self.prior.digest} {self.steps} {sampling_for(self.prior.recommended_preset)}"
        if self.told is None:
            return key
        more = self.told.key(self.prior, case.prompt)
        return None if more is None else f"{key} {more}"

    def views(self, case: Case, seed: int) -> Tensor:
        """See :class:`Subject`."""

        def tell(text: Conditioning, cameras: Cameras, recipe: SamplingRecipe) -> Conditioning:
            return text if self.told is None else self.told.tell(self.prior, case.prompt, text, seed, cameras, recipe)

        return draw(self.prior, case.prompt, seed, steps=self.steps, cameras=case.cameras, tell=tell).clamp(0, 1)


@dataclass(frozen=True)
class AssetsSubject:
    """Finished models, or their views, by the words of their prompts; seed number i is the file i of a prompt."""

    name: str
    files: Mapping[str, Sequence[Path]]
    """By the :func:`words_of` their prompts."""
    background: Color
    prompts: Sequence[str] = ()
    """Of the files, in order."""
    _digests: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)

    def key(self, case: Case, seed: int) -> str | None:
        """See :class:`Subject`."""
        path = self._file(case, seed)
        if path is None:
            return None
        if path not in self._digests:
            self._digests[path] = _digest(path)
        return f"{self._digests[path]} {ASSET_SIZE} {self.background}"

    def views(self, case: Case, seed: int) -> Tensor:
        """See :class:`Subject`. Raises DatasetError or ExportError for a file that cannot be used."""
        path = self._file(case, seed)
        assert path is not None  # who has no key is not asked
        if path.suffix.lower() in SUFFIXES:
            return read_sheet(path, ASSET_SIZE, self.background)
        shaded = shade_asset(read_model(path), case.cameras, ASSET_SIZE, self.background)
        return torch.from_numpy(shaded).movedim(-1, 1) / 255

    def _file(self, case: Case, seed: int) -> Path | None:
        found = self.files.get(words_of(case.prompt), ())
        return found[seed] if seed < len(found) else None


@dataclass(frozen=True)
class TruthSubject:
    """Held-out objects themselves: no drawing can be expected to do better."""

    background: Color
    name: str = "held-out renders"

    def key(self, case: Case, seed: int) -> str | None:
        """See :class:`Subject`; one answer for all seeds."""
        return None if case.truth is None or seed else f"truth {self.background}"

    def views(self, case: Case, seed: int) -> Tensor:
        """See :class:`Subject`."""
        truth = case.truth_over(self.background)
        assert truth is not None
        return truth


def _digest(path: Path) -> str:
    """Of what is seen of a model or a sheet: a model that refers to other files is read for it, with them."""
    if path.suffix.lower() in REFERRING:
        with contextlib.suppress(DatasetError, ExportError):  # who draws it says so
            model, digest = read_model(path), hashlib.sha256()
            look = model.appearance
            arrays = (look.uv, look.image) if isinstance(look, Texture) else (look.values,)
            for array in (model.vertices, model.faces, *arrays):
                digest.update(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
            return digest.hexdigest()
    return hash_file(path)


def words_of(prompt: str) -> str:
    """What a prompt and a file named after it have in common."""
    return slug(prompt, 200)


def read_model(path: Path) -> Asset:
    """A model file of ours or of another program: z up, front +x.

    It is checked before it is read. Raises :class:`DatasetError` or :class:`ExportError`.
    """
    check_file(path)
    if path.suffix.lower() == ".glb":
        try:
            return read_asset(path)
        except ExportError:  # another program's
            pass
    return read_scene(path)


def assets_subject(name: str, paths: Sequence[Path], background: Color) -> AssetsSubject:
    """The models of files and folders, see :func:`models_in`. UsageError if there are none.

    A model's prompt is what a GLB of dream3d says, else the file's name, or its folder's if all are called alike, with
    dashes for blanks.
    """
    models = [model for path in paths for model in models_in(path)]
    if not models:
        where = ", ".join(map(str, paths))
        raise UsageError(
            f"{where}: no model ({', '.join(CHECKS)}) and no sheet of views; give a folder of assets, or a prior"
        )
    if len(models) > MAX_ASSETS:
        raise UsageError(f"{len(models)} models; the limit is {MAX_ASSETS}")
    named = sorted((*_origin(model), model) for model in models)
    files: dict[str, list[Path]] = {}
    for prompt, _, model in named:
        files.setdefault(words_of(prompt), []).append(model)
    return AssetsSubject(name, files, background, tuple(dict.fromkeys(prompt for prompt, _, _ in named)))


def models_in(path: Path) -> list[Path]:
    """A model file, or a sheet of views, itself.

    Of a folder, the models in it; if there are none, those of the folders in it, such as runs, and else its sheets.
    """
    if not os.path.isdir(path):
        return [path] if os.path.isfile(path) and path.suffix.lower() in (*CHECKS, *SUFFIXES) else []
    for pattern, kinds in (("*", CHECKS), ("*/*", CHECKS), ("*", SUFFIXES)):
        found = sorted(one for one in path.glob(pattern) if one.suffix.lower() in kinds and one.is_file())
        if found:
            return found
    return []


def _origin(model: Path) -> tuple[str, int]:
    """Prompt and seed of a model file, as far as it tells."""
    try:
        facts = read_provenance(model) if model.suffix.lower() == ".glb" else {}
    except Dream3DError:
        facts = {}
    prompt, seed = facts.get("prompt"), facts.get("seed")
    name = model.parent.name if model.stem in ("mesh", "model", "scene") else model.stem
    words = " ".join(name.replace("_", "-").split("-"))
    said = prompt if isinstance(prompt, str) and prompt.strip() else words
    return said, seed if type(seed) is int else 0
