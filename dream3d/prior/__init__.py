"""Multi-view diffusion priors: what is known (catalogue), loading a folder, and asking it questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream3d.prior.catalogue import PriorInfo, catalogue

if TYPE_CHECKING:
    import torch

    from dream3d.prior.diffusion import DiffusionPrior
    from dream3d.prior.memory import MemoryPlan


def load_prior(
    name_or_path: str, device: torch.device | str = "cpu", memory: MemoryPlan | None = None
) -> DiffusionPrior:
    """A prior by catalogue name, folder or official file, on a device; ``memory`` is the fastest plan by default.

    Raises :class:`dream3d.errors.PriorError` that says what is wrong with it, in one line. The heavy
    libraries are imported here and not with the package, so that listing the catalogue stays quick.
    """
    from dream3d.prior.diffusion import DiffusionPrior, find_folder

    return DiffusionPrior(find_folder(name_or_path), device, memory)


def prompt_cut(name_or_path: str, prompt: str) -> int | None:
    """Index of the first character of a prompt that a prior's text encoder does not read, or None if it reads all.

    Reads no more of the prior than that takes and converts nothing: official weights are a
    :class:`dream3d.errors.PriorError` here, as is what :func:`load_prior` refuses.
    """
    from dream3d.prior.diffusion import locate
    from dream3d.prior.folder import check_files, read_settings
    from dream3d.prior.text import PromptEncoder

    folder = locate(name_or_path)
    check_files(folder)
    return PromptEncoder(folder, read_settings(folder).text_tokens).cut(prompt)


__all__ = ["PriorInfo", "catalogue", "load_prior", "prompt_cut"]
