"""The words of a personalised prior: the token that stands for the thing, its class, and the sentences made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dream3d.bounds import check_text
from dream3d.dataset.captions.templates import article
from dream3d.errors import PriorError, UsageError, shown
from dream3d.images import Picture
from dream3d.prior.image_encoder import ImageEncoder, load_image_encoder
from dream3d.prior.text import PromptEncoder

FEW_PIECES = 3
"""Pieces of a token up to which nothing is said: "sks" is two of ``mini``'s, one of Stable Diffusion's."""
RARE = 0.9
"""Share of a byte-pair vocabulary, which is ordered by frequency, from which its words are rare: "sks" is at 0.97."""
UNKNOWN_CLASS = "object"
_TOKEN = re.compile(r"[A-Za-z0-9]{2,24}")
_CLASS = re.compile(r"[a-z0-9][a-z0-9' -]{0,59}")


@dataclass(frozen=True)
class Subject:
    """What the thing is called."""

    token: str
    kind: str
    """Its class: "dog"."""

    @property
    def name(self) -> str:
        """As the captions have it: sks dog."""
        return f"{self.token} {self.kind}"

    @property
    def phrase(self) -> str:
        """As people write it, whatever its sound: a sks dog."""
        return f"a {self.name}"

    @property
    def class_phrase(self) -> str:
        """The class with its article: a dog, an owl."""
        return f"{article(self.kind)} {self.kind}"


def check_token(token: str, names: Sequence[str], text: PromptEncoder) -> list[str]:
    """What is to be said about a token; UsageError for one that a prior cannot learn, or knows already.

    ``names`` are those that the prior knows, ``text`` is its encoder.
    """
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"--token {shown(token)} is not one word of 2 to 24 letters and digits; "
            "invent one that means nothing, such as sks"
        )
    known = next((name for name in names if token.lower() in name.lower().split()), None)
    if known is not None:
        raise UsageError(
            f"--token {token} is a word of {known!r}, which the prior knows; invent one that means nothing, such as sks"
        )
    pieces = text.pieces(token)
    if pieces.unknown:
        raise UsageError(
            f"--token {token} is unknown to the prior's text encoder, which reads it as it reads all unknown words; "
            "invent another one, such as sks"
        )
    if pieces.count == 1 and pieces.place < RARE:
        raise UsageError(
            f"--token {token} is a common word for the prior's text encoder and means something already; "
            "invent one that means nothing, such as sks"
        )
    if pieces.count > FEW_PIECES:
        return [f"the text encoder reads {token} as {pieces.count} pieces; a shorter token is learnt more easily"]
    return []


def check_class(kind: str) -> str:
    """A class in plain small words; UsageError for anything else."""
    kind = " ".join(check_text(kind, "class").lower().split())
    for word in ("a ", "an ", "the "):
        kind = kind.removeprefix(word)
    if not _CLASS.fullmatch(kind):
        raise UsageError(f"--class {shown(kind)} is no name of a kind of thing; write one such as dog")
    return kind


def class_from_folder(folder: Path, names: Sequence[str]) -> str | None:
    """The longest of the names whose words are in the folder's own name: "my_dog-photos" holds "dog"."""
    words = f" {' '.join(re.findall('[a-z]+', folder.absolute().name.lower()))} "
    found = [name for name in names if f" {name.lower()} " in words or f" {name.lower()}s " in words]
    return max(found, key=len, default=None)


def class_from_pictures(pictures: Picture, names: Sequence[str], encoder: ImageEncoder) -> list[str]:
    """The three names that come nearest to (N, S, S, 3) pictures by the prior's image encoder, nearest first."""
    images = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
    texts = encoder.embed_texts([f"{article(name)} {name}" for name in names])
    similar = (encoder.embed_images(images) @ texts.t()).mean(0)
    return [names[i] for i in similar.topk(min(3, len(names))).indices.tolist()]


def guess_class(folder: Path, pictures: Picture, names: Sequence[str], prior: Path) -> tuple[str, str]:
    """A class for the photos of a folder that came without one, and a line that says why and how to correct it.

    ``names`` are what the prior in the folder ``prior`` knows; its image encoder is asked if the folder's name says
    nothing.
    """
    kind = class_from_folder(folder, names)
    if kind is not None:
        return kind, f"class: {kind}, by the folder's name; another one: --class"
    try:
        encoder = load_image_encoder(prior)
    except PriorError:
        encoder = None
    if encoder is None or not names:
        return UNKNOWN_CLASS, f"class: {UNKNOWN_CLASS}, since this prior cannot tell; give one with --class"
    nearest = class_from_pictures(pictures, names, encoder)
    others = f" (then {', '.join(nearest[1:])})" if nearest[1:] else ""
    return nearest[0], f"class: {nearest[0]}, which the pictures resemble most{others}; another one: --class"
