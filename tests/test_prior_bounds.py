"""Prior folders that nobody meant to be read: whatever their files say, one of our errors, in time."""

import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_prior import edit_json, write_json, write_tiny_prior

from dream3d.cameras import orbit
from dream3d.errors import PriorError, UsageError
from dream3d.prior import schema, tokenizer
from dream3d.prior.codec import load_codec, vae_skeleton
from dream3d.prior.folder import read_settings
from dream3d.prior.schedule import load_schedule
from dream3d.prior.schema import read_json
from dream3d.prior.text import PromptEncoder
from dream3d.prior.unet import unet_skeleton
from dream3d.weights.loading import load_prior

ROOT = str(Path(__file__).parent.parent)
SECONDS = 5.0
"""For one refusal, on a busy machine."""
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
TINY_VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
}
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([10**6, 10**9, -(10**9), 10**400, 2**63, 0.0, -1.5, 1e300, float("nan"), float("inf")]),
    st.sampled_from(["", "gelu", "linear", "projection", "a" * 10_000, "\ud800", "DownBlock2D"]),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=4), st.lists(st.lists(SCALARS, max_size=2), max_size=2), st.just({})
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_prior(tmp_path_factory.mktemp("prior") / "tiny")
    write_json(folder / "vae.json", TINY_VAE)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


READERS: dict[str, tuple[str, type | None, schema.Rules, Callable[[Path], object]]] = {
    "settings": ("prior.json", None, schema.SETTINGS, read_settings),
    "scheduler": (
        "scheduler/scheduler_config.json",
        DDIMScheduler,
        schema.SCHEDULE,
        lambda folder: load_schedule(folder / "scheduler/scheduler_config.json"),
    ),
    "unet": ("unet/config.json", UNet2DConditionModel, schema.UNET, lambda folder: unet_skeleton(folder / "unet")),
    "vae": (
        "vae.json",
        AutoencoderKL,
        schema.VAE,
        lambda folder: vae_skeleton(read_json(folder / "vae.json"), folder / "vae.json"),
    ),
    "codec": ("codec/config.json", None, {**schema.PATCH_PCA, "type": schema.YES_NO}, load_codec),
    "text": (
        "text_encoder/config.json",
        None,
        # the last ones are arguments that transformers' configurations check or use in their own ways
        {**schema.BERT, **dict.fromkeys(("model_type", "id2label", "return_dict", "dtype"), schema.YES_NO)},
        lambda folder: PromptEncoder(folder, 6),
    ),
}


@pytest.mark.parametrize("component", READERS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_value_of_any_setting(pristine: Path, component: str, data: st.DataObject) -> None:
    name, kind, rules, read = READERS[component]
    keys = sorted({*rules, *(inspect.signature(kind).parameters if kind else ())})
    path = pristine / name
    before = path.read_bytes()
    config = json.loads(before)
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2)):
        if data.draw(st.integers(0, 9)):
            config[key] = data.draw(VALUES)
        else:
            config.pop(key, None)
    began, said = time.process_time(), ""
    write_json(path, config)
    try:
        read(pristine)
    except PriorError as error:
        said = str(error)
    finally:
        path.write_bytes(before)
    assert len(said.splitlines()) <= 1
    assert len(said) < 1000
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("component", READERS)
def test_what_is_in_no_file_but_fits_the_rules_is_read(pristine: Path, component: str) -> None:
    READERS[component][3](pristine)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("unet/config.json", {"layers_per_block": 20_000}),
        ("unet/config.json", {"attention_head_dim": -1}),
        ("unet/config.json", {"attention_head_dim": [3, 5]}),
        ("unet/config.json", {"norm_num_groups": -4}),
        ("unet/config.json", {"sample_size": 10**9}),
        ("unet/config.json", {"sample_size": 8}),
        ("unet/config.json", {"encoder_hid_dim": 5}),
        ("codec/config.json", {"type": ["patch_pca"]}),
        ("prior.json", {"image_size": 18}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 1}),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, 0.2]}),
        ("scheduler/scheduler_config.json", {"steps_offset": 10**6}),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "sideways"}),
        ("text_encoder/config.json", {"model_type": ["bert"]}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**6}),
    ],
)
def test_settings_that_once_got_through(folder: Path, name: str, changes: dict[str, Any]) -> None:
    began = time.process_time()
    edit_json(folder / name, **changes)
    with pytest.raises(PriorError):
        load_prior(str(folder))
    assert time.process_time() - began < SECONDS


def test_what_libraries_do_not_compute_with_is_ignored(folder: Path) -> None:
    edit_json(folder / "text_encoder/config.json", id2label=7, return_dict=False, chunk_size_feed_forward=3)
    assert load_prior(str(folder)).encode_prompt("a chair", "").conditional.text.shape == (1, 6, 12)


