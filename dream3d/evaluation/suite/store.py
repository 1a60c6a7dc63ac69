"""Results on the disk, each a file that appears whole: what was computed once is never computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dream3d.errors import UsageError, one_line
from dream3d.files import json_table, parse_json, read_regular, write_atomically, write_json
from dream3d.names import slug

VERSION = 1
"""Of what a result holds and how it is computed: a change makes all results anew."""
FORMAT = f"dream3d evaluation {VERSION}"
RESULTS = "results"
RECORD, PAGE = "evaluation.json", "evaluation.html"
MAX_PICTURED = 100
"""Prompts whose pictures are kept in memory, and shown on the page; figures are of all."""
MAX_RESULT_BYTES = 2**28
MAX_RECORD_BYTES = 2**28
NEEDED = ("views", "vectors", "text")
ALWAYS = ("text_image", "view_agreement", "consistency", "janus")
"""Figures that every answer has."""


@dataclass(frozen=True, eq=False)
class Result:
    """What was found out about one subject's answer to one case."""

    prompt: str
    seed: int
    figures: Mapping[str, float]
    """Of this answer alone, by their names."""
    views: Tensor
    """(V, 3, S, S) uint8."""
    vectors: Tensor
    """(V, D) of the views, length 1."""
    text: Tensor
    """(D,) of the prompt, length 1."""
    features: Tensor
    """(V, F) of the classifier; (V, 0) without one."""
    probabilities: Tensor
    """(V, C) of the classifier; (V, 0) without one."""
    failure: str = ""
    """Why there is no answer, although there should be one: a damaged model. Nothing else holds then."""


@dataclass
class ResultStore:
    """A folder of results. Whoever uses it holds its lock."""

    folder: Path
    computed: int = 0
    """Results that were written here and now."""

    def path(self, parts: Sequence[str], prompt: str, seed: int) -> Path:
        """Where the result goes that depends on ``parts``."""
        digest = hashlib.sha256(json.dumps([VERSION, *parts, prompt, seed]).encode()).hexdigest()
        return self.folder / RESULTS / f"{slug(prompt, 40)}-{seed}-{digest[:24]}.safetensors"

    def find(self, path: Path) -> Result | None:
        """The result of a file; None if it is not there or cannot be used, so that it is made anew."""
        try:
            if not path.is_file() or path.stat().st_size > MAX_RESULT_BYTES:
                return None
            with safe_open(path, framework="pt") as file:
                facts = parse_json((file.metadata() or {})["result"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _checked(facts, tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def keep(self, path: Path, result: Result) -> None:
        """Write a result, whole or not at all."""
        facts = {
            "prompt": result.prompt,
            "seed": result.seed,
            "figures": dict(result.figures),
            "failure": result.failure,
        }
        tensors = {name: getattr(result, name).contiguous() for name in (*NEEDED, "features", "probabilities")}
        metadata = {"result": json.dumps(facts)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))
        self.computed += 1


def _checked(facts: object, tensors: Mapping[str, Tensor]) -> Result:
    """A result made of parts that anybody could have written; ValueError, KeyError or TypeError if they do not fit."""
    if not isinstance(facts, dict) or not isinstance(facts["figures"], dict):
        raise TypeError("no table")
    figures = {str(name): float(value) for name, value in facts["figures"].items()}
    result = Result(
        str(facts["prompt"]), int(facts["seed"]), figures, **dict(tensors), failure=str(facts.get("failure", ""))
    )
    count = len(result.views)
    matching = (result.vectors, result.features, result.probabilities)
    if result.views.dtype != torch.uint8 or result.views.dim() != 4 or any(len(one) != count for one in matching):
        raise ValueError("parts that do not belong together")
    if not result.failure and (not figures.keys() >= set(ALWAYS) or result.vectors.shape[1:] != result.text.shape):
        raise ValueError("parts are missing")
    if not all(bool(torch.isfinite(one).all()) for one in (*matching, result.text)):
        raise ValueError("numbers that are not finite")
    return result


def failed(prompt: str, seed: int, reason: str) -> Result:
    """The result of an answer that should be there and cannot be used."""
    nothing = torch.zeros(0, 0)
    views = torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
    return Result(prompt, seed, {}, views, nothing, torch.zeros(0), nothing, nothing, one_line(reason, 200))


def claim_folder(folder: Path) -> None:
    """Make the folder of an evaluation, or go on with one. UsageError for a folder with other things in it."""
    record = folder / RECORD
    if not folder.is_dir() or not any(one for one in folder.iterdir() if not one.name.startswith(".")):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(record, {"format": FORMAT, "status": "running"})  # before all else: it says whose folder this is
    try:
        found = json_table(read_regular(record, MAX_RECORD_BYTES), record, UsageError).get("format", "")
    except OSError:
        found = ""
    if not str(found).startswith("dream3d evaluation "):
        raise UsageError(f"{folder} holds other files than an evaluation's; choose another --out-dir")
    (folder / RESULTS).mkdir(exist_ok=True)
