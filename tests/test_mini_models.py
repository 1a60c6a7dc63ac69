"""The data of the built-in prior: readers of the games' models, their lists, and the emoji."""

from __future__ import annotations

import importlib
import io
import json
import struct
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from dataset_samples import ORBIT, record, views, write_shard
from PIL import Image
from tiny_prior import write_tiny_prior

from dream3d.dataset.assets.sources import find_assets
from dream3d.dataset.captions.concepts import mentions, read_concepts
from dream3d.dataset.images import write_image_shards
from dream3d.dataset.records import Pass, SourceAsset
from dream3d.dataset.rendering.scene import OffscreenScene
from dream3d.dataset.shards import CaptionedImage, read_images, read_objects, shards
from dream3d.prior.text import PromptEncoder

ROOT = Path(__file__).parent.parent
MINI = ROOT / "examples/mini"
HELD_OUT = (
    *read_concepts(ROOT / "prompts/held-out-concepts.txt"),
    *read_concepts(MINI / "held-out-synonyms.txt"),
)
LEVEL = Pass(0.0, 40.0, 3.0, (0.0,))
SQUARE = np.array([[-1, 0, 1], [1, 0, 1], [1, 2, 1], [-1, 2, 1]], "<f4")
"""Corners, (0, 0, 1) outwards."""
NORMALS = np.tile(np.array([0, 0, 1], "<f4"), (4, 1))
UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], "<f4")
FACES = np.array([[0, 1, 2], [0, 2, 3]])


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(MINI))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def scene() -> OffscreenScene:
    return OffscreenScene(32)


def pmd(turned: bool = False) -> bytes:
    """A square that looks towards -z (0 A.D.'s front), or +z, with a bone and a prop point above it."""
    flip = np.array([1, 1, 1] if turned else [-1, 1, -1], "<f4")
    rows = b"".join(
        (p * flip).astype("<f4").tobytes() + (n * flip).astype("<f4").tobytes() + uv.tobytes() + bytes(20)
        for p, n, uv in zip(SQUARE, NORMALS, UV, strict=True)
    )
    bone = struct.pack("<7f", 0, 1, 0, 0, 0, 0, 1)
    point = struct.pack("<I4s7fB", 4, b"head", 0, 2, 0, 0, 0, 0, 1, 0)
    faces = FACES[:, ::-1].astype("<u2").tobytes()  # clockwise, as the game has them
    body = struct.pack("<II", 4, 1) + rows + struct.pack("<I", 2) + faces + struct.pack("<I", 1) + bone
    body += struct.pack("<I", 1) + point
    return b"PSMD" + struct.pack("<II", 4, len(body)) + body


def actor(*groups: str, material: str = "default.xml") -> str:
    inside = "".join(f"<group>{group}</group>" for group in groups)
    return f'<actor version="1">{inside}<material>{material}</material></actor>'


def variant(mesh: str = "", texture: str = "", prop: str = "", point: str = "root", frequency: int = 1) -> str:
    parts = f"<mesh>{mesh}</mesh>" if mesh else ""
    parts += f'<textures><texture file="{texture}" name="baseTex"/></textures>' if texture else ""
    parts += f'<props><prop actor="{prop}" attachpoint="{point}"/></props>' if prop else ""
    return f'<variant frequency="{frequency}">{parts}</variant>'


def png(rgba: tuple[int, int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), rgba).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def game(tmp_path: Path) -> Path:
    """A tiny public.zip: a cat in two furs with a hat; a shield in the player's colour; leaves."""
    file = tmp_path / "public.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name, rgba in {"red": (200, 0, 0, 0), "green": (0, 200, 0, 0), "grey": (128, 128, 128, 0)}.items():
            archive.writestr(f"art/textures/skins/{name}.png.cached.dds", png(rgba))
        archive.writestr("art/meshes/square.dae.cached.pmd", pmd())
        furs = variant(texture="red.png") + variant(texture="green.png") + variant(texture="x.png", frequency=0)
        hat = variant(prop="props/hat.xml", point="head") + variant(prop="", point="head")
        files = {
            "fauna/cat": actor(variant(mesh="square.dae"), furs, hat),
            "props/hat": actor(variant(mesh="square.dae", texture="grey.png")),
            "props/shield": actor(variant(mesh="square.dae", texture="grey.png"), material="player_trans.xml"),
            "flora/leaf": actor(variant(mesh="square.dae", texture="grey.png"), material="basic_trans.xml"),
            "flora/empty": actor(variant()),
        }
        for name, text in files.items():
            archive.writestr(f"art/actors/{name}.xml", text)
    return file