@pytest.mark.parametrize("name", [UNET_FILE, "codec/codec.safetensors", "text_encoder/model.safetensors"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_are_finite(folder: Path, name: str, bad: float) -> None:
    tensors = load_file(folder / name)
    next(iter(tensors.values())).view(-1)[-1] = bad
    save_file(tensors, folder / name)
    with pytest.raises(PriorError, match="not finite"):
        load_prior(str(folder)).encode_prompt("a chair", "")


def test_weights_are_finite_in_the_type_that_computes(folder: Path) -> None:
    from dream3d.prior.memory import plan_for

    tensors = load_file(folder / UNET_FILE)
    tensors["conv_in.bias"][0] = 1e6
    save_file(tensors, folder / UNET_FILE)
    load_prior(str(folder))
    with pytest.raises(PriorError, match=r"torch\.float16 numbers that are not finite"):
        load_prior(str(folder), memory=plan_for(None, "fp16"))


def test_weights_are_numbers_with_a_fraction(folder: Path) -> None:
    tensors = load_file(folder / UNET_FILE)
    tensors["conv_in.bias"] = tensors["conv_in.bias"].long()
    save_file(tensors, folder / UNET_FILE)
    with pytest.raises(PriorError, match=r"'conv_in\.bias' holds I64"):
        load_prior(str(folder))


@pytest.mark.parametrize("name", [UNET_FILE, "codec/codec.safetensors", "text_encoder/model.safetensors"])
def test_a_file_full_of_holes_is_not_mapped(folder: Path, name: str) -> None:
    os.truncate(folder / name, 2**40)
    with pytest.raises(PriorError, match="larger than its configuration"):
        load_prior(str(folder))


def test_no_configuration_asks_for_more_than_the_machine_has(folder: Path) -> None:
    edit_json(folder / "unet/config.json", block_out_channels=[8192, 8192], layers_per_block=4)
    edit_json(folder / "unet/config.json", transformer_layers_per_block=4, attention_head_dim=8)
    began = time.process_time()
    with pytest.raises(PriorError, match=r"asks for|larger|has shape|lacks"):
        load_prior(str(folder))
    assert time.process_time() - began < SECONDS


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(PriorError, match="no file of at most"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e400}', '{"a": -Infinity}', '{"a": 1' + "0" * 5000 + "}"])
def test_numbers_are_finite(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(PriorError, match="not valid JSON"):
        read_json(tmp_path / "config.json")


def test_views_that_are_no_numbers_are_not_returned(folder: Path) -> None:
    from dream3d.prior.sampling import SamplingRecipe, sample_views

    tensors = load_file(folder / UNET_FILE)
    tensors["conv_out.weight"].fill_(1e38)
    save_file(tensors, folder / UNET_FILE)
    prior = load_prior(str(folder))
    with pytest.raises(PriorError, match="colours that are not finite"):
        sample_views(prior, prior.encode_prompt("a chair", ""), orbit(2), SamplingRecipe(steps=2), 0)


def test_python_without_docstrings_is_advised(tmp_path: Path) -> None:
    line = [sys.executable, "-OO", "-m", "dream3d", "views", "a chair"]
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ROOT})
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: Python was told to leave out docstrings")
    assert len(ended.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def change_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer/tokenizer.json"
    data = json.loads(path.read_text())
    change(data)
    write_json(path, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["model"].update(vocab={}),
        lambda data: data["model"]["vocab"].update(house=2**40),
        lambda data: data["model"]["vocab"].update(house=-1),
        lambda data: data["model"].update(vocab=["a", "b"]),
        lambda data: data["model"].update(type="Unigram"),
        lambda data: data["model"].update(unk_token="missing"),
        lambda data: data["model"].update(max_input_chars_per_word=10**9),
        lambda data: data.update(model=None),
        lambda data: data.update(padding={"pad_id": 10**6}),
        lambda data: data.update(added_tokens=[{"id": 10**6, "content": "x"}]),
        lambda data: data.update(added_tokens=7),
        lambda data: data["post_processor"]["special_tokens"]["[SEP]"].update(ids=[10**5]),
        lambda data: data["post_processor"].update(single=[]),
        lambda data: data.update(normalizer={"type": "Nothing"}),
    ],
)
def test_tokenizers_that_cannot_be(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    change_tokenizer(folder, change)
    with pytest.raises(PriorError, match=r"tokenizer\.json"):
        load_prior(str(folder))


@pytest.mark.parametrize(
    ("trial", "says"), [("import os; os.abort()", "ended with -6"), ("input(); input()", "at it for")]
)
def test_a_tokenizer_that_aborts_or_hangs_costs_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trial: str, says: str
) -> None:
    monkeypatch.setattr(tokenizer, "_TRIAL", trial if "input" not in trial else "import signal; signal.pause()")
    monkeypatch.setattr(tokenizer, "TRIAL_SECONDS", 0.5 if "input" in trial else 60.0)
    tokenizer._tried.cache_clear()
    with pytest.raises(PriorError, match=says):
        load_prior(str(folder))
    tokenizer._tried.cache_clear()


def test_a_tokenizer_is_tried_once_and_the_built_in_one_never(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_prior(str(folder))
    monkeypatch.setattr(tokenizer, "_TRIAL", "raise SystemExit(3)")
    load_prior(str(folder))
    load_prior("mini")


def test_texts_have_an_end(folder: Path) -> None:
    prior = load_prior(str(folder))
    with pytest.raises(UsageError, match="a text of 15000 characters"):
        prior.encode_prompt("a" * 15_000, "")
    assert prior.text_cut("a red chair " * 10_000) == len("a red chair a")


def test_a_name_that_is_no_path(tmp_path: Path) -> None:
    for name in ("a" * 5000, "a\0b", str(tmp_path / ("b" * 300))):
        with pytest.raises(PriorError, match="unknown prior"):
            load_prior(name)
