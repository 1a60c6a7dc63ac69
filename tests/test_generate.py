"""End to end on the built-in prior with few steps: a prompt becomes a checked mesh, and bad ends are named."""

import csv
import json
import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
import trimesh
from oracle import MASCOT, OraclePrior
from small_pictures import small_pictures

import dream3d
from dream3d.errors import CollapsedFieldError, UsageError
from dream3d.finish import SILHOUETTE_SIZE
from dream3d.generate import generate
from dream3d.mesh.export import read_provenance
from dream3d.mesh.formats.registry import EXPORTERS
from dream3d.mesh.reading import read_mesh
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.recipe.generation import MeshRecipe, OptimizerRecipe, Recipe, RegularizerRecipe, Stage, TargetRecipe
from dream3d.recipe.presets import preset
from dream3d.run.progress import Outcome, Progress
from dream3d.weights.loading import load_prior

PROMPT = "a christmas tree"
SHORT: Recipe = replace(
    preset("mini").with_steps(4),
    targets=(TargetRecipe(0, None, 4, 2, 2, 1.0), TargetRecipe(2, None, 4, 2, 2, 0.5)),
    mesh=MeshRecipe(resolution=40, texture=128),
)


@dataclass(frozen=True)
class Run:
    outcome: Outcome
    reports: list[Progress]


@pytest.fixture(scope="module")
def mini() -> DiffusionPrior:
    return load_prior("mini")


def run(prior: DiffusionPrior, folder: Path, name: str, seed: int, ending: str = ".glb") -> Run:
    reports: list[Progress] = []
    outcome = generate(
        PROMPT,
        prior=prior,
        recipe=SHORT,
        seed=seed,
        device="cpu",
        out=folder / "out" / f"{name}{ending}",
        run_dir=folder / "runs" / name,
        observer=reports.append,
    )
    return Run(outcome, reports)


@pytest.fixture(scope="module")
def first(mini: DiffusionPrior, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(mini, tmp_path_factory.mktemp("first"), "tree", seed=3)


def test_the_mesh_is_a_coloured_unit_box_sized_thing(first: Run) -> None:
    scene = trimesh.load_scene(first.outcome.mesh_path, process=False)
    (mesh,) = scene.geometry.values()
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) == first.outcome.faces > 100
    assert float(np.ptp(mesh.vertices, axis=0).max()) == pytest.approx(1.0, abs=1e-3)
    assert isinstance(mesh.visual, trimesh.visual.TextureVisuals)
    assert np.shape(mesh.visual.uv) == (len(mesh.vertices), 2)
    material: Any = mesh.visual.material
    assert material.baseColorTexture.size == (128, 128)
    assert np.ptp(np.asarray(material.baseColorTexture)) > 0
    result = json.loads((first.outcome.run_dir / "run.json").read_text())["result"]
    assert result["texture"] == 128
    assert type(result["watertight"]) is bool


def test_the_asset_says_where_it_came_from(first: Run) -> None:
    made_by = read_provenance(first.outcome.mesh_path)
    assert (made_by["prompt"], made_by["seed"]) == (PROMPT, 3)
    assert made_by["recipe"]["steps"] == 4
    assert made_by["versions"]["dream3d"] == dream3d.__version__
    assert made_by["prior"]["licence_weights"] == "CC-BY-4.0"


def test_the_run_folder_is_complete(first: Run) -> None:
    folder = first.outcome.run_dir
    assert sorted(path.name for path in folder.iterdir()) == [
        "field.safetensors",
        "mesh.glb",
        "metrics.csv",
        "preview.png",
        "report.html",
        "run.json",
        "targets.png",
        "turntable.mp4",
    ]
    assert (folder / "mesh.glb").read_bytes() == first.outcome.mesh_path.read_bytes()
    data = json.loads((folder / "run.json").read_text())
    assert data["status"] == "finished"
    assert data["result"]["faces"] == first.outcome.faces
    assert data["result"]["cap_area"] == first.outcome.cap_area
    assert first.outcome.likeness is not None
    assert data["result"]["prompt_similarity"] == first.outcome.likeness.similarity
    assert data["result"]["prompt_rank"] == first.outcome.likeness.rank
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(4))
    assert all(float(row["loss"]) > 0 and 0 <= float(row["opacity"]) <= 1 for row in rows)
    preview = iio.imread(folder / "preview.png")
    assert preview.shape == (128, 512, 3)
    assert int(np.ptp(preview)) > 50  # something is in the picture
    assert imageio_ffmpeg.count_frames_and_secs(str(folder / "turntable.mp4")) == (48, 2.0)


