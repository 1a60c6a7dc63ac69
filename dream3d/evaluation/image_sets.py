"""Sets of pictures by their features: how far two sets are apart, and how clear and varied one is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def frechet_distance(features: NDArray[np.floating[Any]], reference: NDArray[np.floating[Any]]) -> float:
    """Fréchet distance, at least 0, of Gaussians fitted to two sets of features (N, D) and (M, D).

    With Inception's pooled features this is FID (Heusel et al. 2017, equation 6):
    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``, with unbiased covariances. The trace of the root is the sum of the
    singular values of ``A1 A2^T``, where ``C = A^T A``: no root of a matrix is taken, so that fewer pictures than
    features are no trouble. But few pictures make the distance larger: compare sets of the same sizes only.

    Raises ValueError for other shapes, for fewer than two rows and for numbers that are not finite.
    """
    first, second = (np.asarray(one, dtype=np.float64) for one in (features, reference))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise ValueError(f"features of shapes {first.shape} and {second.shape}; two rows at least, of one width")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("features that are not finite have no distance")
    roots = [(one - one.mean(0)) / np.sqrt(len(one) - 1) for one in (first, second)]
    means = float(np.square(first.mean(0) - second.mean(0)).sum())
    traces = sum(float(np.square(root).sum()) for root in roots)
    # C stays the same if A is replaced by the small triangle of its QR decomposition.
    one, other = (np.asarray(np.linalg.qr(root, mode="r")) for root in roots)
    together = float(np.linalg.svd(one @ other.T, compute_uv=False).sum())
    return max(0.0, means + traces - 2 * together)


def inception_score(probabilities: NDArray[np.floating[Any]]) -> float:
    """How clear and varied pictures are, 1 to C, from their class probabilities (N, C); rows sum to 1.

    ``exp(mean KL(p(y|x) || p(y)))`` (Salimans et al. 2016, section 4) over all pictures at once. Published values are
    means over ten splits, which are lower for few pictures. Raises ValueError for rows that are no probabilities.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not len(p) or not (p >= 0).all() or not np.allclose(p.sum(1), 1, atol=1e-4):
        raise ValueError(f"probabilities of shape {p.shape}: rows of numbers from 0 on that sum to 1")
    marginal = np.broadcast_to(p.mean(0), p.shape)
    seen = p > 0  # what has no probability adds nothing
    divergence = np.where(seen, p, 0) * (np.log(np.where(seen, p, 1)) - np.log(np.where(seen, marginal, 1)))
    return float(np.exp(divergence.sum(1).mean()))
