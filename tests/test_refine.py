"""Textures refined by the prior: views as a function of the texels, gradients by hand, and a dull ball made bright."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray
from oracle import OraclePrior, Sphere, draw
from small_pictures import small_pictures
from test_mesh_raster import front_camera
from test_optimise import TINY
from tiny_prior import write_tiny_prior
from torch import Tensor
from typer.testing import CliRunner

from dream3d.cameras import orbit
from dream3d.cli.app import app
from dream3d.errors import UsageError
from dream3d.generate import generate
from dream3d.images import to_uint8
from dream3d.mesh.appearance import Texture
from dream3d.mesh.bake import painted, texels_of
from dream3d.mesh.boxmap import box_layout
from dream3d.mesh.drawn_texture import drawn_views, look_up
from dream3d.mesh.extract import FieldMesh
from dream3d.mesh.iso import IsoChoice
from dream3d.mesh.shading import shade
from dream3d.mesh.surface import Surface
from dream3d.prior.base import Likeness
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.mesh import MeshRecipe
from dream3d.recipe.refinement import TextureRefinement
from dream3d.refine import refine_mesh
from dream3d.remake import read_field, remake
from dream3d.run.folder import read_run
from dream3d.run.progress import Refinement, Score

# --- drawing ----------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_look_up_is_its_weights() -> None:
    # A texture of 2 x 2 pixels, whose centres are at 0.25 and 0.75. At (0.375, 0.625): a quarter of the
    # way to the right, three quarters down.
    texture = torch.tensor([[[0.0, 1.0], [2.0, 4.0]]] * 3, requires_grad=True)
    found = look_up(texture, torch.tensor([[0.375, 0.625]]))
    # 0 * 3/4 * 1/4 + 1 * 1/4 * 1/4 + 2 * 3/4 * 3/4 + 4 * 1/4 * 3/4
    assert found.tolist() == [pytest.approx([0.0625 + 1.125 + 0.75] * 3)]
    found[0, 1].backward()
    assert texture.grad is not None
    assert texture.grad[1].tolist() == [pytest.approx([3 / 16, 1 / 16]), pytest.approx([9 / 16, 3 / 16])]
    assert texture.grad[[0, 2]].abs().sum() == 0


def test_beyond_the_edge_the_edge_goes_on() -> None:
    texture = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]] * 3)
    assert look_up(texture, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))[:, 0].tolist() == [1.0, 4.0]


def facing_square() -> tuple[NDArray[Any], NDArray[np.int64], Texture]:
    """It fills the image of the front camera; see ``test_a_texture_is_seen_pixel_by_pixel``."""
    vertices = np.array([[0, -2, 2], [0, 2, 2], [0, 2, -2], [0, -2, -2]], dtype=np.float64)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return vertices, np.array([[0, 2, 1], [0, 3, 2]]), Texture(uv, image)


def test_the_gradient_of_a_pixel_goes_to_the_texels_that_it_shows() -> None:
    vertices, faces, skin = facing_square()
    (view,) = drawn_views(vertices, faces, skin, front_camera(), 2, supersample=2, ambient=1.0)
    texture = torch.zeros(3, 4, 4, requires_grad=True)
    picture = view.draw(texture, torch.zeros(3), 2)
    assert picture.shape == (3, 2, 2)
    picture[0, 0, 1].backward()
    assert texture.grad is not None
    # 2 x 2 samples, each in the middle of one of the 4 x 4 texels: of the upper right quarter, each a fourth.
    expected = torch.zeros(4, 4)
    expected[:2, 2:] = 0.25
    assert texture.grad[0].tolist() == [pytest.approx(row, abs=1e-5) for row in expected.tolist()]


def test_the_pictures_are_those_of_the_shading() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.8)
    vertices, faces = np.asarray(sphere.vertices, np.float32), np.asarray(sphere.faces, np.int64)
    layout = box_layout(vertices, faces, 64, 4)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    bent = np.random.default_rng(1).integers(120, 136, (64, 64, 3), dtype=np.uint8) | np.array([0, 0, 240], np.uint8)
    skin = Texture(layout.uv, image, bent)
    cameras, background = orbit(2, elevation_deg=20), (0.2, 0.4, 0.6)
    vertices = vertices[layout.source]
    drawn = drawn_views(vertices, layout.faces, skin, cameras, 16, supersample=2)
    texture = torch.from_numpy(image).movedim(-1, 0).float() / 255
    found = torch.stack([view.draw(texture, torch.tensor(background), 2) for view in drawn])
    expected = shade(vertices, layout.faces, skin, cameras, 16, 16, background=background, supersample=2)
    assert np.abs(to_uint8(found.movedim(1, -1)).astype(int) - expected).max() <= 1


# --- refining ---------------------------------------------------------------------------------------------------

RADIUS, SIDE = 1.0, 64
BALL = (Sphere((0.0, 0.0, 0.0), RADIUS, (0.85, 0.25, 0.1)),)
ASKED = TextureRefinement(denoise_steps=1, updates=30, cells=8, learning_rate=0.05)


class Judging(OraclePrior):
    """An oracle with an opinion of images."""

    def __init__(self, *objects: Any, likes: Callable[[Tensor], float] | None = None) -> None:
        super().__init__(*(objects or (BALL,)), image_size=16)
        self._likes = likes

    def likeness(self, prompt: str, images: Tensor) -> Likeness | None:
        """What the test says."""
        return self._likes and Likeness(self._likes(images), 1)


@functools.cache
def grey_ball() -> FieldMesh:
    """The oracle's ball, grey."""
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    surface = Surface(np.asarray(sphere.vertices, np.float32), np.asarray(sphere.faces, np.int64), 0.05)
    layout = box_layout(surface.vertices, surface.faces, SIDE, 4)
    texels = texels_of(surface.vertices, surface.faces, layout, SIDE)
    image = painted(texels.pixel, np.full((len(texels.pixel), 3), 0.5, np.float32), SIDE)
    one = np.ones(1)
    grey = np.full((len(surface.vertices), 3), 0.5, np.float32)
    choice, nothing = IsoChoice(1.0, 1.0, one, one), np.zeros((1, 1, 1), bool)
    return FieldMesh(surface, grey, choice, 1.0, nothing, layout=layout, image=image)


