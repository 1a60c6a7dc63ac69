"""The pictures of a prompt: those that were given, those of a corpus, or none, and what there is to say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from dream3d.bounds import Between, Options
from dream3d.errors import UsageError, shown

if TYPE_CHECKING:
    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.retrieval.references import Reference
    from dream3d.retrieval.run_pictures import Guides

AUTO = "auto"
DEFAULT_COUNT = 4
ENCODER_FILES = ("config.json", "model.safetensors")
"""In DINOv2's folder."""


@dataclass(frozen=True)
class PictureOptions(Options):
    """What was asked for, checked; no file was read yet. Raises UsageError."""

    retrieve: str | None = None
    """A corpus; "" is the built-in one, None for none."""
    images: tuple[Path, ...] = ()
    retrieve_count: Annotated[int, Between(1, 16)] = DEFAULT_COUNT
    fusion: str = AUTO
    fusion_encoder: Path | None = None
    """Folder of DINOv2, by which alpha is measured."""

    def __post_init__(self) -> None:
        """See :class:`Options`; raises UsageError too for a fusion that is none, and for options without pictures."""
        super().__post_init__()
        alpha = self.alpha
        if not self.asked and (self.fusion != AUTO or self.retrieve_count != DEFAULT_COUNT):
            raise UsageError("--fusion and --retrieve-count go with --images or --retrieve")
        if self.fusion_encoder and not (self.asked and alpha is None):
            raise UsageError("--fusion-encoder goes with --images or --retrieve, and with --fusion auto")
        if alpha is not None and not 0 <= alpha <= 1:
            raise UsageError(f"--fusion is {shown(self.fusion)}, which should be auto or a number from 0 to 1")

    @property
    def asked(self) -> bool:
        """Whether there are to be pictures."""
        return self.retrieve is not None or bool(self.images)

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that were named: the pictures, and what DINOv2's folder has."""
        folder = self.fusion_encoder
        return (*self.images, *(() if folder is None else (folder / name for name in ENCODER_FILES)))

    @property
    def settings(self) -> dict[str, str]:
        """As a list of prompts would have them, by the files' names; empty without pictures."""
        given = {
            "images": ",".join(path.name for path in self.images),
            "retrieve": "" if self.retrieve is None else self.retrieve or "yes",
            "retrieve_count": "" if self.retrieve_count == DEFAULT_COUNT else str(self.retrieve_count),
            "fusion": "" if self.fusion == AUTO else self.fusion,
            "fusion_encoder": "" if self.fusion_encoder is None else self.fusion_encoder.name,
        }
        return {name: value for name, value in given.items() if value}

    @property
    def alpha(self) -> float | None:
        """The weight of the text, None to measure it."""
        if self.fusion.strip() == AUTO:
            return None
        try:
            return float(self.fusion)
        except ValueError:
            raise UsageError(
                f"--fusion is {shown(self.fusion)}, which should be auto or a number from 0 to 1"
            ) from None


SETTINGS = ("images", "retrieve", "retrieve_count", "fusion", "fusion_encoder")
"""Names of these options in a list of prompts."""


def parse_options(settings: Mapping[str, str]) -> PictureOptions:
    """Options written as a list's settings: ``images=a.jpg,b.jpg``, ``retrieve=yes`` or ``no`` or a corpus.

    Raises UsageError, also for names that are not in :data:`SETTINGS`.
    """
    unknown = settings.keys() - set(SETTINGS)
    if unknown:
        raise UsageError(f"unknown setting {shown(min(unknown))} of pictures; known: {', '.join(SETTINGS)}")
    corpus = settings.get("retrieve", "no").strip()
    count = settings.get("retrieve_count", str(DEFAULT_COUNT))
    if not count.isdecimal() or len(count) > 9:
        raise UsageError(f"retrieve_count is {shown(count)}, which should be a whole number")
    return PictureOptions(
        retrieve={"yes": "", "no": None}.get(corpus, corpus),
        images=tuple(Path(name.strip()) for name in settings.get("images", "").split(",") if name.strip()),
        retrieve_count=int(count),
        fusion=settings.get("fusion", AUTO),
        fusion_encoder=Path(settings["fusion_encoder"].strip()) if settings.get("fusion_encoder") else None,
    )


@dataclass(frozen=True)
class Gathered:
    """The pictures of a prompt."""

    guides: Guides | None = None
    """None: nothing passed, and the text alone is used."""
    record: dict[str, Any] = field(default_factory=dict)
    """For the request in ``run.json``: what was searched, and what for."""
    lines: tuple[str, ...] = ()
    """What a user should be told."""


def gather(prompt: str, asked: PictureOptions, prior: DiffusionPrior) -> Gathered:
    """The pictures that were given and those that a corpus has, for a prior that can read them.

    Raises PriorError for a prior without image adapter and for a folder that is not DINOv2's, before any picture is
    looked at; UsageError for pictures that
    are not there, if none of those given can be used, and for no corpus; DatasetError for a damaged one.
    """
    from dream3d.prior.image_adapter.dinov2 import check_dinov2
    from dream3d.prior.image_adapter.folder import check_adapter
    from dream3d.retrieval.references import check_count, read_images
    from dream3d.retrieval.run_pictures import Guides

    if not asked.asked:
        return Gathered()
    check_adapter(prior.folder, prior.name)
    if asked.fusion_encoder is not None:
        check_dinov2(asked.fusion_encoder)
    references: list[Reference] = []
    lines: list[str] = []
    unused: list[str] = []
    record: dict[str, Any] = {}
    if asked.images:
        references, unused = read_images(asked.images)
    if asked.retrieve is not None:
        found, record["retrieved"], said, skipped = _retrieved(prompt, asked)
        references += [one for one in found if one.sha256 not in {other.sha256 for other in references}]
        lines, unused = said, [*unused, *skipped]
    lines += [f"warning: not used: {line}" for line in unused]
    if unused:
        record["pictures_not_used"] = unused
    check_count(len(references))
    guides = Guides(tuple(references), asked.alpha, asked.fusion_encoder) if references else None
    if guides is None:
        lines.append(f"prior {prior.name!r} draws by the text alone")
    return Gathered(guides, record, tuple(lines))


def _retrieved(prompt: str, asked: PictureOptions) -> tuple[list[Reference], dict[str, Any], list[str], list[str]]:
    """What a corpus has of a prompt: references, a record, what to say, and what cannot be used."""
    from dream3d.retrieval.opening import open_corpus
    from dream3d.retrieval.references import references_of

    corpus = open_corpus(asked.retrieve or None)
    found = corpus.search(prompt, asked.retrieve_count)
    references, skipped = references_of(found)
    record = {
        "corpus": corpus.name,
        "best_similarity": round(found.best, 4),
        "threshold": found.threshold,
        "pictures": len(references),
    }
    lines = [f"{corpus.name}: {found.explanation}"]
    for number, one in enumerate(references, start=1):
        known = one.attribution
        lines.append(f"  {number}. {known['caption']} ({known['author']}, {known['licence']}, {known['source']})")
    return references, record, lines, skipped
