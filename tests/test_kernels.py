"""Which implementation of an operation is used: the first that works, with the reasons against the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dream3d.kernels.choose import Candidate, Operation, choose
from dream3d.kernels.operations import OPERATIONS, report


def broken(device: str) -> None:
    raise OSError("Unknown compute capability\nsecond line")


def works(device: str) -> None:
    """A test that passes."""


REFERENCE = Candidate[Callable[[int], int]]("torch", lambda x: x + 1)


def operation(*candidates: Candidate[Callable[[int], int]]) -> Operation[Callable[[int], int]]:
    return Operation("adding one", (*candidates, REFERENCE))


def test_every_operation_reports_what_it_runs_on_and_why() -> None:
    choices = report("cpu")
    assert [choice.operation for choice in choices] == ["hash grid", "ray marching", "compositing"]
    assert [choice.name for choice in choices] == ["numba", "numba", "torch"]
    assert all("CUDA" in choice.reason for choice in choices)


def test_every_operation_ends_with_a_reference_that_needs_no_test() -> None:
    for one in OPERATIONS:
        assert (one.candidates[-1].name, one.candidates[-1].probe) == ("torch", None)


def test_a_broken_accelerator_falls_back_with_its_error() -> None:
    choice = choose(operation(Candidate("tiny-cuda-nn", lambda x: x + 1, broken)), "cuda")
    assert choice.name == "torch"
    assert choice.reason == "tiny-cuda-nn is not usable here: OSError: Unknown compute capability"
    assert choice.implementation(1) == 2


def test_the_first_candidate_that_works_is_taken() -> None:
    candidates = (Candidate("slow", lambda x: 0, broken), Candidate("fast", lambda x: x + 1, works))
    choice = choose(operation(*candidates), "cuda")
    assert choice.name == "fast"
    assert choice.reason.startswith("slow is not usable here")
    assert choose(operation(candidates[1]), "cuda").reason == "fast passed a test with gradients here"


def test_without_a_reference_that_is_an_error() -> None:
    with pytest.raises(LookupError, match="no implementation of adding one works on cpu: fast runs on CUDA only"):
        choose(Operation("adding one", (Candidate("fast", lambda x: x, works),)), "cpu")


def test_one_for_the_cpu_is_not_tried_elsewhere() -> None:
    choice = choose(operation(Candidate("compiled", lambda x: x + 1, broken, "cpu")), "cuda")
    assert choice.reason == "compiled runs on CPU only and the device is cuda"