@pytest.fixture
def dull() -> FieldMesh:
    return grey_ball()


def refined(mesh: FieldMesh, prior: OraclePrior, seed: int = 0, **changes: Any) -> tuple[FieldMesh, Refinement]:
    return refine_mesh(mesh, prior, TINY, replace(ASKED, **changes), "a ball", seed)


def test_a_grey_ball_becomes_the_priors(dull: FieldMesh) -> None:
    updates = list[int]()
    prior = Judging()
    mesh, outcome = refine_mesh(dull, prior, TINY, ASKED, "a ball", 0, report=updates.append)
    assert updates == list(range(1, 31))
    assert outcome.kept
    assert outcome.after.agreement > outcome.before.agreement + 5
    assert (outcome.before.similarity, outcome.after.similarity) == (None, None)
    cameras = orbit(3, elevation_deg=10, azimuth_deg=20)
    truth = draw(BALL, cameras, 32)[0]
    errors = []
    for one in (dull, mesh):
        vertices, faces, skin = one.skin
        seen = shade(vertices, faces, skin, cameras, 32, 32, background=prior.background, supersample=2)
        errors.append(float((torch.from_numpy(seen).movedim(-1, 1) / 255 - truth).square().mean()))
    assert errors[1] < errors[0] / 4
    # No channel moves further than it may.
    assert mesh.image is not None
    assert dull.image is not None
    assert np.abs(mesh.image.astype(int) - dull.image).max() <= round(255 * ASKED.largest_change) + 1
    # The shape is as it was.
    assert mesh.surface is dull.surface


