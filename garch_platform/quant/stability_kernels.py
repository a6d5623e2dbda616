"""Kernels of the stability tests: ARCH-LM, Ljung-Box, rolling deviation, sign bias, CUSUM of squares.

A series is scaled by its largest value, centred, and scaled to unit variance, so that products neither
overflow nor vanish. The lagged products of the ARCH regression are summed over the bars that all of them
share, and the few bars at either end are added to each: nothing is subtracted, so nothing cancels when a
large move lies at an end.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant import window_kernels
from garch_platform.quant.compiled import inlined, kernel
from garch_platform.quant.window_kernels import WORK_ROWS, window_moments

__all__ = ["STABILITY_COLUMNS", "stability_statistics"]

Floats = NDArray[np.float64]

STABILITY_COLUMNS = ("count", "constant", "arch_lm", "arch_pivot", "ljung_box", "rolling_std_cv")
"""Columns of the results of `stability_statistics`."""
ADEQUACY_COLUMNS = ("count", "sign", "negative_size", "positive_size", "joint", "cusum")
"""Columns of the results of `residual_statistics`: three t-statistics, n R^2, and the CUSUM's supremum."""

CONSTANT_TOLERANCE = 1e-12
REORDERED = frozenset({"reassoc", "contract"})


@kernel("f8(f8[::1], f8[::1])", fastmath=REORDERED)
def _dot(left: Floats, right: Floats) -> float:
    total = 0.0
    for t in range(len(left)):
        total += left[t] * right[t]
    return total


@kernel("f8(f8[::1])", fastmath=REORDERED)
def _sum(values: Floats) -> float:
    total = 0.0
    for t in range(len(values)):
        total += values[t]
    return total


@inlined
def _lagged_sum(values: Floats, lag: int, start: int, stop: int) -> float:
    """Sum of values[s] * values[s - lag] for s in [start, stop)."""
    return _dot(values[start:stop], values[start - lag : stop - lag])


@inlined
def _present(row: Floats, values: Floats) -> tuple[int, float, float, float]:
    """Copy the finite values; their count, smallest, largest and largest magnitude."""
    count, low, high = 0, np.inf, -np.inf
    for value in row:
        if math.isfinite(value):
            values[count] = value
            low, high = min(low, value), max(high, value)
            count += 1
    return count, low, high, max(abs(low), abs(high))


@inlined
def _standardise(values: Floats, count: int, scale: float) -> float:
    """Centre and scale to unit variance in place; the mean in the new units.

    The first scaling is by a power of two, so that no digit of a series far from 0 is lost.
    """
    factor = 2.0 ** -min(max(math.frexp(scale)[1], -1000), 1000)
    for t in range(count):
        values[t] *= factor
    mean = _sum(values[:count]) / count
    for t in range(count):
        values[t] -= mean
    correction = _sum(values[:count]) / count
    for t in range(count):
        values[t] -= correction
    deviation = math.sqrt(_lagged_sum(values, 0, 0, count) / count)
    for t in range(count):
        values[t] /= deviation
    return (mean + correction) / deviation


@inlined
def _lagged_covariances(values: Floats, count: int, lags: int, products: Floats, sums: Floats) -> float:
    """Centred products (lower triangle) of the values and their lags over the bars that have all lags.

    Row ``lags - i`` belongs to lag i, so that the regressand comes last. Returns the smallest share of a sum
    of squares that is left when its mean is taken off.
    """
    used = count - lags
    shared = _sum(values[lags:used])
    for i in range(lags + 1):
        sums[lags - i] = shared + _sum(values[lags - i : lags]) + _sum(values[used : count - i])
    for k in range(lags + 1):
        shared = _lagged_sum(values, k, lags, used)
        for i in range(lags + 1 - k):
            edges = _lagged_sum(values, k, lags - i, lags) + _lagged_sum(values, k, used, count - i)
            products[lags - i, lags - i - k] = shared + edges
    left = 1.0
    for i in range(lags + 1):
        uncentred = products[i, i]
        for j in range(i + 1):
            products[i, j] -= sums[i] * sums[j] / used
        share = products[i, i] / uncentred
        left = min(left, share) if share > 0.0 else 0.0
    return left


