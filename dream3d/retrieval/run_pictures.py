"""The pictures of a run: copied into its folder, since a corpus may change, and recorded in its ``run.json``.

What is recorded under ``images`` is all that the result depends on besides the text: the pictures by their SHA-256, the
adapter by its own, and alpha as soon as it is known. A run that is resumed reads it back and measures nothing again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.cameras import Cameras
from dream3d.errors import PriorError, UsageError
from dream3d.files import read_regular, write_atomically
from dream3d.prior.base import MultiViewPrior
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.image_adapter.dinov2 import check_dinov2, dinov2_digest, load_dinov2
from dream3d.prior.sampling import SamplingRecipe
from dream3d.retrieval.guided import OWN_ENCODER, Fusion, fuse, measure_alpha, with_references
from dream3d.retrieval.pictures import MAX_BYTES
from dream3d.retrieval.references import MAX_REFERENCES, Reference, check_count
from dream3d.run.folder import RunFolder

KEY = "images"
"""In ``run.json`` and in the asset's provenance."""
ENCODER = "fusion_encoder"
"""In the request of ``run.json``."""


@dataclass(frozen=True)
class Guides:
    """Pictures to draw by, and how much they count."""

    references: tuple[Reference, ...]
    alpha: float | None = None
    """Weight of the text, 0 to 1; None: measured."""
    encoder: Path | None = None
    """Folder of DINOv2, by which alpha is measured; None: the adapter's own image encoder does it."""

    def __post_init__(self) -> None:
        """Raises UsageError for an alpha out of range, for no picture and for too many."""
        if not self.references:
            raise UsageError("there is no picture to draw by; leave the guides out for text alone")
        check_count(len(self.references))
        if self.alpha is not None:
            Fusion(self.alpha, 1.5, measured=False)


def guided(
    prior: DiffusionPrior,
    text: Conditioning,
    guides: Guides | None,
    seed: int,
    cameras: Cameras | None = None,
    recipe: SamplingRecipe | None = None,
) -> tuple[Conditioning, Fusion | None]:
    """What a prior is told for the views of one seed, and the weights; ``text`` as it is without pictures.

    Alpha is measured on views of the same seed and cameras, so from the same noise (MV-RAG), unless it is given.
    """
    if guides is None:
        return text, None
    fusion = weights(prior, text, guides, seed, cameras, recipe)
    return with_references(prior, text, guides.references, fusion), fusion


def weights(
    prior: DiffusionPrior,
    text: Conditioning,
    guides: Guides,
    seed: int,
    cameras: Cameras | None = None,
    recipe: SamplingRecipe | None = None,
) -> Fusion:
    """How much text and pictures count: as the guides say, else as it is measured by the encoder that they name.

    See :func:`dream3d.retrieval.guided.measure_alpha`. Raises PriorError for a prior without adapter, and for a folder
    that is not DINOv2's.
    """
    if guides.alpha is not None:
        return fuse(prior, guides.alpha)
    encoder = None if guides.encoder is None else load_dinov2(guides.encoder, str(prior.device))
    alpha = measure_alpha(prior, text, guides.references, seed, cameras, recipe, encoder)
    return fuse(prior, alpha, OWN_ENCODER if encoder is None else encoder.name)


def record_of(guides: Guides, prior: MultiViewPrior) -> dict[str, Any]:
    """What ``run.json`` gets under :data:`KEY` at the start.

    Raises PriorError for a prior that reads no pictures, and for a folder that is not DINOv2's.
    """
    reader = _reader(prior)
    adapter = {"sha256": reader.image_adapter.digest, "licence": reader.image_adapter.licence}
    fusion = None if guides.alpha is None else fuse(reader, guides.alpha).record
    record = {"pictures": [one.record for one in guides.references], "adapter": adapter, "fusion": fusion}
    if guides.encoder is not None and guides.alpha is None:
        check_dinov2(guides.encoder)
        record["alpha_encoder"] = {"sha256": dinov2_digest(guides.encoder)}
    return record


def request_of(guides: Guides | None) -> dict[str, Any]:
    """What the request in ``run.json`` gets: where a run that is resumed finds what measures alpha."""
    return {} if guides is None or guides.encoder is None else {ENCODER: str(guides.encoder.absolute())}


def keep(run: RunFolder, references: Sequence[Reference]) -> None:
    """Copy the pictures into the run's folder. Raises OSError."""
    for number, one in enumerate(references, start=1):

        def write(path: Path, image: bytes = one.image) -> None:
            path.write_bytes(image)

        write_atomically(run.own(f"picture-{number}{one.suffix}"), write)


