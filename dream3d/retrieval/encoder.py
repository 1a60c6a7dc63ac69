"""Captions, prompts and pictures to unit vectors, by the text and image encoders of a prior folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dream3d.files import hash_file
from dream3d.prior.image_encoder import FOLDER, load_image_encoder
from dream3d.prior.vocabulary import objects_in
from dream3d.retrieval.pictures import square
from dream3d.retrieval.terms import words

Vectors = NDArray[np.float32]
"""(N, width), each of length 1, or 0 for a text without words."""
CAPTION_VECTORS = 1
"""Version of how caption vectors are made; part of the fingerprint."""
MAX_KNOWN_WORDS = 200_000
"""Words whose vectors are kept in memory: 0.3 GB at most."""


class CorpusEncoder:
    """The encoders of a prior folder, loaded once and kept.

    A caption's vector is the mean of its subject's words' vectors, of which the last, the noun, counts twice. Each word
    is read by the text encoder alone: a corpus has far fewer words than captions, so that 100,000 captions cost minutes
    less than with each read as a sentence.
    """

    def __init__(self, folder: Path) -> None:
        """Raises :class:`dream3d.errors.PriorError` for a prior without image encoder."""
        self._folder = folder
        self._encoder = load_image_encoder(folder)
        self._known: dict[str, Vectors] = {}

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the weights: vectors of different ones cannot be compared."""
        files = (self._folder / "text_encoder/model.safetensors", self._folder / FOLDER / "model.safetensors")
        digests = "".join(hash_file(file) for file in files)
        return hashlib.sha256(f"{CAPTION_VECTORS} {digests}".encode()).hexdigest()[:16]

    @property
    def caption_width(self) -> int:
        """Numbers in a caption's vector."""
        return self._encoder.text.width

    @property
    def picture_width(self) -> int:
        """Numbers in a picture's vector."""
        return self._encoder.dim

    def captions(self, texts: Sequence[str]) -> Vectors:
        """(len(texts), caption_width): what captions, or prompts, are about."""
        said = [subject_words(text) for text in texts]
        self._learn(sorted({word for one in said for word in one}))
        vectors = np.zeros((len(texts), self.caption_width), np.float32)
        for row, one in enumerate(said):
            if one:
                vectors[row] = np.sum([self._known[word] for word in one], axis=0) + self._known[one[-1]]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def prompt_for_pictures(self, prompt: str) -> Vectors:
        """(picture_width,): where pictures of a prompt should lie."""
        with torch.no_grad():
            pooled = self._encoder.text.mean_states([prompt])
            return self._encoder.towers.texts(pooled)[0].numpy()

    def names_of_pictures(self, names: Sequence[str]) -> Vectors:
        """(len(names), picture_width): where pictures of things should lie."""
        with torch.no_grad():
            return self._encoder.embed_texts(list(names)).cpu().numpy()

    def pictures(self, pictures: Sequence[NDArray[np.uint8]]) -> Vectors:
        """(len(pictures), picture_width) of (H, W, 3) pictures, each seen as a whole, padded with white."""
        side = self._encoder.towers.config.image_size
        if not pictures:
            return np.zeros((0, self.picture_width), np.float32)
        pixels = np.stack([square(picture, side) for picture in pictures])
        return self._encoder.embed_images(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).numpy()

    def _learn(self, needed: Sequence[str]) -> None:
        if len(self._known) > MAX_KNOWN_WORDS:
            self._known.clear()
        new = [word for word in needed if word not in self._known]
        if new:
            vectors = F.normalize(self._encoder.text.mean_states(new), dim=-1).numpy()
            self._known.update(zip(new, vectors, strict=True))


def subject_words(text: str) -> list[str]:
    """The words of what a text is about: "a red fox on a chair with cushions" is about "red", "fox".

    All words of the text where its subject has none of its own.
    """
    return words(objects_in(text.lower())[0]) or words(text)
