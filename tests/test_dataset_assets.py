from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from assets import BOX_OBJ, box_obj, catalogue, cube_glb, sphere_ply
from hypothesis import given
from hypothesis import strategies as st

from dream3d.dataset.assets.sh3f import extract, properties, read_catalogue
from dream3d.dataset.assets.sources import find_assets, words_of_stem
from dream3d.dataset.check.file import check_file
from dream3d.dataset.check.limits import Limits, is_inside
from dream3d.dataset.check.obj import texture_name
from dream3d.dataset.records import KEY, key_from
from dream3d.dataset.rendering.models import load_actors
from dream3d.errors import DatasetError, UsageError


@given(st.text())
def test_any_text_gives_a_key(text: str) -> None:
    assert KEY.fullmatch(key_from(text))


def test_a_stem_is_said_in_words() -> None:
    assert words_of_stem("oakChair_02") == "oak chair"
    assert words_of_stem("7") == "7"


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "C:\\a", "http://x/a", "..\\a", "", "a\0b"])
def test_a_path_out_of_the_folder_is_seen(name: str) -> None:
    assert not is_inside(name)
    assert is_inside("textures/wood.png")


def test_options_of_a_texture_are_left_out() -> None:
    assert texture_name("-s 1 1 1 -clamp on my wood.png") == "my wood.png"


def test_properties_have_escapes_comments_and_continued_lines() -> None:
    assert properties("#a=b\nx = caf\\u00e9\ny:1 \\\n  2\n") == {"x": "café", "y": "1 2"}


