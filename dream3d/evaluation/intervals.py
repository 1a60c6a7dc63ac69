"""How sure a figure is: bootstrap intervals of means, and the jackknife for figures of whole sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

RESAMPLES = 2000
LEVEL = 0.95
GROUPS = 20
"""Parts of a set that the jackknife leaves out one by one."""


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference is there at this level of confidence."""
        return self.low > 0 or self.high < 0


def bootstrap_mean(
    values: Sequence[float], generator: np.random.Generator, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Percentile bootstrap (Efron 1979) of a mean of independent values: one for each prompt, not for each view.

    Raises ValueError for no values.
    """
    data = _checked(values)
    return percentiles(float(data.mean()), _means(data, generator, resamples), level)


def bootstrap_difference(
    values: Sequence[float],
    others: Sequence[float],
    generator: np.random.Generator,
    *,
    paired: bool,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Of the mean of ``values`` less that of ``others``.

    ``paired``: value i and other i are of the same prompt and are drawn together, so that what is hard about a prompt
    cancels; ValueError unless there are as many. Otherwise both are drawn apart.
    """
    a, b = _checked(values), _checked(others)
    if paired:
        if len(a) != len(b):
            raise ValueError(f"{len(a)} and {len(b)} values are no pairs")
        return bootstrap_mean((a - b).tolist(), generator, resamples, level)
    drawn = _means(a, generator, resamples) - _means(b, generator, resamples)
    return percentiles(float(a.mean() - b.mean()), drawn, level)


def jackknife(
    statistic: Callable[[NDArray[np.int64]], float], count: int, groups: int = GROUPS, level: float = LEVEL
) -> Interval:
    """Of a figure of a whole set, such as a Fréchet distance, by leaving out each of some groups of its items in turn.

    ``statistic`` gets the indices, out of ``count``, of what stays in. A bootstrap would draw items twice, which such
    figures take for less variety. Grouped jackknife (Efron and Tibshirani 1993, chapter 11), normal limits around the
    figure of the whole set. ValueError for fewer than two items.
    """
    if count < 2:
        raise ValueError(f"{count} items cannot be left out in turn")
    groups = min(groups, count)
    items = np.arange(count)
    value = statistic(items)
    without = np.array([statistic(items[items % groups != part]) for part in range(groups)])
    error = float(np.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum()))
    reach = float(ndtri(0.5 + level / 2)) * error
    return Interval(value, value - reach, value + reach)


def percentiles(value: float, drawn: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """A figure with the percentiles of the same figure on resamples (R,)."""
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(value, float(low), float(high))


def _checked(values: Sequence[float]) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data) or not np.isfinite(data).all():
        raise ValueError(f"a mean needs finite values in a row, got shape {data.shape}")
    return data


def _means(data: NDArray[np.float64], generator: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    """(resamples,) means of as many values, drawn with replacement."""
    return data[generator.integers(0, len(data), (resamples, len(data)))].mean(1)