def test_an_actor_becomes_its_mesh_its_texture_and_its_props(game: Path) -> None:
    one = script("oad").Game(game)
    assert one.actors() == [f"{n}.xml" for n in ("fauna/cat", "flora/empty", "flora/leaf", "props/hat", "props/shield")]
    cat, hat = one.parts("fauna/cat.xml")
    # Its front was -z and is +z now; the hat sits on the bone (1 high) and the point (2 above it).
    np.testing.assert_allclose(cat.vertices, SQUARE, atol=1e-6)
    np.testing.assert_allclose(hat.vertices[:, 1], SQUARE[:, 1] + 3, atol=1e-6)
    corners = cat.vertices[cat.faces]
    assert (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0).all()
    # In an opaque material, alpha means nothing.
    assert cat.image.mode == "RGB"
    assert cat.image.getpixel((0, 0)) == (200, 0, 0)
    assert [part.image.getpixel((0, 0)) for part in one.parts("fauna/cat.xml", 1)] == [(0, 200, 0)]


def test_players_colours_change_with_the_variant_and_leaves_keep_their_alpha(game: Path) -> None:
    one = script("oad").Game(game)
    colors = {one.parts("props/shield.xml", number)[0].image.getpixel((0, 0)) for number in range(6)}
    assert len(colors) == 6
    red = one.parts("props/shield.xml")[0].image.getpixel((0, 0))
    assert red[0] > 3 * red[1]
    assert one.parts("flora/leaf.xml")[0].image.mode == "RGBA"


def test_a_list_becomes_models_that_the_product_renders_from_the_front(
    game: Path,
    tmp_path: Path,
    scene: OffscreenScene,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "list.tsv").write_text("# cats\nfauna/cat.xml\tcat|kitten\t3\t0\nflora/empty.xml\tnothing\n")
    models, out = script("models"), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["models.py", str(tmp_path / "list.tsv"), str(game), "--out", str(out)])
    models.main()
    said = capsys.readouterr().out
    assert "flora/empty.xml: has no surface" in said
    assert "2 models of 1 names" in said  # the third variant looks like the first
    first, second = find_assets([out])
    assert (first.name, first.captions, first.licence) == ("cat", ("kitten", "a kitten"), "CC-BY-SA-3.0")
    assert first.source == "0 A.D.: fauna/cat.xml"
    assert (out / "attribution.csv").read_text().count("Wildfire Games") == 2
    scene.load(second.path, second)
    front = scene.render(LEVEL, 0.0).rgba[16, 16]
    assert front[3] == 255
    assert front[1] > 100 > front[0] + front[2]
    assert scene.render(LEVEL, 90.0).rgba[..., 3].mean() < 40  # the square from its edge


@pytest.mark.parametrize("line", ["a.xml", "a.xml\t", "a.xml\tcat\t1\t2\t3", "a.xml\tcat\tmany"])
def test_a_damaged_list_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text(line)
    with pytest.raises(ValueError, match=r"fields|invalid literal"):
        script("models").read_list(tmp_path / "list.tsv")


def spm(texture: str) -> bytes:
    """A square of one texture with normals and white vertices."""
    rows = b""
    for place, uv in zip(SQUARE, UV, strict=True):
        rows += place.tobytes() + struct.pack("<I", 511 << 20) + b"\x80" + uv.astype("<f2").tobytes()
    names = bytes([len(texture)]) + texture.encode() + b"\0"
    head = b"SP" + bytes([0, 3]) + struct.pack("<6f", *([0] * 6)) + struct.pack("<H", 1) + names
    return head + struct.pack("<HHIIH", 1, 1, 4, 6, 0) + rows + FACES.astype("u1").tobytes()


TABLE = """Files: *
License: GPL-3+
Copyright: somebody

Files:
 data/models/box.spm
 data/models/box.png
Copyright: 2010 Ann
 2011 Bob
License: CC-BY-SA-3.0
Comment: a box

Files: data/models/other.spm data/models/leaf.spm
Copyright: Cid
License: CC0
"""