def test_assets_of_a_folder_have_unique_keys_and_their_words(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    cube_glb(tmp_path / "a" / "redCube.glb")
    cube_glb(tmp_path / "b" / "redCube.glb")
    catalogue(tmp_path / "small.sh3f")
    found = find_assets([tmp_path])
    assert [asset.key for asset in found] == ["redcube", "redcube-2", "small-box"]
    assert found[0].name == "red cube"
    box = found[2]
    assert (box.name, box.licence, box.author, box.category) == ("boîte", "CC-0", "Ann", "Office")
    assert box.source == "Small catalogue"


def test_a_manifest_describes_its_folder_alone(tmp_path: Path) -> None:
    cube_glb(tmp_path / "a.glb")
    cube_glb(tmp_path / "b.glb")
    rows = [{"key": "k", "path": "a.glb", "name": "toy", "captions": ["a toy"], "turn_deg": 90}, {"path": "../b.glb"}]
    (tmp_path / "assets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = find_assets([tmp_path])
    assert (first.key, first.name, first.captions, first.turn_deg) == ("k", "toy", ("a toy",), 90.0)
    assert "outside" in second.reason
    (tmp_path / "assets.jsonl").write_text('{"key": "k"}')
    with pytest.raises(DatasetError, match="line 1"):
        find_assets([tmp_path])


def test_a_selection_picks_and_renames_by_catalogue_id(tmp_path: Path) -> None:
    archive, choice = catalogue(tmp_path / "small.sh3f"), tmp_path / "choice.json"
    choice.write_text('[{"id": "Small#box", "name": "crate", "captions": ["a crate"], "turn": 45}]')
    (asset,) = find_assets([archive], choice)
    assert (asset.name, asset.captions, asset.turn_deg) == ("crate", ("a crate",), 45.0)
    choice.write_text('[{"id": "nothing"}]')
    with pytest.raises(UsageError, match="'nothing' is not among"):
        find_assets([archive], choice)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no models"):
        find_assets([tmp_path])


def _glb(document: dict[str, object], binary: bytes = b"") -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunk = struct.pack("<I4s", len(binary), b"BIN\0") + binary if binary else b""
    return struct.pack("<4s4I", b"glTF", 2, 20 + len(text) + len(chunk), len(text), 0x4E4F534A) + text + chunk


def _many(count: int) -> dict[str, object]:
    accessors = [{"count": count, "componentType": 5126, "type": "VEC3"}]
    mesh = {"primitives": [{"attributes": {"POSITION": 0}}]}
    return {"accessors": accessors, "meshes": [mesh], "nodes": [{"mesh": 0}]}


def _gltf(changes: dict[str, object]) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(_many(3) | changes))


HUGE_PLY = (
    b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nproperty float x\nelement face 10000000\nend_header\n"
)
SMALL_PLY = HUGE_PLY.replace(b"10000000", b"2")
BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("a.glb", lambda p: p.write_bytes(b""), "is empty"),
    "unknown": ("a.fbx", lambda p: p.write_bytes(b"x"), "unknown format '.fbx'"),
    "nan": ("a.obj", lambda p: p.write_text("v nan 0 0\nf 1 1 1\n"), "vertex 1 is not finite"),
    "missing texture": ("a.obj", lambda p: box_obj(p, "no.png"), "texture 'no.png' is missing"),
    "texture outside": ("a.obj", lambda p: box_obj(p, "../../secret.png"), "lies outside"),
    "absolute texture": ("a.obj", lambda p: box_obj(p, "/etc/hostname"), "lies outside"),
    "mtllib outside": ("a.obj", lambda p: p.write_text(BOX_OBJ.format(use="mtllib ../x.mtl")), "lies outside"),
    "mtllib missing": ("a.obj", lambda p: p.write_text(BOX_OBJ.format(use="mtllib x.mtl")), "'x.mtl' is missing"),
    "no faces": ("a.obj", lambda p: p.write_text("v 0 0 0\n"), "not one triangle"),
    "no obj": ("a.obj", lambda p: p.write_text("hello\n"), "no vertices"),
    "cut off glb": ("a.glb", lambda p: p.write_bytes(cube_glb(p).read_bytes()[:-100]), "cut off"),
    "no glb": ("a.glb", lambda p: p.write_bytes(b"x" * 40), "no GLB"),
    "ten million": ("a.glb", lambda p: p.write_bytes(_glb(_many(30_000_000))), "30000000 numbers"),
    "too many": ("a.gltf", _gltf(_many(6_000_000) | {"nodes": [{"mesh": 0}] * 9}), "18000000 tri"),
    "http": ("a.gltf", _gltf({"images": [{"uri": "http://x/a.png"}]}), "outside"),
    "buffer": ("a.gltf", _gltf({"buffers": [{"uri": "%2e%2e/b", "byteLength": 1}]}),
               "outside"),
    "cycle": ("a.gltf", _gltf({"nodes": [{"mesh": 0, "children": [0]}]}), "cycle"),
    "extension": ("a.gltf", lambda p: p.write_text('{"extensionsRequired": ["KHR_draco"]}'), "KHR_draco"),
    "huge ply": ("a.ply", lambda p: p.write_bytes(HUGE_PLY), "10000000 triangles"),
    "cut off ply": ("a.ply", lambda p: p.write_bytes(SMALL_PLY), "cut off: its header promises at least 36 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_asset_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    name, make, reason = BROKEN[case]
    make(tmp_path / name)
    with pytest.raises(DatasetError, match=reason):
        check_file(tmp_path / name)


def test_sound_assets_pass(tmp_path: Path) -> None:
    for path in (cube_glb(tmp_path / "a.glb"), box_obj(tmp_path / "a.obj"), sphere_ply(tmp_path / "a.ply")):
        check_file(path)


FAR = "v 1e999 0 0\nv 0 0 0\nv 0 1 0\nf 1 2 3\n"
FLAT = "v 1 1 1\nv 2 2 2\nf 1 2 1\n"


@pytest.mark.parametrize(("text", "reason"), [(FLAT, "no area"), (FAR, "not finite")])
def test_a_surface_that_cannot_be_drawn_is_refused_after_loading(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(text)
    with pytest.raises(DatasetError, match=reason):
        load_actors(tmp_path / "a.obj")


def test_very_many_faces_are_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_bytes(b"v 0 0 0\n" + b"f 1 1 1\n" * 400_000)
    tracemalloc.start()
    with pytest.raises(DatasetError, match="more than 300000 triangles"):
        check_file(path, Limits(max_triangles=300_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_texture_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="4 x 4 pixels"):
        check_file(box_obj(tmp_path / "a.obj"), Limits(max_texture_pixels=15))


def test_a_model_is_unpacked_alone(tmp_path: Path) -> None:
    (asset,) = find_assets([catalogue(tmp_path / "small.sh3f")])
    (tmp_path / "out").mkdir()
    assert extract(asset, tmp_path / "out") == tmp_path / "out" / "box.obj"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["box.mtl", "box.obj", "skin.png"]


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    archive = catalogue(tmp_path / "small.sh3f")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as more:
        more.writestr("models/box/zeros.bin", bytes(8 * 2**20))
    (asset,) = find_assets([archive])
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="zip bomb"):
        extract(asset, tmp_path / "out")
    with pytest.raises(DatasetError, match="unpack to"):
        extract(asset, tmp_path / "out", Limits(max_archive_bytes=2**20))
    assert not list((tmp_path / "out").iterdir())


def test_a_catalogue_entry_outside_the_archive_is_skipped_with_its_reason(tmp_path: Path) -> None:
    (asset,) = find_assets([catalogue(tmp_path / "small.sh3f", "../../etc/box.obj")])
    assert "outside the archive" in asset.reason


@pytest.mark.parametrize("error", [IndexError("no name"), struct.error("cut off"), zipfile.BadZipFile("CRC")])
def test_whatever_zipfile_raises_is_said_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def trip(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
        raise error

    (asset,) = read_catalogue(catalogue(tmp_path / "c.sh3f"))
    monkeypatch.setattr(zipfile.ZipFile, "infolist", trip)
    with pytest.raises(DatasetError, match="the archive is damaged"):
        extract(asset, tmp_path)


def test_a_catalogue_with_names_that_are_no_text_is_refused(tmp_path: Path) -> None:
    path = catalogue(tmp_path / "c.sh3f")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("\u00e9.txt", "")
    path.write_bytes(path.read_bytes().replace("\u00e9.txt".encode(), b"\xab\xab.txt"))
    with pytest.raises(DatasetError, match="damaged or not a zip file"):
        read_catalogue(path)


def test_a_damaged_catalogue_does_not_end_the_others(tmp_path: Path) -> None:
    catalogue(tmp_path / "good.sh3f")
    (tmp_path / "bad.sh3f").write_bytes((tmp_path / "good.sh3f").read_bytes()[:-40])
    bad, good = find_assets([tmp_path])
    assert "is damaged or not a zip file" in bad.reason
    assert not good.reason
