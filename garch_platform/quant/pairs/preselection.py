"""Which pairs are worth testing: the closest ones, or those of one cluster, without proxies.

Two optional methods that shorten the list before any test of cointegration:

- ``distance`` (Gatev, Goetzmann and Rouwenhorst [1]_): prices start at 1, and the pairs with the smallest
  mean squared difference over their common bars are taken;
- ``cluster`` (Sarmento and Horta [2]_): each series is described by its loadings on the principal components
  of standardised returns; pairs within a cluster (OPTICS, or k-means) are taken.

Whatever the method, and also without one, a pair is refused whose legs are one series under two names: its
returns, or its log prices, correlate to within 1e-9 of 1 in size. A duplicate or a proxied symbol has a
spread of 0 and would come first in any ranking.

References
----------
.. [1] Gatev, E., Goetzmann, W. N. and Rouwenhorst, K. G. (2006), "Pairs trading: performance of a
   relative-value arbitrage rule", Review of Financial Studies 19, 797-827.
.. [2] Sarmento, S. M. and Horta, N. (2020), "Enhancing a pairs trading strategy with the application of
   machine learning", Expert Systems with Applications 158, 113490.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.returns import log_returns

__all__ = ["REFUSED_SCHEMA", "Preselection", "preselect_pairs"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Method = Literal["all", "distance", "cluster"]
Algorithm = Literal["optics", "kmeans"]

REFUSED_SCHEMA: Final[dict[str, pl.DataType]] = {
    "first": pl.Int64(),
    "second": pl.Int64(),
    "reason": pl.String(),
}
"""Refused pairs by column index, ``first`` < ``second``. ``reason`` is ``insufficient_data`` (too few common
bars), ``constant_series``, ``collinear_returns`` or ``collinear_prices``."""
COLLINEAR: Final = 1e-9
CONSTANT: Final = 1e-12
OVERSAMPLING: Final = 4


@dataclass(frozen=True)
class Preselection:
    """Candidate pairs.

    Attributes:
        pairs: (P, 2) column indices, the smaller first; the closest pair first (``distance``), or in order
            of the indices.
        refused: the pairs that no method may choose, with the columns of `REFUSED_SCHEMA`.
    """

    pairs: Integers
    refused: pl.DataFrame


def preselect_pairs(
    log_prices: Floats,
    *,
    method: Method = "all",
    count: int = 20,
    algorithm: Algorithm = "optics",
    components: int = 5,
    min_members: int = 3,
    clusters: int = 10,
    min_observations: int = 100,
    seed: int = 0,
) -> Preselection:
    """Choose pairs of series.

    Args:
        log_prices: (T, N) log prices in time order; NaN = absent.
        method: ``all`` pairs, ``distance`` or ``cluster``.
        count: pairs that ``distance`` takes.
        algorithm: of ``cluster``: ``optics`` (finds the number of clusters; series in none have no pair)
            or ``kmeans``.
        components: principal components that describe a series.
        min_members: fewest series of an OPTICS cluster.
        clusters: number of k-means clusters.
        min_observations: fewest common bars of a pair.
        seed: of the starts of k-means; everything else is deterministic.

    Returns:
        The candidates and the refused pairs. Absent returns count as 0 (the mean) in the components.

    Raises:
        ConfigurationError: a method is not known, or a number is out of range.
        DataError: ``log_prices`` is not (T, N).
    """
    _known("method", method, get_args(Method))
    _known("algorithm", algorithm, get_args(Algorithm))
    numbers = {"count": count, "components": components, "min_members": min_members, "clusters": clusters}
    for name, value in numbers.items():
        least = 2 if name == "min_members" else 1
        if value < least:
            raise ConfigurationError(f"{name} is {value}; use at least {least}")
    prices = np.asarray(log_prices, dtype=np.float64)
    if prices.ndim != 2:
        raise DataError(f"log_prices have {prices.ndim} dimensions; give (T, N)")
    prices = np.where(np.isfinite(prices), prices, np.nan)
    returns = log_returns(prices)
    reasons = _reasons(prices, returns, min_observations)
    allowed = np.triu(reasons == "", 1)
    if method == "distance":
        pairs = _closest(prices, allowed, count)
    elif method == "cluster":
        labels = _cluster_labels(
            returns, min_observations, algorithm, components, min_members, clusters, seed
        )
        together = (labels[:, np.newaxis] == labels) & (labels >= 0)
        pairs = np.argwhere(allowed & together)
    else:
        pairs = np.argwhere(allowed)
    refused = np.argwhere(np.triu(reasons != "", 1))
    frame = pl.DataFrame(
        {"first": refused[:, 0], "second": refused[:, 1], "reason": reasons[refused[:, 0], refused[:, 1]]},
        schema=REFUSED_SCHEMA,
    )
    return Preselection(pairs.astype(np.int64), frame)


def _known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigurationError(f"{name} {value!r} is not known; use one of {', '.join(known)}")


def _reasons(prices: Floats, returns: Floats, min_observations: int) -> NDArray[Any]:
    """(N, N) why a pair is refused, "" where it is not."""
    reasons = np.full((prices.shape[1],) * 2, "", dtype="<U17")
    alike = {"collinear_prices": _correlations(prices), "collinear_returns": _correlations(returns)}
    for reason, correlations in alike.items():
        reasons[np.abs(correlations) >= 1.0 - COLLINEAR] = reason
    still = _constant(prices) | _constant(returns)
    reasons[still | still[:, np.newaxis]] = "constant_series"
    present = np.isfinite(returns).astype(np.float64)
    reasons[present.T @ present < max(min_observations, 3)] = "insufficient_data"
    return reasons


def _constant(values: Floats) -> NDArray[np.bool_]:
    """Which series do not vary; one without any value counts as constant."""
    low = np.where(np.isfinite(values), values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(np.isfinite(values), values, -np.inf).max(axis=0, initial=-np.inf)
    with np.errstate(invalid="ignore"):
        varies: NDArray[np.bool_] = high - low > CONSTANT * np.maximum(np.abs(high), np.abs(low))
    return ~varies


def _correlations(values: Floats) -> Floats:
    """(N, N) correlations over the common values of each pair; NaN where there is none."""
    mask = np.isfinite(values)
    present = mask.astype(np.float64)
    counts = np.maximum(present.sum(axis=0), 1.0)
    filled = np.where(mask, values, 0.0)
    filled = np.where(mask, filled - filled.sum(axis=0) / counts, 0.0)
    largest = np.max(np.abs(filled), axis=0, initial=0.0)
    filled = filled / np.where(largest > 0.0, largest, 1.0)
    common = np.maximum(present.T @ present, 1.0)
    sums, squares = filled.T @ present, (filled * filled).T @ present
    covariance = filled.T @ filled - sums * sums.T / common
    variance = squares - sums * sums / common
    with np.errstate(all="ignore"):
        correlations: Floats = covariance / np.sqrt(variance * variance.T)
    return correlations


def _closest(prices: Floats, allowed: NDArray[np.bool_], count: int) -> Integers:
    """The ``count`` allowed pairs of the least mean squared difference of prices that start at 1.

    Products of the whole matrix find a few times as many, whose differences are then summed directly.
    """
    candidates = np.argwhere(allowed)
    if not len(candidates):
        return candidates
    mask = np.isfinite(prices)
    first = prices[np.argmax(mask, axis=0), np.arange(prices.shape[1])]
    with np.errstate(over="ignore"):
        level = np.exp(prices - first)
    mask &= np.isfinite(level)
    filled, present = np.where(mask, level, 0.0), mask.astype(np.float64)
    squares = (filled * filled).T @ present
    rough = (squares + squares.T - 2.0 * filled.T @ filled) / np.maximum(present.T @ present, 1.0)
    order = np.argsort(rough[candidates[:, 0], candidates[:, 1]], kind="stable")
    candidates = candidates[order[: OVERSAMPLING * count]]
    common = [mask[:, i] & mask[:, j] for i, j in candidates]
    exact = np.array(
        [
            np.mean((level[bars, i] - level[bars, j]) ** 2) if bars.any() else np.inf
            for bars, (i, j) in zip(common, candidates, strict=True)
        ]
    )
    return candidates[np.lexsort((candidates[:, 1], candidates[:, 0], exact))[:count]]


def _cluster_labels(
    returns: Floats,
    min_observations: int,
    algorithm: Algorithm,
    components: int,
    min_members: int,
    clusters: int,
    seed: int,
) -> Integers:
    """(N,) cluster of each series, -1 for none.

    The series are put into an order of their own contents first, so that the clusters do not depend on the
    order in which they are given.
    """
    from sklearn.cluster import OPTICS, KMeans

    mask = np.isfinite(returns)
    labels = np.full(returns.shape[1], -1, dtype=np.int64)
    usable = np.flatnonzero((mask.sum(axis=0) >= max(min_observations, 3)) & ~_constant(returns))
    if len(usable) < min_members:
        return labels
    usable = np.array(sorted(usable, key=lambda column: np.ascontiguousarray(returns[:, column]).tobytes()))
    chosen = returns[:, usable]
    standard = (chosen - np.nanmean(chosen, axis=0)) / np.nanstd(chosen, axis=0)
    _, scale, axes = np.linalg.svd(np.nan_to_num(standard), full_matrices=False)
    kept = min(components, len(scale))
    loadings = (axes[:kept].T * scale[:kept]) / np.sqrt(len(standard))
    model = (
        OPTICS(min_samples=min_members)
        if algorithm == "optics"
        else KMeans(n_clusters=min(clusters, len(usable)), n_init=10, random_state=seed)
    )
    labels[usable] = model.fit_predict(loadings)
    return labels