def test_progress_tells_every_stage_in_order(first: Run) -> None:
    stages = list(dict.fromkeys(report.stage for report in first.reports))
    assert stages == ["prepare", "optimise", "extract", "export", "pictures"]
    reports = [report for report in first.reports if report.stage == "optimise"]
    told = [report.message for report in reports if report.loss is None]
    assert told == [f"round {n} of 2: denoising 4 views in 2 steps" for n in (1, 2)]
    steps = [report for report in reports if report.loss is not None]
    assert [report.step for report in steps] == list(range(1, 5))
    assert (steps[0].timestep_range, steps[3].timestep_range) == ((999, 999), (500, 500))
    assert steps[-1].preview is not None
    assert steps[-1].preview(2, 32).shape == (2, 32, 32, 3)


def test_peak_memory_is_measured(first: Run) -> None:
    # The largest size that this process has had, in whatever test.
    assert 100e6 < first.outcome.peak_memory_bytes <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_another_mesh(first: Run, mini: DiffusionPrior, tmp_path: Path) -> None:
    with small_pictures(SILHOUETTE_SIZE):
        again, other = run(mini, tmp_path, "again", seed=3), run(mini, tmp_path, "other", seed=4)
    assert again.outcome.mesh_path.read_bytes() == first.outcome.mesh_path.read_bytes()
    mine, others = (
        trimesh.load_mesh(path, process=False).vertices for path in (first.outcome.mesh_path, other.outcome.mesh_path)
    )
    # The bytes differ by the seed in the provenance alone; it is the geometry that must be another.
    assert mine.shape != others.shape or not np.allclose(mine, others, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [ending for ending in EXPORTERS if ending != ".glb"])
def test_every_ending_works(mini: DiffusionPrior, tmp_path: Path, ending: str) -> None:
    quick = replace(SHORT.with_steps(2), mesh=MeshRecipe(resolution=24, texture=64))
    out = tmp_path / f"tree{ending}"
    with small_pictures():
        outcome = generate(PROMPT, prior=mini, recipe=quick, seed=0, device="cpu", out=out, run_dir=tmp_path / "run")
    assert len(read_mesh(out).faces) == outcome.faces
    assert (tmp_path / "run" / f"mesh{ending}").exists()


def test_a_collapsed_field_is_named_and_never_exported(tmp_path: Path) -> None:
    """A sparsity weight far too high thins the whole field out; the run ends with that, not with an empty mesh."""
    recipe = replace(
        preset("mini").with_steps(20),
        stages=(Stage(0, 8, 1),),
        regularizers=RegularizerRecipe(sparsity=1e6, from_fraction=0.0),
        optimizer=OptimizerRecipe(lr_grid=0.5, lr_networks=0.05),
        mesh=MeshRecipe(resolution=24, texture=64),
    )
    with small_pictures(), pytest.raises(CollapsedFieldError, match="sparsity") as caught:
        generate(
            "nothing",
            prior=OraclePrior(MASCOT, image_size=16),
            recipe=recipe,
            seed=0,
            device="cpu",
            out=tmp_path / "nothing.glb",
            run_dir=tmp_path / "run",
        )
    assert not (tmp_path / "nothing.glb").exists()
    assert "\n" not in str(caught.value)
    data = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (data["status"], data["reason"]) == ("failed", str(caught.value))


def test_an_unknown_ending_is_refused_before_anything_is_written(mini: DiffusionPrior, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.fbx"):
        generate(
            PROMPT,
            prior=mini,
            recipe=SHORT,
            seed=0,
            device="cpu",
            out=tmp_path / "tree.fbx",
            run_dir=tmp_path / "run",
        )
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dream3d", "generate", "a snowman"]
    small = ["--steps", "2", "--resolution", "32", "--texture", "64"]
    options = ["--out", "snow.glb", *small, "--seed", "5", "--guidance-scale", "4"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "peak memory" in done.stdout
    made_by = read_provenance(tmp_path / "snow.glb")
    assert made_by["recipe"]["guidance"]["guidance_scale"] == 4
    assert (tmp_path / "runs" / "a-snowman-5" / "turntable.mp4").exists()
