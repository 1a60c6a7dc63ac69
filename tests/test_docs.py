"""The documentation is executed: each document's commands and Python, in order, in a folder of its own.

What costs minutes is cut by replacing values of the product: steps, sizes, the number of objects. The words of the
commands stay as they are printed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import importlib.util
import json
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from document_inputs import INPUTS, NEEDS_DATA
from documents import (
    ROOT,
    Block,
    anchors_of,
    blocks_of,
    check_setup,
    inline_commands,
    links_of,
    mentioned_files,
    parse,
    refusal,
)
from typer.testing import CliRunner

import dream3d.dataset.procedural.make as making
import dream3d.evaluation.encoders as encoders
import dream3d.personalise.recipe as personal
import dream3d.prior.sampling as sampling
import dream3d.training.recipe as training
import dream3d.weights.catalogue as catalogue
from dream3d import finish
from dream3d.cli.app import app
from dream3d.mesh.shading import write_turntable
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.layout import PACKAGED
from dream3d.recipe import overrides
from dream3d.recipe.generation import Recipe
from dream3d.recipe.overrides import Overrides
from dream3d.recipe.presets import PRESETS
from dream3d.recipe.refinement import TextureRefinement

NETWORK = {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": [1, 2],
}
DEFAULTS = {
    "train-encoder": {"steps": 2, "batch": 2},
    "dataset": {"render": {"passes": 1, "azimuths": 4}},
}
"""Of options that a document does not name."""


EXACT = ("docs/method.md",)
"""Documents whose Python looks at the presets as they are."""


def documents() -> list[str]:
    """Every Markdown file of the repository."""
    tops = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in tops)


def cheap(preset: Recipe) -> Recipe:
    """A recipe with the parts of another one, in two tiny steps."""
    stages = tuple(dataclasses.replace(stage, from_step=i, resolution=8) for i, stage in enumerate(preset.stages))
    return dataclasses.replace(
        preset.with_steps(2),
        targets=tuple(dataclasses.replace(one, from_step=i, denoise_steps=1) for i, one in enumerate(preset.targets)),
        stages=stages,
        field=dataclasses.replace(preset.field, levels=2, log2_entries=10, hidden_width=8),
        render=dataclasses.replace(preset.render, samples_per_diagonal=12, occupancy_resolution=8),
        mesh=dataclasses.replace(preset.mesh, resolution=12, texture=min(preset.mesh.texture, 64)),
    )


@pytest.fixture(scope="module")
def small_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built-in prior, but a small network of random weights."""
    priors = tmp_path_factory.mktemp("priors")
    shutil.copytree(PACKAGED / "mini", priors / "mini", ignore=shutil.ignore_patterns("unet"))
    arguments = json.loads((PACKAGED / "mini/unet/config.json").read_text("utf-8")) | NETWORK
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**{name: value for name, value in arguments.items() if not name.startswith("_")})
    unet.save_pretrained(priors / "mini" / "unet")
    return priors


@pytest.fixture
def cut_costs(small_prior: Path, monkeypatch: pytest.MonkeyPatch, forked_workers: None) -> None:
    """Everything that takes long takes little, with the product's own code."""
    apply_to, build, make = Overrides.apply_to, sampling.build_scheduler, making.make_assets
    read = training.read_recipe
    monkeypatch.setitem(PRESETS, "mini", cheap(PRESETS["mini"]))
    monkeypatch.setattr(Overrides, "apply_to", lambda self, recommended: cheap(apply_to(self, recommended)))
    monkeypatch.setattr(sampling, "build_scheduler", lambda trained, name, steps: build(trained, name, min(steps, 2)))
    monkeypatch.setattr(making, "make_assets", lambda out, count, *rest: make(out, min(count, 3), *rest))
    monkeypatch.setattr(training, "read_recipe", lambda path, changes=(): small(read(path, changes)))
    for method in ("full", "lora"):
        monkeypatch.setitem(personal.DEFAULTS, ("mini", method), {"steps": 2, "batch": 1, "keep_sets": 1})
    monkeypatch.setattr(catalogue, "PACKAGED", small_prior)
    monkeypatch.setattr(encoders, "is_installed", lambda: False)
    quickly = partial(TextureRefinement, updates=2, denoise_steps=1)
    monkeypatch.setattr(overrides, "TextureRefinement", quickly)
    monkeypatch.setattr(finish, "SILHOUETTE_SIZE", 16)
    monkeypatch.setattr(finish, "PREVIEW_SIZE", 16)
    monkeypatch.setattr(write_turntable, "__kwdefaults__", {"frames": 2, "size": 32})