def test_a_kart_model_needs_an_open_licence_and_gives_only_the_colour_of_a_texture_without_one(tmp_path: Path) -> None:
    data, table = tmp_path / "data", tmp_path / "copyright"
    (data / "models").mkdir(parents=True)
    (data / "textures").mkdir()
    table.write_text(TABLE)
    stripes = np.zeros((4, 4, 4), np.uint8)
    stripes[..., 3], stripes[::2, :, 0] = 255, 200
    holes = stripes.copy()
    holes[0, ..., 3] = 0
    for name, pixels in {"models/box.png": stripes, "textures/wall.png": stripes, "textures/leaf.png": holes}.items():
        Image.fromarray(pixels).save(data / name)
    for name, texture in {"box": "box.png", "other": "wall.png", "closed": "box.png", "leaf": "leaf.png"}.items():
        (data / f"models/{name}.spm").write_bytes(spm(texture))
    kart = script("spm").Kart(data, table)
    assert kart.licence("models/box.spm") == ("CC-BY-SA-3.0", "2010 Ann; 2011 Bob")
    assert kart.licence("models/other.spm") == ("CC0", "Cid")
    assert kart.licence("models/closed.spm") == kart.licence("models/leaf.spm") == ("", "")
    (box,), (other,) = kart.parts("models/box.spm"), kart.parts("models/other.spm")
    np.testing.assert_allclose(box.vertices, SQUARE)
    np.testing.assert_allclose(box.normals, NORMALS * 511)
    np.testing.assert_array_equal(np.asarray(box.image), stripes[..., :3])
    assert other.image.getcolors() == [(1, (100, 0, 0))]
    with pytest.raises(ValueError, match="SPM"):
        script("spm").read_spm(b"PNG")


def test_only_the_used_part_of_a_texture_is_kept() -> None:
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[:256, 256:] = (0, 0, 250)  # the upper right quarter
    uv, image = script("glb").cropped(UV * 0.4 + 0.55, Image.fromarray(pixels))
    assert image.size == (208, 208)
    assert image.getcolors() == [(208 * 208, (0, 0, 250))]
    assert (uv >= 0).all()
    assert (uv <= 1).all()
    repeated, small = script("glb").cropped(UV * 3, Image.fromarray(pixels))
    np.testing.assert_array_equal(repeated, UV * 3)
    assert small.size == (256, 256)


def test_no_chosen_object_names_a_held_out_concept_or_a_synonym() -> None:
    models = script("models")
    chosen = [item for name in ("objects-0ad.tsv", "objects-stk.tsv") for item in models.read_list(MINI / name)]
    names = {name for item in chosen for name in item.names}
    for file in ("objects.json", "furniture.json"):
        furniture = json.loads((MINI / file).read_text())
        names |= {text for item in furniture for text in (item["name"], *item.get("captions", ()))}
    assert len({item.path for item in chosen}) == len(chosen) > 700
    assert len({item.names[0] for item in chosen}) > 250
    assert [(name, mentions(name, HELD_OUT)) for name in sorted(names) if mentions(name, HELD_OUT)] == []


def test_a_leaf_hides_what_lies_behind_it_and_its_hole_shows_it(tmp_path: Path, scene: OffscreenScene) -> None:
    glb = script("glb")
    holed = np.full((8, 8, 4), (0, 200, 0, 255), np.uint8)
    holed[:, 4:, 3] = 0
    leaf = glb.Part(SQUARE.astype(float), UV.astype(float), FACES, NORMALS.astype(float), Image.fromarray(holed))
    red = np.full((8, 8, 4), (200, 0, 0, 255), np.uint8)
    red[0, 0, 3] = 0  # a leaf too, if nearly whole
    wall = glb.Part(leaf.vertices - [0, 0, 1], leaf.uv, FACES, leaf.normals, Image.fromarray(red))
    for order in ((leaf, wall), (wall, leaf)):
        glb.write_glb(order, tmp_path / "leaf.glb")
        scene.load(tmp_path / "leaf.glb", SourceAsset("leaf", tmp_path / "leaf.glb", "leaf"))
        row = scene.render(LEVEL, 0.0).rgba[16]
        assert sorted({int(pixel[:3].argmax()) for pixel in row[[12, 20]]}) == [0, 1]  # red beside green
        assert (row[[12, 20], 3] == 255).all()