def tell(run: RunFolder, text: Conditioning, prompt: str, seed: int, prior: MultiViewPrior) -> tuple[Conditioning, str]:
    """What the run's prior is told, and a sentence about it; ``text`` as it is, and none, for a run without pictures.

    Alpha is measured if it is not known yet, and recorded before anything depends on it. Raises UsageError for pictures
    and records that are not what the run began with.
    """
    if KEY not in run.facts:
        return text, ""
    reader, record = _reader(prior), _checked(run.facts[KEY], run)
    references = [_kept(run, number, one) for number, one in enumerate(record["pictures"], start=1)]
    fusion = _fusion(record["fusion"], run)
    if fusion is None:
        sampled = reader.encode_prompt(reader.with_suffix(prompt), _negative(run))
        fusion = weights(reader, sampled, Guides(tuple(references), None, _encoder(run, record)), seed)
        run.record("running", **{KEY: {**record, "fusion": fusion.record}})
    count = f"{len(references)} picture{'s' * (len(references) > 1)}"
    return with_references(reader, text, references, fusion), f"{count}, {fusion.explanation}"


def check_adapter_is_same(facts: Mapping[str, Any], prior: MultiViewPrior, where: object) -> None:
    """UsageError unless a run with pictures is resumed with the adapter and image encoder that it began with."""
    if KEY not in facts:
        return
    images = facts[KEY]
    adapter = images.get("adapter") if isinstance(images, Mapping) else None
    before = adapter.get("sha256") if isinstance(adapter, Mapping) else None
    now = _reader(prior).image_adapter.digest
    if before != now:
        raise UsageError(
            f"{where} was made with another image adapter (SHA-256 {str(before)[:12]}..., now {now[:12]}...); "
            "put that back, or start again"
        )


def _reader(prior: MultiViewPrior) -> DiffusionPrior:
    if not isinstance(prior, DiffusionPrior):
        raise PriorError(f"the prior {prior.describe().get('name')!r} reads no pictures; use a diffusion prior")
    return prior


def _negative(run: RunFolder) -> str:
    recipe = run.facts.get("recipe")
    negative = recipe.get("negative_prompt", "") if isinstance(recipe, Mapping) else ""
    return negative if isinstance(negative, str) else ""


def _encoder(run: RunFolder, record: Mapping[str, Any]) -> Path | None:
    """The folder of DINOv2 that the run is to measure alpha by; UsageError if it is not there or not the same."""
    wanted = record.get("alpha_encoder")
    if wanted is None:
        return None
    request = run.facts.get("request")
    place = request.get(ENCODER) if isinstance(request, Mapping) else None
    digest = None
    if isinstance(place, str):
        with contextlib.suppress(OSError):
            digest = dinov2_digest(Path(place))
    if not isinstance(place, str) or not isinstance(wanted, Mapping) or digest != wanted.get("sha256"):
        raise UsageError(
            f"{run.path} measures alpha by DINOv2 of {place}, which has changed or is not there; put it back"
        )
    return Path(place)


def _checked(facts: object, run: RunFolder) -> dict[str, Any]:
    pictures = facts.get("pictures") if isinstance(facts, Mapping) else None
    is_list = isinstance(pictures, list) and 0 < len(pictures) <= MAX_REFERENCES
    if not is_list or not isinstance(facts, dict) or not all(isinstance(one, dict) for one in pictures or ()):
        raise UsageError(f"{run.path / 'run.json'}: {KEY!r} is not a list of pictures; start again")
    return {"fusion": None, **facts}


def _fusion(value: object, run: RunFolder) -> Fusion | None:
    if value is None:
        return None
    try:
        assert isinstance(value, Mapping)
        return Fusion(value["alpha"], value["weight_sum"], value["measured"], value.get("encoder", ""))
    except (AssertionError, KeyError, UsageError) as error:
        raise UsageError(f"{run.path / 'run.json'}: the 'fusion' of {KEY!r} is not valid; start again") from error


def _kept(run: RunFolder, number: int, record: Mapping[str, Any]) -> Reference:
    """The run's copy of a picture; UsageError if it is missing or changed."""
    for path in run.owned(re.compile(rf"picture-{number}(-\d+)?\.[a-z]+")):
        try:
            found = Reference(read_regular(path, MAX_BYTES), {})
        except OSError:
            continue
        if found.sha256 == record.get("sha256"):
            return found
        raise UsageError(f"{path} has changed since the run began; put it back, or start again")
    raise UsageError(f"{run.path} lacks picture {number} of its run; start again")
