"""Ljung-Box and ARCH-LM statistics of eight residual series at a time, for compiled kernels.

References
----------
.. [1] Ljung, G. M. and Box, G. E. P. (1978), Biometrika 65, 297-303.
.. [2] Engle, R. F. (1982), Econometrica 50, 987-1007.
"""

# ruff: noqa: C901
# mypy: disable-error-code="no-untyped-def"

import math
from typing import Final

from garch_platform.quant.compiled import inlined
from garch_platform.quant.volatility.lanes import LANES, lanes

__all__ = ["ARCH_LAGS", "LJUNG_BOX_LAGS", "residual_statistics"]

VECTORS: Final = lanes()
load, store, splat = VECTORS.load, VECTORS.store, VECTORS.splat
LJUNG_BOX_LAGS: Final = 10
ARCH_LAGS: Final = 5


@inlined
def centre(values, lengths, steps):
    """Take each lane's mean off its first ``lengths`` rows below the padding; zero the rows after them."""
    total = splat(0.0)
    for lane in range(LANES):
        for t in range(lengths[lane], steps):
            values[LJUNG_BOX_LAGS + t, lane] = 0.0
    for t in range(steps):
        total = total + load(values, LJUNG_BOX_LAGS + t)
    store(values, 0, total)
    for lane in range(LANES):
        values[0, lane] /= max(lengths[lane], 1)
    mean = load(values, 0)
    store(values, 0, splat(0.0))
    for t in range(steps):
        store(values, LJUNG_BOX_LAGS + t, load(values, LJUNG_BOX_LAGS + t) - mean)
    for lane in range(LANES):
        for t in range(lengths[lane], steps):
            values[LJUNG_BOX_LAGS + t, lane] = 0.0


@inlined
def lag_products(z, squares, steps, products):
    """Sums over t of z_t z_{t-k}, k = 0 to 10, then of the squares at lags 0 to 5."""
    zero = splat(0.0)
    a0, a1, a2, a3, a4, a5 = zero, zero, zero, zero, zero, zero
    a6, a7, a8, a9, a10 = zero, zero, zero, zero, zero
    b0, b1, b2, b3, b4, b5 = zero, zero, zero, zero, zero, zero
    for t in range(LJUNG_BOX_LAGS, LJUNG_BOX_LAGS + steps):
        a, b = load(z, t), load(squares, t)
        a0, a1, a2 = a0 + a * a, a1 + a * load(z, t - 1), a2 + a * load(z, t - 2)
        a3, a4 = a3 + a * load(z, t - 3), a4 + a * load(z, t - 4)
        a5, a6 = a5 + a * load(z, t - 5), a6 + a * load(z, t - 6)
        a7, a8 = a7 + a * load(z, t - 7), a8 + a * load(z, t - 8)
        a9, a10 = a9 + a * load(z, t - 9), a10 + a * load(z, t - 10)
        b0, b1, b2 = b0 + b * b, b1 + b * load(squares, t - 1), b2 + b * load(squares, t - 2)
        b3, b4 = b3 + b * load(squares, t - 3), b4 + b * load(squares, t - 4)
        b5 = b5 + b * load(squares, t - 5)
    for row, sums in enumerate((a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, b0, b1, b2, b3, b4, b5)):
        store(products, row, sums)


@inlined
def arch_statistic(x, lane, n, products, moments):
    """Engle's (n - p) R^2 of x_t on p lags of itself and a constant, from lag products and the edges."""
    p, pad, first = ARCH_LAGS, LJUNG_BOX_LAGS, LJUNG_BOX_LAGS + 1
    rows = n - p
    for j in range(p + 1):
        total = 0.0
        for u in range(p - j):
            total -= x[pad + u, lane]
        for u in range(n - j, n):
            total -= x[pad + u, lane]
        moments[p + 1, j] = total
    for j in range(p + 1):
        for k in range(j, p + 1):
            total = products[first + k - j, lane]
            for u in range(k - j, p - j):
                total -= x[pad + u, lane] * x[pad + u - k + j, lane]
            for u in range(n - j, n):
                total -= x[pad + u, lane] * x[pad + u - k + j, lane]
            moments[k, j] = total - moments[p + 1, j] * moments[p + 1, k] / rows
    # the lags come first in the factorisation; what is left of x_t is the unexplained sum of squares
    whole = moments[0, 0]
    explained = 0.0
    for i in range(1, p + 1):
        for j in range(1, i):
            total = moments[i, j]
            for m in range(1, j):
                total -= moments[i, m] * moments[j, m]
            moments[i, j] = total / moments[j, j]
        rest = moments[i, i]
        own = moments[i, 0]
        for m in range(1, i):
            rest -= moments[i, m] * moments[i, m]
            own -= moments[i, m] * moments[m, 0]
        if not rest > 1e-12 * moments[i, i]:
            return math.nan
        moments[i, i] = math.sqrt(rest)
        moments[i, 0] = own / moments[i, i]
        explained += moments[i, 0] ** 2
    return rows * explained / whole


@inlined
def residual_statistics(z, squares, lengths, steps, products, moments, out):
    """Ljung-Box statistic (10 lags) and ARCH-LM statistic (5 lags) of eight series.

    Args:
        z: (10 + steps, 8) residuals below ten rows of padding; overwritten.
        squares: the same shape; overwritten.
        lengths: (8,) returns of each lane.
        steps: the greatest length.
        products, moments: scratch of at least (17, 8) and (7, 6).
        out: (2, 8) the statistics; NaN where the series is too short or does not vary.
    """
    for k in range(LJUNG_BOX_LAGS):
        store(z, k, splat(0.0))
        store(squares, k, splat(0.0))
    for t in range(LJUNG_BOX_LAGS, LJUNG_BOX_LAGS + steps):
        value = load(z, t)
        store(squares, t, value * value)
    centre(z, lengths, steps)
    centre(squares, lengths, steps)
    lag_products(z, squares, steps, products)
    for lane in range(LANES):
        n, variance, variation = lengths[lane], products[0, lane], products[LJUNG_BOX_LAGS + 1, lane]
        total = 0.0
        for k in range(1, LJUNG_BOX_LAGS + 1):
            total += (products[k, lane] / variance) ** 2 / (n - k)
        out[0, lane] = n * (n + 2.0) * total if n > LJUNG_BOX_LAGS and variance > 0.0 else math.nan
        enough = n > 2 * ARCH_LAGS + 2 and variation > 0.0
        out[1, lane] = arch_statistic(squares, lane, n, products, moments) if enough else math.nan
