"""From the words of ``dream3d evaluate`` to what is evaluated: priors, assets, prompts, held-out objects, judges."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream3d.cli.evaluate_pictures import PICTURES, SUFFIXES, Search, as_tensor, search_in, shared_out
from dream3d.errors import UsageError
from dream3d.retrieval.gathering import PictureOptions

if TYPE_CHECKING:
    from dream3d.evaluation.catalogue import JudgeFolder
    from dream3d.evaluation.suite.cases import Case, Color, Protocol
    from dream3d.evaluation.suite.measure import Judges
    from dream3d.evaluation.suite.report import Evaluation
    from dream3d.evaluation.suite.subjects import AssetsSubject, PriorSubject
    from dream3d.prior.diffusion import DiffusionPrior


@dataclass(frozen=True)
class Asked:
    """What was asked for; nothing was read yet. Raises UsageError for what does not go together."""

    subjects: tuple[str, ...]
    protocol: str | None
    prompts: Path | None
    limit: int | None
    reference: Path | None
    corpus: str | None
    seeds: tuple[int, ...]
    steps: int | None
    draw_by: tuple[str, ...] = ("text",)
    """A column of each prior for each."""
    fusion: str = "auto"
    """How much the text counts where it draws by pictures."""

    @property
    def draws(self) -> bool:
        """Whether priors draw by pictures."""
        return self.draw_by != ("text",)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is 1 or more, got {self.limit}")
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise UsageError(f"--steps is 1 to 1000, got {self.steps}")
        if self.prompts is not None and self.protocol in ("mvdream", "ind"):
            raise UsageError(f"--protocol {self.protocol} takes its prompts from --reference; leave --prompts out")
        if self.protocol in ("mvdream", "ind") and self.reference is None:
            raise UsageError(
                f"--protocol {self.protocol} needs --reference: a folder of shards with held-out objects, which "
                "'dream3d dataset render' makes"
            )
        if self.reference is not None and self.protocol not in ("mvdream", "ind"):
            raise UsageError("--reference goes with --protocol mvdream or ind")
        if self.corpus is not None and self.protocol != "ood":
            raise UsageError("--corpus goes with --protocol ood")
        if self.draws and self.protocol != "ood":
            raise UsageError("--draw-by goes with --protocol ood, which finds pictures of the prompts")
        if not set(self.draw_by) <= SUFFIXES.keys() or len(set(self.draw_by)) < len(self.draw_by):
            raise UsageError(f"--draw-by is {','.join(self.draw_by)}; it is some of {','.join(SUFFIXES)}, each once")
        if self.fusion != "auto" and "pictures" not in self.draw_by:
            raise UsageError("--fusion goes with --draw-by pictures")
        PictureOptions(retrieve="", fusion=self.fusion)

    def everywhere(self) -> Asked:
        """The same with absolute paths, for other processes and machines."""
        return replace(
            self,
            subjects=tuple(map(absolute, self.subjects)),
            prompts=self.prompts and self.prompts.absolute(),
            reference=self.reference and self.reference.absolute(),
            corpus=self.corpus and absolute(self.corpus),
        )


def absolute(word: str) -> str:
    """A word of the command line: with its whole path, if it names something that is there."""
    return os.path.abspath(word) if os.path.exists(word) else word


def prepare(asked: Asked, judges: tuple[str, ...], device_name: str) -> Evaluation:
    """Everything that is needed, loaded. UsageError and its like for what cannot be used."""
    from dream3d.cli.device import resolve_device
    from dream3d.evaluation.suite.report import Evaluation
    from dream3d.evaluation.suite.subjects import TruthSubject, assets_subject
    from dream3d.weights.loading import load_prior

    device = resolve_device(device_name)
    priors: dict[str, DiffusionPrior] = {}
    for word in asked.subjects:
        if not _is_assets(word):
            priors[word] = load_prior(word, device)
    who, background = _judges(judges, list(priors.values()), device)
    protocol = _protocol(asked, bool(priors))
    search = None
    if protocol is not None and protocol.has_pictures:
        search = search_in(asked.corpus, 2 * PICTURES if asked.draws else PICTURES)
    words = _columns(asked.subjects)
    assets = {
        word: assets_subject(Path(word).name or word, paths, background)
        for word, paths in words.items()
        if word not in priors
    }
    cases = _cases(asked, protocol, [prompt for one in assets.values() for prompt in one.prompts], search)
    columns: list[PriorSubject | AssetsSubject] = []
    for word in words:
        if word in priors:
            name = _name(priors[word], list(priors.values()))
            columns += _drawn(name, priors[word], asked, search, [case.prompt for case in cases])
        else:
            columns.append(assets[word])
    truth = [TruthSubject(background)] if any(case.truth is not None for case in cases) else []
    title = protocol.name if protocol else "the prompts of the assets" if asked.prompts is None else asked.prompts.name
    return Evaluation(title, [*columns, *truth], cases, asked.seeds, who)


def _drawn(
    name: str, prior: DiffusionPrior, asked: Asked, search: Search | None, prompts: Sequence[str]
) -> list[PriorSubject]:
    """The columns of a prior. Raises PriorError for pictures and a prior that reads none."""
    from dream3d.evaluation.suite.subjects import PriorSubject
    from dream3d.prior.image_adapter.folder import check_adapter
    from dream3d.retrieval.by_pictures import ByPictures

    if not asked.draws or search is None:
        return [PriorSubject(name, prior, asked.steps)]
    check_adapter(prior.folder, prior.name)
    shown = {prompt: shared_out(search(prompt), draws=True)[0] for prompt in prompts}
    alpha = PictureOptions(retrieve="", fusion=asked.fusion).alpha
    ways = {
        "text": None,
        "pictures": ByPictures(shown, alpha=alpha),
        "one-picture": ByPictures(shown, one=True),
    }
    return [PriorSubject(f"{name}{SUFFIXES[way]}", prior, asked.steps, ways[way]) for way in asked.draw_by]


def _is_assets(word: str) -> bool:
    """Whether a word of the command line is a model, or a folder with models, and not the name of a prior."""
    from dream3d.evaluation.suite.subjects import models_in
    from dream3d.weights.catalogue import catalogue

    known = any(info.name == word for info in catalogue())
    return not known and not (Path(word) / "prior.json").is_file() and bool(models_in(Path(word)))


def _columns(words: tuple[str, ...]) -> dict[str, list[Path]]:
    """The columns by their words; models that were given one by one are one column."""
    columns: dict[str, list[Path]] = {}
    for word in words:
        single = os.path.isfile(word) and _is_assets(word)
        columns.setdefault("models" if single else word, []).append(Path(word))
    return columns


def _name(prior: DiffusionPrior, priors: list[DiffusionPrior]) -> str:
    """The prior's own name; with its version and digest if another is called so too."""
    alike = sum(other.name == prior.name for other in priors) > 1
    return f"{prior.name} v{prior.settings.version} {prior.digest[:6]}" if alike else prior.name


