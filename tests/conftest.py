"""What every test shares: no network, one thread per process, reproducible examples, and a pretend engine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before torch is imported: test workers with a thread per core each would fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test may reach for a model hub; a test that tries fails at once instead of waiting.
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import pytest
from weight_server import WeightServer, serving

from dream3d.errors import PriorError

hypothesis.settings.register_profile("dream3d", deadline=None, derandomize=True)
hypothesis.settings.load_profile("dream3d")


def pytest_configure(config: pytest.Config) -> None:
    """Several workers take the files in the order of the collection, not those with the most tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end no worker waits for another that has just begun a long one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


class FakePrior:
    """A prior with no weights, whose text encoder reads 80 characters."""

    name = recommended_preset = "mini"

    def text_cut(self, prompt: str) -> int | None:
        return 80 if len(prompt) > 80 else None

    def unfamiliar(self, prompt: str) -> Any:
        from dream3d.prior.vocabulary import Unfamiliar

        return Unfamiliar(prompt, ("chair", "table")) if "dragon" in prompt else None


def load_fake_prior(name: str, device: str = "cpu", memory: object = None) -> FakePrior:
    if name != "mini":
        raise PriorError(f"unknown prior {name!r}; known: mini")
    return FakePrior()


@dataclass
class FakeEngine:
    """Stands in for ``dream3d.generate.generate``, and remembers how it was called."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    failure: BaseException | None = None

    def generate(self, prompt: str, **request: Any) -> Any:
        from dream3d.run.progress import Outcome, Progress

        self.calls.append({"prompt": prompt, **request})
        observer = request["observer"]
        observer(Progress("prepare", 1, 1, message="a fallback was taken"))
        for step in range(21):
            observer(Progress("optimise", step, 20, 0.5, (20, 900), 0.125))
            if self.failure is not None:
                raise self.failure
        return Outcome(request["out"], request["run_dir"], 1234, 5678, 10.0, 1.5, 1_400_000_000, 0.98, 0.01, 0.0, None)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    """The pretend engine in place of the real one, in an empty current folder."""
    fake = FakeEngine()
    monkeypatch.setattr("dream3d.weights.loading.load_prior", load_fake_prior)
    monkeypatch.setattr("dream3d.weights.loading.prompt_cut", lambda name, text: load_fake_prior(name).text_cut(text))
    monkeypatch.setattr("dream3d.generate.generate", fake.generate)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are forked: they begin at once, and have what a test has replaced."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: fork)


@pytest.fixture
def server() -> Iterator[WeightServer]:
    """A web server of this machine that a test fills."""
    with serving() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a downloaded file goes; its folder is not there yet."""
    return tmp_path / "sub" / "weights.pt"
