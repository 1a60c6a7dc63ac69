"""Multi-view diffusion priors: what is known (catalogue), loading a folder, and asking it questions."""

from dream3d.prior.catalogue import PriorInfo, catalogue
from dream3d.prior.diffusion import DiffusionPrior, load_prior

__all__ = ["DiffusionPrior", "PriorInfo", "catalogue", "load_prior"]