def test_furniture_is_painted_where_it_has_its_main_colour() -> None:
    glb, repaint = script("glb"), script("repaint")
    flat = Image.new("RGB", (2, 2), (90, 60, 30))
    seat = glb.Part(SQUARE * 2.0, UV.astype(float), FACES, NORMALS.astype(float), flat)
    leg = glb.Part(
        SQUARE * 1.0, UV.astype(float), FACES, NORMALS.astype(float), Image.new("RGB", (2, 2), (200, 200, 200))
    )
    blue_seat, same_leg = repaint.painted([seat, leg], repaint.PAINTS["blue"])
    assert blue_seat.image.getpixel((0, 0)) == pytest.approx(repaint.PAINTS["blue"], abs=12)
    assert same_leg is leg
    shades = [glb.Part(leg.vertices, leg.uv, FACES, leg.normals, Image.new("RGB", (2, 2), c)) for c in GAUDY]
    assert repaint.painted(shades, repaint.PAINTS["blue"]) is None


GAUDY = ((250, 0, 0), (0, 250, 0), (0, 0, 250))
EMOJI = """# group: Animals & Nature
# subgroup: animal-mammal
1F40E                  ; fully-qualified     # X E0.6 horse
1F408 200D 2B1B        ; fully-qualified     # X E13.0 black cat
1F43F                  ; unqualified         # X E0.7 chipmunk
# group: Objects
# subgroup: sound
1F4FB                  ; fully-qualified     # X E0.6 radio
# group: People & Body
# subgroup: hand-fingers-open
1F44B 1F3FB            ; fully-qualified     # X E1.0 waving hand: light skin tone
"""


def test_emoji_are_named_things_without_held_out_ones(tmp_path: Path) -> None:
    emoji = script("emoji")
    found = emoji.names(EMOJI)
    assert found == {"1f40e": "horse", "1f408-200d-2b1b": "black cat", "1f4fb": "radio"}
    wanted = emoji.without(found, HELD_OUT)
    assert set(wanted.values()) == {"horse", "black cat"}
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "1f40e.webp")
    first, second = emoji.pictures(tmp_path, wanted, 16, 2, 0)
    assert (first.captions, first.licence) == (("horse", "a horse"), "MIT")
    assert (first.rgb == emoji.BACKGROUND).all()
    assert (second.rgb != emoji.BACKGROUND).any()


def test_an_archive_gives_the_shards_back_nearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = script("archive")
    chair = views(record("chair", passes=(ORBIT, ORBIT), captions=("seat", "a seat", "chair", "a chair")), 32)
    (tmp_path / "things").mkdir()
    write_shard(tmp_path / "things", [chair, views(record("stool"), 32)])
    pixels = np.full((32, 32, 3), (200, 30, 30), np.uint8)
    copies = [CaptionedImage(f"apple-{number}", ("an apple",), pixels, "MIT", "Ann") for number in range(3)]
    write_image_shards(copies, tmp_path / "emoji", 10)
    prior, file, out = write_tiny_prior(tmp_path / "prior"), tmp_path / "data.zip", tmp_path / "out"
    parts = [f"{tmp_path / 'things'}=1", f"{tmp_path / 'emoji'}=2"]
    monkeypatch.setattr(
        sys, "argv", ["archive.py", "pack", str(file), *parts, "--captions", "2", "--prior", str(prior)]
    )
    archive.main()
    monkeypatch.setattr(sys, "argv", ["archive.py", "unpack", str(file), str(out)])
    archive.main()
    first, second = [one for path in shards(out / "things", "train") for one in read_objects(path)]
    assert (first.record.captions, second.record.key) == (("a seat", "a chair"), "stool")
    assert first.record.passes == (ORBIT,)
    alpha = first.rgba[..., 3:] / 255
    assert np.abs(alpha - chair.rgba[:1, ..., 3:] / 255).max() < 0.05
    assert np.abs(alpha * first.rgba[..., :3] - alpha * chair.rgba[:1, ..., :3])[..., :12, :].mean() < 12
    images = [one for path in shards(out / "emoji", "images") for one in read_images(path)]
    assert [(one.key, one.licence, one.captions) for one in images] == [
        (f"apple-{i}", "MIT", ("an apple",)) for i in (0, 1)
    ]
    stored = torch.load(out / "captions.pt", weights_only=True)
    assert stored["captions"] == ["", "a seat", "a chair", "a brown chair", "an apple"]
    length = json.loads((prior / "prior.json").read_text())["text_tokens"]
    states = PromptEncoder(prior, length).encode(stored["captions"], torch.device("cpu"))
    assert torch.nn.functional.cosine_similarity(stored["states"].float().flatten(), states.flatten(), dim=0) > 0.999