@inlined
def _explained(products: Floats, lags: int) -> tuple[float, float]:
    """Share of the last variable's sum of squares explained by the others, and the smallest relative pivot."""
    pivot, explained, total = 1.0, 0.0, products[lags, lags]
    for i in range(lags + 1):
        rest = products[i, i]
        for j in range(i):
            for m in range(j):
                products[i, j] -= products[i, m] * products[j, m]
            products[i, j] /= products[j, j]
            rest -= products[i, j] * products[i, j]
        if i < lags:
            pivot = min(pivot, rest / products[i, i])
            if not pivot > 0.0:
                return np.nan, 0.0
            products[i, i] = math.sqrt(rest)
    for j in range(lags):
        explained += products[lags, j] * products[lags, j]
    return explained / total, pivot


@inlined
def _arch_lm(squares: Floats, count: int, lags: int, products: Floats, sums: Floats) -> tuple[float, float]:
    """n R^2 of the squares on a constant and their lags, and the smallest relative pivot."""
    level = _sum(squares[:count]) / count
    for t in range(count):
        squares[t] -= level
    left = _lagged_covariances(squares, count, lags, products, sums)
    if left == 0.0:
        return np.nan, 0.0
    explained, pivot = _explained(products, lags)
    return (count - lags) * explained, min(left, pivot)


@inlined
def _ljung_box(values: Floats, count: int, lags: int) -> float:
    """n (n + 2) times the sum of squared autocorrelations of centred values over n - lag."""
    power = _lagged_sum(values, 0, 0, count)
    total = 0.0
    for k in range(1, lags + 1):
        correlation = _lagged_sum(values, k, k, count) / power
        total += correlation * correlation / (count - k)
    return count * (count + 2.0) * total


@inlined
def _rolling_variation(values: Floats, window: int, sums: Floats, work: Floats) -> float:
    """Deviation over mean (ddof 1) of the deviations (ddof 1) of all runs of ``window`` values."""
    _, deviations = window_moments(values, window, sums[0], sums[1], work)
    windows = len(deviations)
    for i in range(windows):
        deviations[i] = math.sqrt(deviations[i] / (window - 1))
    average = _sum(deviations) / windows
    for i in range(windows):
        deviations[i] -= average
    return math.sqrt(_dot(deviations, deviations) / (windows - 1)) / average


@kernel("void(f8[:, ::1], i8, i8, i8, b1, b1, f8[:, ::1])", uses=(window_kernels,))
def stability_statistics(
    series: Floats,
    arch_lags: int,
    ljung_box_lags: int,
    window: int,
    centred: bool,
    squared: bool,
    results: Floats,
) -> None:
    """Test statistics of each row of ``series``.

    Args:
        series: (N, T), a series a row; values that are not finite are dropped.
        arch_lags, ljung_box_lags: lags of the two tests, 0 for none.
        window: length of the rolling standard deviation, 0 for none.
        centred: whether ARCH-LM is of the squares about the mean, or about 0.
        squared: whether Ljung-Box is of the squared values.
        results: (N, 6), filled with `STABILITY_COLUMNS`; NaN where a statistic does not exist.
    """
    length = series.shape[1]
    values, squares = np.empty(length), np.empty(length)
    rolled, work = np.empty((2, length)), np.empty((WORK_ROWS, length))
    products = np.empty((arch_lags + 1, arch_lags + 1))
    sums = np.empty(arch_lags + 1)
    for row in range(len(series)):
        results[row] = np.nan
        count, low, high, scale = _present(series[row], values)
        results[row, 0] = count
        constant = count == 0 or not high - low > CONSTANT_TOLERANCE * scale
        results[row, 1] = constant
        if constant:
            continue
        mean = _standardise(values, count, scale)
        shift = 0.0 if centred else mean
        if arch_lags > 0 and count > 2 * arch_lags + 1:
            for t in range(count):
                squares[t] = (values[t] + shift) * (values[t] + shift)
            results[row, 2], results[row, 3] = _arch_lm(squares, count, arch_lags, products, sums)
        if window > 1 and count > window:
            results[row, 5] = _rolling_variation(values[:count], window, rolled, work)
        if ljung_box_lags > 0 and count > ljung_box_lags:
            if squared:
                for t in range(count):
                    values[t] = (values[t] + mean) * (values[t] + mean)
                _standardise(values, count, 1.0)
            results[row, 4] = _ljung_box(values, count, ljung_box_lags)