def small(settings: training.TrainingRecipe) -> training.TrainingRecipe:
    """Two steps of a tiny network."""
    batch = dataclasses.replace(settings.batch, objects=1, images=2)
    every = training.EveryRecipe(checkpoint=0, samples=0, heldout=0)
    optimizer = dataclasses.replace(settings.optimizer, cosine=0)
    return dataclasses.replace(settings, steps=2, batch=batch, every=every, optimizer=optimizer, network=NETWORK)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered shards with a held-out object."""
    here = tmp_path_factory.mktemp("shards")
    making.make_assets(here / "models", 5, 3, ("chess-pawn", "apple", "chair", "mug", "house"))
    call(["dataset", "render", str(here / "models"), "--out", str(here / "data"), "--passes", "1", "--heldout", "0.4"])
    return here / "data"


def call(words: list[str], code: int = 0) -> None:
    """Run a command line in this process."""
    result = CliRunner().invoke(app, words, default_map=DEFAULTS)
    assert result.exit_code == code, f"dream3d {shlex.join(words)}: exit code {result.exit_code}\n{result.output}"


@contextlib.contextmanager
def interrupted(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C in the first step, heard even in a background job, which ignores it."""
    predict = DiffusionPrior.predict_x0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def predict_and_stop(self: DiffusionPrior, *args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return predict(self, *args)

    with patch.context() as during:
        during.setattr(DiffusionPrior, "predict_x0", predict_and_stop)
        yield
    signal.signal(signal.SIGINT, before)


def expanded(words: list[str]) -> list[str]:
    """As a shell does: ``*`` stands for the files there are."""
    return [name for word in words for name in (sorted(glob.glob(word)) or [word])]


def run_block(block: Block, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    """Do what a reader would do with a block."""
    if "file" in block.marks:
        Path(block.marks["file"]).write_text(block.text, "utf-8")
    elif block.language == "python":
        exec(compile("\n" * block.line + block.text, block.document.name, "exec"), names)
    elif block.language == "toml":
        raise AssertionError(f"{block.where}: say with <!-- file: NAME --> where this goes")
    elif block.language == "sh":
        for words in block.commands():
            run_command(words, block, patch)


def run_command(words: list[str], block: Block, patch: pytest.MonkeyPatch) -> None:
    """Run a command of dream3d, or parse it if its block is not run; check any other."""
    if words[0] == "dream3d" and "not run" in block.marks:
        parse(words)
    elif words[0] == "dream3d" and "stopped by Ctrl-C" in block.marks:
        with interrupted(patch):
            call(expanded(words[1:]), code=130)
    elif words[0] == "dream3d":
        call(expanded(words[1:]))
    elif "not run" not in block.marks:
        check_setup(words, block.where)


def run_document(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Run every block in order; names of Python blocks stay for the next."""
    names: dict[str, Any] = {"__name__": "__docs__"}
    for block in blocks_of(path):
        run_block(block, names, patch)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(INPUTS))
def test_document_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name not in EXACT:
        request.getfixturevalue("cut_costs")
    monkeypatch.setenv("DREAM3D_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for prepare in INPUTS[name]:
        prepare(here)
    if name in NEEDS_DATA:
        shutil.copytree(request.getfixturevalue("shards"), here / "data")
    run_document(ROOT / name, monkeypatch)


def test_every_document_is_here() -> None:
    assert documents() == sorted(INPUTS)


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_links_lead_somewhere(name: str) -> None:
    check_links(ROOT / name)


def check_links(document: Path) -> None:
    """Links to files and headings."""
    for target in links_of(document):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        assert path.exists(), f"{document.name}: {target} does not exist"
        if anchor and path.suffix == ".md":
            assert anchor in anchors_of(path), f"{document.name}: {file} has no heading {anchor}"


@pytest.mark.parametrize("name", sorted(set(INPUTS) - {"CHANGELOG.md"}))
def test_files_and_commands_in_the_text_exist(name: str) -> None:
    check_mentions(ROOT / name)


def check_mentions(document: Path) -> None:
    """Files of the code, and commands of dream3d with their options; a command may lack its arguments here."""
    for file in mentioned_files(document):
        places = (ROOT / file, ROOT / "dream3d" / file, document.parent / file)
        of_the_code = file.endswith(".py") or document.name in ("CONTRIBUTING.md", "design.md")
        known = not of_the_code or any(place.exists() for place in places)
        assert known, f"{document.name} names {file}, which does not exist"
    for words in inline_commands(document):
        problem = refusal(words)
        assert "No such" not in problem, f"{document.name}: {shlex.join(words)}: {problem}"


def test_the_floors_are_those_of_the_contract() -> None:
    layers = (ROOT / "pyproject.toml").read_text("utf-8").partition("layers = [")[2].partition("]")[0]
    floors = [block for block in blocks_of(ROOT / "docs/design.md") if " cli " in block.text]
    drawn = [re.split(r"  +", line)[0].strip() for line in floors[0].text.splitlines() if line[1] != " "]
    assert drawn == re.findall(r'"(.+)"', layers)


def test_the_index_lists_every_page() -> None:
    pages = {f"{path.name}" for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= {target.partition("#")[0] for target in links_of(ROOT / "docs/index.md")}


def test_citations_in_the_code_lead_to_pages_and_sections() -> None:
    sections = anchors_of(ROOT / "docs/method.md")
    for path in sorted((ROOT / "dream3d").rglob("*.py")):
        text = " ".join(path.read_text("utf-8").split())
        for page, cited in re.findall(r"docs/([\w-]+)\.md(?:, ([A-Z][\w -]*\w))?", text):
            assert (ROOT / f"docs/{page}.md").is_file(), f"{path.name} cites docs/{page}.md"
            names = [name.lower().replace(" ", "-") for name in (cited, *cited.split(" and "))]
            known = page != "method" or not cited or names[0] in sections or set(names[1:]) <= sections
            assert known, f"{path.name} cites docs/method.md, {cited}"


def test_the_readme_counts_what_the_prior_knows() -> None:
    names = json.loads((PACKAGED / "mini/prior.json").read_text("utf-8"))["names"]
    assert f"**{len(names)} things**" in (ROOT / "README.md").read_text("utf-8")
    assert f"The {len(names)} `names`" in (ROOT / "docs/mini.md").read_text("utf-8")


def test_the_new_names_in_the_changelog_exist() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 30
    for _, new in rows:
        for module in re.findall(r"`([\w.]+)`", new):
            assert importlib.util.find_spec(f"dream3d.{module}"), f"CHANGELOG.md names dream3d.{module}"


BROKEN = {
    "an unknown option": "```sh\ndream3d views chair --colour red\n```",
    "an unknown option that is not run": "<!-- not run: no GPU -->\n```sh\ndream3d views chair --colour red\n```",
    "an unknown command": "<!-- not run: no GPU -->\n```sh\ndream3d fly chair\n```",
    "a refused value": "```sh\ndream3d generate chair --out chair.doc\n```",
    "a command that fails": "```sh\ndream3d resume runs/nothing\n```",
    "an unknown extra": "```sh\npip install -e '.[everything]'\n```",
    "an unknown script": "```sh\npython examples/none.py\n```",
    "an unknown option of a script": "```sh\npython examples/soak.py --colour\n```",
    "another program": "```sh\ncurl https://example.org\n```",
    "two commands on a line": "```sh\ncd x && dream3d doctor\n```",
    "Python that fails": "```python\nfrom dream3d.recipe import nothing\n```",
    "an unmarked file": "```toml\nsteps = 1\n```",
    "no language": "```\ndream3d doctor\n```",
    "an unknown language": "```perl\nprint\n```",
    "an indented block": "text\n\n    dream3d doctor",
    "commands as plain text": "```text\ndream3d doctor --fast\n```",
    "an unknown mark": "<!-- skip: why not -->\n```sh\ndream3d doctor\n```",
    "a lost link": "[there](nowhere.md)",
    "a lost heading": "[there](#nowhere)",
    "a lost picture": "![it](images/none.png)",
    "a lost module": "`dream3d/pictures.py`",
    "an unknown option in the text": "`dream3d doctor --colour`",
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_document_fails(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = tmp_path / "page.md"
    document.write_text(f"# Page\n\n{BROKEN[name]}\n", "utf-8")
    with pytest.raises((AssertionError, ImportError)):
        check(document, monkeypatch)


def test_a_sound_document_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = tmp_path / "page.md"
    document.write_text("# Page\n\n[up](#page) `dream3d resume`\n\n```python\nassert 1\n```\n", "utf-8")
    check(document, monkeypatch)


def check(document: Path, patch: pytest.MonkeyPatch) -> None:
    """Everything that is asked of a document."""
    run_document(document, patch)
    check_links(document)
    check_mentions(document)