def _judges(words: tuple[str, ...], priors: list[DiffusionPrior], device: str) -> tuple[Judges, Color]:
    """Who judges, and the colour behind assets: that of the first prior, or else of the judge, or of mini."""
    from dream3d.evaluation.catalogue import check_roles, judge_folder
    from dream3d.evaluation.encoders import EfficientNetLite2, PriorEncoder, is_installed
    from dream3d.evaluation.suite.measure import Judges
    from dream3d.prior.folder import read_settings
    from dream3d.prior.image_encoder import FOLDER
    from dream3d.weights.loading import find_folder

    found = [judge_folder(word) for word in words]
    folders = [one for one in found if one is not None]
    check_roles(folders)
    named = [word for word, one in zip(words, found, strict=True) if one is None]
    if len(named) > 1 or (named and any(one.role == "encoder" for one in folders)):
        raise UsageError(f"{' and '.join(words)} judge the same; give one prior, or one CLIP or SigLIP, by --judge")
    own = next((prior.folder for prior in priors if (prior.folder / FOLDER / "config.json").is_file()), None)
    folder = find_folder(named[0]) if named else own or find_folder("mini")
    settings = read_settings(folder)
    judges = {one.role: load_judge(one, device) for one in folders}
    if "encoder" not in judges:
        judges["encoder"] = PriorEncoder(folder, settings.name, device)
    if "classifier" not in judges and is_installed():
        judges["classifier"] = EfficientNetLite2(device)
    return Judges(**judges), priors[0].background if priors else settings.background


def load_judge(judge: JudgeFolder, device: str) -> Any:
    """The network of a folder. Raises PriorError for files that do not fit."""
    from dream3d.evaluation.clip import ClipFolder
    from dream3d.evaluation.dinov2 import Dinov2Folder
    from dream3d.evaluation.inception import InceptionFolder
    from dream3d.evaluation.lpips import LpipsFolder
    from dream3d.evaluation.siglip import SiglipFolder

    kinds = {
        "clip": ClipFolder,
        "siglip": SiglipFolder,
        "inception_v3": InceptionFolder,
        "dinov2": Dinov2Folder,
        "lpips": LpipsFolder,
    }
    return kinds[judge.kind](judge.folder, device)


def _protocol(asked: Asked, has_priors: bool) -> Protocol | None:
    """What was asked for; quick for priors without a list, and None for the prompts of a list or of the assets."""
    from dream3d.evaluation.suite.cases import PROTOCOLS

    name = asked.protocol or ("quick" if has_priors and asked.prompts is None else None)
    return None if name is None else PROTOCOLS[name]


def _cases(asked: Asked, protocol: Protocol | None, own: list[str], search: Search | None) -> list[Case]:
    from dream3d.batch.prompts import read_lists
    from dream3d.evaluation.protocols.priors import read_split
    from dream3d.evaluation.suite.cases import cases_of_objects, cases_of_prompts, packaged_prompts

    limit = asked.limit or (protocol.limit if protocol else None)
    if asked.reference is not None and protocol is not None:
        objects = read_split([asked.reference], ["heldout", "unseen"], limit)
        return cases_of_objects(objects, protocol.has_truth)
    if asked.prompts is not None:
        prompts = [entry.prompt for entry in read_lists([asked.prompts])]
    else:
        prompts = packaged_prompts(protocol.prompts) if protocol else own
    chosen = list(dict.fromkeys(prompts))[:limit]
    if search is None:
        return cases_of_prompts(chosen)
    return cases_of_prompts(chosen, lambda prompt: as_tensor(shared_out(search(prompt), asked.draws)[1]))