def test_the_same_seed_gives_the_same_bytes(dull: FieldMesh) -> None:
    one, other = (refined(dull, Judging(), updates=3)[0].image for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(("opinions", "kept"), [([0.4, 0.3], False), ([0.3, 0.4], True)])
def test_a_texture_that_agrees_less_is_kept_only_for_the_prompt(
    opinions: list[float], kept: bool, dull: FieldMesh
) -> None:
    class Exaggerating(Judging):
        """Whatever it is shown, it wants twice as far from grey: the further the views go, the less they agree."""

        def predict_x0(self, x_t: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
            return 2 * x_t, 2 * x_t

    bright = replace(dull, image=np.full((SIDE, SIDE, 3), 140, np.uint8))
    mesh, outcome = refined(bright, Exaggerating(likes=lambda images: opinions.pop(0)), updates=5, noise=0.01)
    assert outcome.after.agreement < outcome.before.agreement
    assert opinions == []
    assert outcome.kept is kept
    assert (mesh.image is bright.image) is not kept


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (Score(20, None), Score(20.1, None), True),
        (Score(20, None), Score(20, None), False),
        (Score(20, None), Score(19, None), False),
        (Score(20, 0.3), Score(21, 0.2), True),
        (Score(20, 0.3), Score(19, 0.4), True),
        (Score(20, 0.3), Score(19, 0.3), False),
    ],
)
def test_one_figure_has_to_rise(before: Score, after: Score, kept: bool) -> None:
    outcome = Refinement(before, after)
    assert outcome.kept is kept
    (sentence,) = outcome.sentences
    assert f"texture is {'kept' if kept else 'not kept'}: views agree with the prior's to 20.0 dB" in sentence
    assert ("similarity" in sentence) is (before.similarity is not None)


def test_without_a_texture_there_is_nothing_to_refine(dull: FieldMesh) -> None:
    with pytest.raises(ValueError, match="without a texture"):
        refined(replace(dull, layout=None, image=None), Judging())


# --- a run ------------------------------------------------------------------------------------------------------

FEW = TextureRefinement(denoise_steps=1, updates=2, cells=4)


def refined_run(folder: Path, refinement: TextureRefinement) -> Path:
    """The folder of a short run whose mesh is refined by a tiny prior."""
    prior = write_tiny_prior(folder / "prior")
    mesh = MeshRecipe(resolution=16, faces=200, texture=64)
    with small_pictures():
        generate(
            "a red chair",
            prior=DiffusionPrior(prior),
            recipe=dataclasses.replace(TINY.with_steps(2), mesh=mesh, refinement=refinement),
            seed=0,
            device="cpu",
            out=folder / "a.glb",
            run_dir=folder / "run",
            checkpoint_seconds=0,
            request={"prior": str(prior)},
        )
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return refined_run(tmp_path_factory.mktemp("refined"), FEW)


def test_a_run_tells_what_its_refinement_came_to(run: Path) -> None:
    result = read_run(run)["result"]
    assert result["texture_refined"] in (True, False)
    assert result["texture_agreement_before"] != result["texture_agreement_after"]
    assert "refined texture kept" in (run / "report.html").read_text("utf-8")


def test_an_export_refines_as_the_run_did(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dream3d.finish.SILHOUETTE_SIZE", 32)
    with monkeypatch.context() as kept:
        kept.setattr(Refinement, "kept", True)
        outcomes = {}
        for words in ((), ("--no-refine-texture",)):
            out = tmp_path / f"again{len(words)}.glb"
            result = CliRunner().invoke(app, ["export", str(run), "--out", str(out), "--device", "cpu", *words])
            assert result.exit_code == 0, result.output
            outcomes[words] = out.read_bytes(), "the refined texture is" in result.stderr
    if read_run(run)["result"]["texture_refined"]:
        assert outcomes[()][0] == (run / "mesh.glb").read_bytes()
    assert outcomes[()][0] != outcomes[("--no-refine-texture",)][0]
    assert [told for _, told in outcomes.values()] == [True, False]


def test_another_prior_refines_nothing(run: Path, tmp_path: Path) -> None:
    kept = read_field(run)
    for prior in (None, Judging()):
        with pytest.raises(UsageError, match="only by the prior that its run was made with"):
            remake(kept, tmp_path / "x.glb", kept.recipe, prior)
    assert not list(tmp_path.iterdir())


def test_a_run_that_names_no_prior_says_what_to_do(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = replace(read_field(run), facts={"request": {}})
    monkeypatch.setattr("dream3d.remake.read_field", lambda *_: nameless)
    words = ["export", str(run), "--out", str(tmp_path / "x.glb"), "--device", "cpu"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert "the run does not say which prior made it; use --no-refine-texture" in result.stderr
