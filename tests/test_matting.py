"""Cutting subjects out by Segment Anything: a tiny one of random weights, and what becomes of its masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny_prior import edit_json
from transformers import SamConfig, SamModel

from dream3d.errors import PriorError
from dream3d.personalise.matting import MEAN, STD, SegmentAnything, _best
from dream3d.personalise.subject import square_subject

SIDE = 32
VISION = {
    "hidden_size": 16,
    "output_channels": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "window_size": 2,
    "global_attn_indexes": [0],
    "num_pos_feats": 8,
    "mlp_dim": 16,
}
PROMPT = {"hidden_size": 16, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 16}
DECODER = {
    "hidden_size": 16,
    "mlp_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
}
TWIN = "prompt_encoder.shared_embedding.positional_embedding"
SCENE: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (24, 48, 3), dtype=np.uint8)
"""No plain background."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sam") / "tiny-sam"
    folder.mkdir()
    torch.manual_seed(0)
    parts = {"vision_config": VISION, "prompt_encoder_config": PROMPT, "mask_decoder_config": DECODER}
    model = SamModel(SamConfig(**parts))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    (folder / "config.json").write_text(json.dumps({"model_type": "sam", **parts}))
    tensors = {name: value.contiguous() for name, value in model.state_dict().items() if name != TWIN}
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_it_is_the_network_of_the_file_whichever_name_the_shared_tensor_has(tiny: Path, tmp_path: Path) -> None:
    shared = "shared_image_embedding.positional_embedding"
    one: Any = SegmentAnything(tiny)
    tensors = load_file(tiny / "model.safetensors")
    shutil.copytree(tiny, tmp_path / "both")
    save_file({**tensors, TWIN: tensors[shared].clone()}, tmp_path / "both" / "model.safetensors")
    other: Any = SegmentAnything(tmp_path / "both")
    for loaded in (one, other):
        state = loaded._model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in tensors.items())
        assert torch.equal(state[TWIN], tensors[shared])
    alpha, again = one(SCENE), other(SCENE)
    assert (alpha is None) == (again is None)
    if alpha is not None:
        np.testing.assert_array_equal(alpha, again)


def test_the_network_sees_the_picture_whole_and_is_asked_for_its_middle(tiny: Path) -> None:
    asked: list[dict[str, torch.Tensor]] = []
    masks = torch.full((1, 1, 3, 8, 8), -9.0)
    masks[0, 0, 1, :4, 2:6] = 9.0  # of a picture twice as wide as high: its whole height, and the middle half

    def network(**inputs: torch.Tensor) -> SimpleNamespace:
        asked.append(inputs)
        return SimpleNamespace(pred_masks=masks, iou_scores=torch.tensor([[[0.9, 0.5, 0.7]]]))

    cut: Any = SegmentAnything(tiny)
    cut._model = network
    alpha = cut(SCENE)
    (seen,) = asked
    assert seen["pixel_values"].shape == (1, 3, SIDE, SIDE)
    assert float(seen["pixel_values"][..., 16:, :].abs().max()) == 0  # padded below
    mean = torch.tensor(SCENE.reshape(-1, 3).mean(0) / 255)
    shown = seen["pixel_values"][0, :, :16].mean((1, 2)) * torch.tensor(STD) + torch.tensor(MEAN)
    torch.testing.assert_close(shown.double(), mean, atol=0.01, rtol=0)
    assert seen["input_points"].flatten().tolist() == [16, 8]
    assert seen["input_boxes"].flatten().tolist() == pytest.approx([1.6, 0.8, 30.4, 15.2])
    assert alpha.shape == (24, 48)
    assert alpha[12, 24] > 0.99 > 0.01 > alpha[12, 2]
    assert alpha.mean() == pytest.approx(0.5, abs=0.05)


def test_of_several_masks_the_surest_that_can_be_a_subject_is_taken() -> None:
    masks = torch.zeros(3, 10, 10)
    masks[0] = 1  # all of the picture
    masks[1, :5] = 1
    masks[2, :, :3] = 1
    best = _best(masks, torch.tensor([0.99, 0.6, 0.8]))
    assert best is not None
    np.testing.assert_array_equal(best, masks[2].numpy())
    assert _best(masks[:1], torch.tensor([0.9])) is None


def test_a_mask_is_asked_for_where_the_background_is_not_plain() -> None:
    alpha = np.zeros((24, 48), np.float32)
    alpha[4:20, 10:26] = 1
    opaque = np.dstack([SCENE, np.full((24, 48), 255, np.uint8)])
    blue = (0.0, 0.0, 1.0)
    cut = square_subject(opaque, 16, blue, lambda rgb: alpha)
    assert cut.found == "cut out"
    assert cut.rgb[0, 0].tolist() == [0, 0, 255]
    assert cut.rgb[8, 8].tolist() != [0, 0, 255]
    assert square_subject(opaque, 16, blue, lambda rgb: None).found == "whole picture"
    assert square_subject(opaque, 16, blue).found == "whole picture"
    plain = np.full((24, 24, 4), 255, np.uint8)
    plain[6:18, 6:18, :3] = 40
    assert square_subject(plain, 16, blue, lambda rgb: pytest.fail("not needed")).found == "plain background"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "birefnet"}, "of type 'birefnet'; only Segment Anything is read"),
        ({"vision_config": 3}, "'vision_config' is no table"),
        ({"vision_config": {**VISION, "hidden_size": 10**9}}, "'hidden_size' is 1000000000"),
        ({"vision_config": {**VISION, "hidden_size": 24}}, "has shape"),
    ],
)
def test_other_models_and_damaged_ones_are_refused(
    tiny: Path, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    edit_json(folder / "config.json", **change)
    with pytest.raises(PriorError, match=told):
        SegmentAnything(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(PriorError, match=r"lacks model\.safetensors"):
        SegmentAnything(folder)
