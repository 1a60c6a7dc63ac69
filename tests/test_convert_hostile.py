"""Weights of every odd kind: read rightly where they are legal, and refused in one line, early, where they are not."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from official_checkpoint import UNET_PREFIX, Official, make_official
from safetensors.torch import load_file
from torch import Tensor, nn

from dream3d.errors import PriorError
from dream3d.prior.official import tensors
from dream3d.prior.official.convert import convert, detect
from dream3d.prior.official.tensors import open_tensors

OUT_BIAS = UNET_PREFIX + "out.0.bias"


@pytest.fixture(scope="module")
def official() -> Official:
    return make_official()


def line_of(source: Path, tmp_path: Path) -> str:
    with pytest.raises(PriorError) as caught:
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


WANTED = torch.linspace(-1, 1, 64).bfloat16().float()
LEGAL: dict[str, Tensor] = {
    "a parameter": nn.Parameter(WANTED.clone()),
    "float64": WANTED.double(),
    "bfloat16": WANTED.bfloat16(),
    "not contiguous": torch.stack([WANTED, -WANTED], 1)[:, 0],
    "a part of a larger one": torch.cat([-WANTED, WANTED])[64:],
    "negated lazily": torch._neg_view(-WANTED),
}


def test_legal_tensors_keep_their_values(official: Official, tmp_path: Path) -> None:
    """Each in the place of a bias of the UNet's last group norm's width."""
    places = [name for name, value in official.state.items() if name.startswith(UNET_PREFIX) and value.shape == (64,)]
    torch.save(official.state | dict(zip(places, LEGAL.values(), strict=False)), tmp_path / "model.pt")
    opened = open_tensors(tmp_path / "model.pt")
    assert len(places) >= len(LEGAL)
    assert all(torch.equal(opened[name].detach().float(), WANTED) for name in places[: len(LEGAL)])
    folder = convert(tmp_path / "model.pt", tmp_path / "out", "fp32")
    written = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    assert sum(value.shape == (64,) and torch.equal(value, WANTED) for value in written.values()) == len(LEGAL)


ILLEGAL: dict[str, tuple[Any, str]] = {
    "meta": (lambda: torch.empty(64, device="meta"), "a Tensor on meta, which is no weight tensor"),
    "meta parameter": (lambda: nn.Parameter(torch.empty(64, device="meta")), "on meta, which is no weight tensor"),
    "sparse": (lambda: WANTED.to_sparse(), "which is no weight tensor"),
    "nested": (lambda: torch.nested.nested_tensor([WANTED, WANTED]), "which is no weight tensor"),
    "quantised": (lambda: torch.quantize_per_tensor(WANTED, 0.1, 0, torch.qint8), "which is no weight tensor"),
    "complex": (lambda: WANTED.to(torch.complex64), "holds torch.complex64"),
    "boolean": (lambda: WANTED > 0, "holds torch.bool"),
    "NaN": (lambda: torch.full((64,), float("nan")), "no finite torch.float16"),
    "zero size": (lambda: torch.empty(0), "has shape (0,), the others need (64,)"),
    "a number": (lambda: 1.5, "a float, which is no weight tensor"),
    "overlapping": (lambda: torch.ones(1).expand(10**9), "claims 4"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_tensors_are_refused(official: Official, tmp_path: Path, name: str) -> None:
    make, reason = ILLEGAL[name]
    torch.save(official.state | {OUT_BIAS: make()}, tmp_path / "model.pt")
    assert reason in line_of(tmp_path / "model.pt", tmp_path)


def safetensors(header: str | dict[str, Any], data: bytes) -> bytes:
    packed = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(packed)) + packed + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


TWO = '{"w": %s, "w": %s}' % ((json.dumps(entry(0, 8, [2])),) * 2)
HEADERS: dict[str, bytes] = {
    "overlap": safetensors({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
    "hole": safetensors({"a": entry(0, 8, [2]), "b": entry(12, 20, [2])}, bytes(20)),
    "too short": safetensors({"a": entry(0, 80, [20])}, bytes(40)),
    "too long": safetensors({"a": entry(0, 8, [2])}, bytes(40)),
    "huge shape": safetensors({"a": entry(0, 8, [2**40, 2**40])}, bytes(8)),
    "wrapped shape": safetensors({"a": entry(0, 8, [2**62, 4])}, bytes(8)),
    "negative": safetensors({"a": entry(0, 8, [-2])}, bytes(8)),
    "backwards": safetensors({"a": entry(8, 0, [2])}, bytes(8)),
    "unknown type": safetensors({"a": entry(0, 8, [2], "F33")}, bytes(8)),
    "no list": safetensors({"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}, bytes(8)),
    "huge header": struct.pack("<Q", 2**60) + b"{}",
    "header of lies": struct.pack("<Q", 10**6) + b"{}",
    "deep": safetensors("{" + '"a":{' * 5000, b""),
    "half a character": safetensors('{"\\ud800": 1}', b""),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(HEADERS[name])
    assert "model.safetensors" in line_of(tmp_path / "model.safetensors", tmp_path)


def test_a_tensor_that_is_named_twice_is_one(tmp_path: Path) -> None:
    """The library takes the last one; then the file is too long, or the tensor unknown: refused in either case."""
    (tmp_path / "model.safetensors").write_bytes(safetensors(TWO, bytes(8)))
    assert "unknown tensor 'w'" in line_of(tmp_path / "model.safetensors", tmp_path)


def test_a_file_of_holes_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    for name, head in (("a.pt", b"PK\x03\x04"), ("a.safetensors", safetensors({"a": entry(0, 2**42, [2**40])}, b""))):
        (tmp_path / name).write_bytes(head)
        os.truncate(tmp_path / name, tensors.MAX_FILE_BYTES + 1)
        assert "bytes, more than" in line_of(tmp_path / name, tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    for name in ("pipe.pt", "loop.pt", "none.pt"):
        with pytest.raises(PriorError, match="is neither a file nor a folder"):
            detect(tmp_path / name)


def test_a_tensor_that_cannot_be_read_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: Official
) -> None:
    torch.save(official.state, tmp_path / "model.pt")

    def fail(name: str) -> Tensor:
        raise RuntimeError("first line\nsecond line")

    whole = open_tensors(tmp_path / "model.pt")
    broken = tensors.Tensors(whole.path, whole.shapes, fail, whole.full_names)
    monkeypatch.setattr("dream3d.prior.official.components.open_tensors", lambda path: broken)
    assert "cannot be read (first line); download it again" in line_of(tmp_path / "model.pt", tmp_path)
