"""What a prior's image encoder says of a finished mesh: how well it fits the prompt."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from tiny_prior import write_tiny_prior

from dream3d.finish import images_of
from dream3d.mesh.extract import FieldMesh
from dream3d.mesh.iso import IsoChoice
from dream3d.mesh.surface import Surface
from dream3d.prior.layout import PACKAGED
from dream3d.weights.loading import load_prior

MINI = load_prior("mini")


def painted(mesh: trimesh.Trimesh, color: tuple[float, float, float]) -> FieldMesh:
    surface = Surface(mesh.vertices.astype(np.float32), np.array(mesh.faces, np.int64), 2 / 128)
    colors = np.tile(np.array(color, np.float32), (len(surface.vertices), 1))
    empty = np.zeros(0)
    return FieldMesh(surface, colors, IsoChoice(1.0, 1.0, empty, empty), 1.0, np.zeros((1, 1, 1), bool))


SOLIDS = {
    "a red cube": painted(trimesh.creation.box((1.1, 1.1, 1.1)), (0.8, 0.1, 0.1)),
    "a blue sphere": painted(trimesh.creation.icosphere(3), (0.15, 0.3, 0.85)),
    "a green cylinder": painted(trimesh.creation.cylinder(0.5, 1.2), (0.15, 0.6, 0.2)),
}


@pytest.mark.parametrize("prompt", SOLIDS)
def test_a_mesh_is_most_like_its_own_prompt(prompt: str) -> None:
    images = images_of(SOLIDS[prompt], MINI)
    assert images.shape == (4, 3, 64, 64)
    right, wrong = MINI.likeness(prompt, images), MINI.likeness("an elephant", images)
    assert right is not None
    assert wrong is not None
    assert -1 <= wrong.similarity < right.similarity <= 1
    assert right.rank <= 3
    assert wrong.rank > 10


def test_the_size_and_place_of_a_mesh_do_not_matter() -> None:
    small = painted(trimesh.creation.box((0.3, 0.3, 0.3)), (0.8, 0.1, 0.1))
    assert (images_of(small, MINI) - images_of(SOLIDS["a red cube"], MINI)).abs().max() < 0.02


def test_a_prior_without_a_sound_image_encoder_says_nothing(tmp_path: Path) -> None:
    images = images_of(SOLIDS["a red cube"], MINI)
    prior = load_prior(str(write_tiny_prior(tmp_path / "tiny")))
    assert prior.likeness("a red chair", images) is None
    shutil.copytree(PACKAGED / "mini/image_encoder", prior.folder / "image_encoder")
    assert prior.likeness("a red chair", images) is None  # another text encoder's
    (prior.folder / "image_encoder/model.safetensors").write_bytes(b"broken")
    assert prior.likeness("a red chair", images) is None
