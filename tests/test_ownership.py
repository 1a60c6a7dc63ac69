"""What a run may replace and remove: what it made, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import OraclePrior
from test_resume import PRIOR, RECIPE, Stop, broken, crash, go_on, start
from test_resume import quick as quick  # fixtures
from test_resume import whole as whole

from dream3d.batch.jobs import BatchJob, plan
from dream3d.batch.places import LocalPlace
from dream3d.batch.prompts import Entry
from dream3d.batch.report import FORMULA, Report, Row
from dream3d.batch.work import Result
from dream3d.checks import check_output_file
from dream3d.errors import Dream3DError, UsageError
from dream3d.files import write_text
from dream3d.generate import complete, generate
from dream3d.images import write_animation
from dream3d.mesh.formats.glb import without_provenance
from dream3d.prior.folder import digest_of
from dream3d.run.folder import LOCK, RunFolder, read_run

NAMES = (
    *(
        "metrics.csv",
        "targets.png",
        "preview.png",
        "turntable.mp4",
        "report.html",
        "mesh.glb",
        "field.safetensors",
        "seeds.png",
        "index.html",
        "x/y",
    ),
    *("checkpoints/notes.txt", "checkpoints/step-00000001.safetensors", ".mascot-original.glb"),
)


def put(folder: Path, names: tuple[str, ...] = NAMES) -> dict[Path, bytes]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the user's {name}")
    return {folder / name: (folder / name).read_bytes() for name in names}


def assert_there(users: dict[Path, bytes]) -> None:
    assert {path: path.read_bytes() for path in users} == users


def test_a_run_in_a_folder_of_the_users_leaves_all_that_is_there(tmp_path: Path, whole: Path) -> None:
    users = put(tmp_path / "run")
    with pytest.raises(RuntimeError):
        start(tmp_path, Stop("optimise", 6, crash))
    go_on(tmp_path)
    assert_there(users)
    assert (tmp_path / "out/mascot.glb").read_bytes() == (whole / "out/mascot.glb").read_bytes()
    made = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    numbered = {
        "metrics-2.csv",
        "targets-2.png",
        "preview-2.png",
        "turntable-2.mp4",
        "mesh-2.glb",
        "field-2.safetensors",
        "report-2.html",
    }
    assert made - set(NAMES) == {"run.json", *numbered}
    assert set(read_run(tmp_path / "run")["files"]) == numbered


def test_what_comes_while_a_run_is_stopped_stays(tmp_path: Path) -> None:
    broken(tmp_path)
    later = [name for name in NAMES if name not in ("metrics.csv", "checkpoints/step-00000001.safetensors")]
    users = put(tmp_path / "run", (*later, "checkpoints/step-00000099.safetensors"))
    go_on(tmp_path)
    assert_there(users)
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 2


def test_a_mesh_among_the_runs_own_checkpoints_stays(tmp_path: Path) -> None:
    out = tmp_path / "run/checkpoints/a.glb"
    generate("a", prior=PRIOR, recipe=RECIPE, seed=0, device="cpu", out=out, run_dir=tmp_path / "run",
             checkpoint_seconds=1e-9)  # fmt: skip
    assert list(out.parent.iterdir()) == [out]


@settings(max_examples=20)
@given(
    names=st.lists(st.sampled_from(["a.csv", "a-2.csv", "b", "b-2", "c/d.x"]), min_size=1, max_size=8), data=st.data()
)
def test_a_name_is_owned_only_if_nobody_had_it(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")
    users = put(folder, tuple(data.draw(st.sets(st.sampled_from(["a.csv", "a-2.csv", "b", "c/d.x"])))))
    with RunFolder(folder, {}) as run:
        for name in names:
            path = run.own(name)
            assert path == run.own(name)
            assert path not in users
            path.parent.mkdir(exist_ok=True)
            path.write_text("ours")
        run.remove(run.owned(re.compile(".*")))
    assert_there(users)
    assert {path for path in folder.rglob("*") if path.is_file()} == {folder / "run.json", folder / LOCK, *users}


@pytest.mark.parametrize("name", ["../x.txt", "/x.txt", "a/../../x.txt", "..", ".hidden", "a/b/c", "y" * 300, 3, None])
def test_a_list_that_leads_out_of_the_folder_or_to_no_file_is_refused(tmp_path: Path, name: object) -> None:
    RunFolder(tmp_path / "run", {}).close()
    facts = read_run(tmp_path / "run")
    (tmp_path / "run/run.json").write_text(json.dumps({**facts, "files": [*facts["files"], name]}))
    with pytest.raises(UsageError, match="'files' is not a list of the run's files"):
        RunFolder.reopen(tmp_path / "run")


def test_a_run_that_kept_no_list_knows_what_it_made(tmp_path: Path, whole: Path) -> None:
    broken(tmp_path)
    facts = read_run(tmp_path / "run")
    for key in ("files", "id", "prior_digest", "hash_grid"):
        del facts[key]
    (tmp_path / "run/run.json").write_text(json.dumps(facts))
    users = put(tmp_path / "run", ("notes.txt", "seeds.png"))
    with pytest.raises(Dream3DError, match="another job"):  # its checkpoints named their job; those of before do not
        go_on(tmp_path)
    shutil.rmtree(tmp_path / "run/checkpoints")
    go_on(tmp_path)
    assert_there(users)
    # What the run did not know of its making is not in the file either.
    made, expected = ((folder / "out/mascot.glb").read_bytes() for folder in (tmp_path, whole))
    assert without_provenance(made) == without_provenance(expected)


def test_the_field_of_a_finished_run_is_kept_and_makes_the_mesh_again(whole: Path) -> None:
    from dream3d import distill
    from dream3d.finish import extract_mesh
    from dream3d.mesh.reading import read_asset
    from dream3d.run import checkpoints

    facts, tensors = checkpoints.read(whole / "run/field.safetensors", 1)
    assert facts["step"] == RECIPE.steps
    scene = distill.start(RECIPE, PRIOR, 0).scene
    part = {kind: {name[len(kind) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{kind}.")}
            for kind in ("field", "background", "occupancy")}  # fmt: skip
    scene.field.load_state_dict(part["field"])
    scene.background.load_state_dict(part["background"])
    scene.renderer.grid.load_state_dict(part["occupancy"])
    scene.field.set_step(RECIPE.steps - 1)
    mesh, _ = extract_mesh(scene, RECIPE.mesh)
    assert len(mesh.surface.faces) == len(read_asset(whole / "out/mascot.glb").faces)
    assert sum(map(len, part.values())) == len(tensors)


def test_a_run_killed_before_it_was_tidied_up_is_tidied_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("dream3d.run.checkpointer.Checkpointer.discard", lambda self: None)
        start(tmp_path)
    job = BatchJob("k", "a", 0, {})
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs/k")
    shutil.copy(tmp_path / "out/mascot.glb", tmp_path / "k.glb")
    assert job.result(LocalPlace(tmp_path)) is None
    assert complete(tmp_path / "runs/k")
    assert job.result(LocalPlace(tmp_path)) is not None
    assert not (tmp_path / "runs/k/checkpoints").exists()


def test_the_prior_is_known_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_prior import write_tiny_prior

    folder = write_tiny_prior(tmp_path / "prior")
    before = digest_of(folder)
    path = folder / "codec/codec.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert digest_of(folder) != before
    broken(tmp_path)
    monkeypatch.setattr(OraclePrior, "digest", "1" * 64)
    with pytest.raises(UsageError, match=r"other weights of this prior \(SHA-256 000000000000..., now 111111111111"):
        go_on(tmp_path)


@pytest.mark.parametrize("name", ["tiny-cuda-nn", "abacus"])
def test_a_run_goes_on_only_on_its_hash_grid(tmp_path: Path, name: str) -> None:
    broken(tmp_path)
    facts = read_run(tmp_path / "run")
    assert facts["hash_grid"] == "numba"
    (tmp_path / "run/run.json").write_text(json.dumps({**facts, "hash_grid": name}))
    with pytest.raises(UsageError, match="can be resumed only on the hash grid it began with: "):
        go_on(tmp_path)


@pytest.mark.parametrize("rename", [True, False])
def test_a_run_folder_that_goes_away_is_one_line(tmp_path: Path, rename: bool) -> None:
    def away() -> None:
        if not (tmp_path / "run").exists():  # a second report of the same step
            return
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        if not rename:
            shutil.rmtree(tmp_path / "elsewhere")

    with pytest.raises(Dream3DError, match="was removed or renamed while the run was at work"):
        start(tmp_path, Stop("optimise", 4, away))
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "out/mascot.glb").exists()


def test_a_link_leads_to_the_mesh_and_a_read_only_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_text("old")
    (tmp_path / "link.glb").symlink_to("a.glb")
    (tmp_path / "new.glb").symlink_to("missing.glb")
    assert check_output_file(tmp_path / "link.glb") == tmp_path / "a.glb"
    assert check_output_file(tmp_path / "new.glb") == tmp_path / "missing.glb"
    (tmp_path / "a.glb").chmod(0o444)
    for name in ("a.glb", "link.glb"):
        with pytest.raises(UsageError, match="is read-only; choose another name"):
            check_output_file(tmp_path / name)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "a.glb", "new")
    (tmp_path / "round.glb").symlink_to("round.glb")
    with pytest.raises(UsageError, match="not a regular file"):
        check_output_file(tmp_path / "round.glb")
    with pytest.raises(UsageError, match="a character that file names cannot have"):
        check_output_file(tmp_path / "\ud800.glb")


def test_an_animation_that_is_not_whole_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    path, real = tmp_path / "a.mp4", iio.imwrite
    write_animation(path, frames, 24)
    before = path.read_bytes()

    def cut(temporary: Path, *args: Any, **options: Any) -> None:  # as ffmpeg does on a full disk
        real(temporary, *args, **options)
        os.truncate(temporary, temporary.stat().st_size // 2)

    monkeypatch.setattr(iio, "imwrite", cut)
    with pytest.raises(OSError, match="of 6 frames"):
        write_animation(path, frames, 24)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_batch_leaves_the_users_tables_and_pages(tmp_path: Path) -> None:
    users = put(tmp_path, ("summary.csv", "index.html"))
    jobs = plan([Entry("a", {}, "list:1")], [0], {}, "0" * 64)[0]
    for reason in ("it broke", "=cmd()"):
        report = Report(jobs, LocalPlace(tmp_path))
        report.add(Result(jobs[0].key, reason))
        report.write()
    assert_there(users)
    assert (report.summary, report.gallery) == ("summary-2.csv", "index-2.html")
    assert sorted(os.listdir(tmp_path)) == [
        ".dream3d.json",
        "index-2.html",
        "index.html",
        "summary-2.csv",
        "summary.csv",
    ]
    assert "'=cmd()" in (tmp_path / "summary-2.csv").read_text()


@given(
    st.sampled_from([*FORMULA, "\t", "\r", " "]).flatmap(
        lambda first: st.text(max_size=3).map(lambda rest: first + rest)
    )
)
def test_no_cell_of_a_summary_is_a_formula(text: str) -> None:
    row = Row(BatchJob("key", text, 0, {text: "1"}), "failed", text, {})
    assert {*"=+-@"} < {*FORMULA}
    assert not [cell for cell in row.cells() if cell.lstrip()[:1] in FORMULA]


def test_jobs_of_other_prompts_seeds_settings_or_priors_have_other_names() -> None:
    letters = [chr(0x4E00 + n) for n in range(150)]
    entries = [Entry(f"{one}{other}", {}, "list:1") for one in letters for other in letters[:140]]
    jobs, twice = plan(entries, [0], {}, "0" * 64)
    assert (len(jobs), twice) == (21_000, 0)
    assert jobs[0].key.startswith("一一-0-")
    base = plan(entries[:1], [0], {}, "0" * 64)[0][0].key
    others = [plan(entries[:1], [1], {}, "0" * 64), plan(entries[:1], [0], {"steps": "3"}, "0" * 64)]
    others += [plan(entries[:1], [0], {}, "1" * 64), plan([Entry("一一!", {}, "")], [0], {}, "0" * 64)]
    assert len({base, *(jobs[0].key for jobs, _ in others)}) == 5
