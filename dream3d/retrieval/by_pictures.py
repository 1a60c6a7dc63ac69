"""How a prior is told of many prompts' pictures, to compare ways of drawing by them: MV-RAG's, or one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dream3d.cameras import Cameras
from dream3d.prior.conditioning import Conditioning
from dream3d.prior.diffusion import DiffusionPrior
from dream3d.prior.sampling import SamplingRecipe
from dream3d.retrieval.guided import Fusion, with_references
from dream3d.retrieval.references import Reference
from dream3d.retrieval.run_pictures import Guides, guided

EQUAL = Fusion(alpha=1.0, weight_sum=2.0, measured=False)
"""Text and picture count 1 each, as in ImageDream (Wang and Shi 2023), local controller; its code's ``ip_weight``."""


@dataclass(frozen=True)
class ByPictures:
    """The pictures of each prompt, and how they are used."""

    pictures: Mapping[str, Sequence[Reference]]
    """By the prompts."""
    one: bool = False
    """The first picture alone, counted by :data:`EQUAL`: the tokens of the resampler are ImageDream's local controller.

    Otherwise all of them, by MV-RAG's fusion."""
    alpha: float | None = None
    """Weight of the text in that fusion, 0 to 1; None: measured."""

    def key(self, prior: DiffusionPrior, prompt: str) -> str | None:
        """All that what is told depends on besides prior and prompt; None for a prompt without pictures."""
        shown = self._shown(prompt)
        how = "one" if self.one else f"fusion {self.alpha}"
        return f"{how} {prior.image_adapter.digest} {[one.sha256 for one in shown]}" if shown else None

    def tell(
        self,
        prior: DiffusionPrior,
        prompt: str,
        text: Conditioning,
        seed: int,
        cameras: Cameras,
        recipe: SamplingRecipe,
    ) -> Conditioning:
        """The text and the pictures, for views of some cameras that are sampled as ``recipe`` says from ``seed``.

        Raises PriorError for a prior without image adapter.
        """
        shown = self._shown(prompt)
        if self.one:
            return with_references(prior, text, shown, EQUAL)
        told, _ = guided(prior, text, Guides(tuple(shown), self.alpha), seed, cameras, recipe)
        return told

    def _shown(self, prompt: str) -> Sequence[Reference]:
        found = self.pictures.get(prompt, ())
        return found[:1] if self.one else found
