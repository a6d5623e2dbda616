"""Compiled passes over single series: normalisation of a panel, and variance paths.

References
----------
.. [1] Bollerslev, T. (1986), "Generalized autoregressive conditional heteroskedasticity", Journal of
   Econometrics 31, 307-327.
"""

# ruff: noqa: C901
# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np

from garch_platform.quant.compiled import inlined, kernel

__all__ = ["normalise", "variance_path"]

BLOCK, TILE = 8, 64
DECAY = 0.94
PRESAMPLE = 75
MEAN, SCALE, LOW, HIGH, BACKCAST, MAJORITY = 0, 1, 2, 3, 4, 5


@inlined
def majority(row):
    """Share of the value that would win by Boyer and Moore's vote: right if it is above one half."""
    candidate, votes, found = row[0], 0, 0
    for t in range(1, len(row)):
        votes += row[t] == row[t - 1]
    if votes == 0 and len(row) > 1:
        return 0.0
    votes = 0
    for value in row:
        if votes == 0:
            candidate = value
        votes += 1 if value == candidate else -1
    for value in row:
        found += value == candidate
    return found / len(row)


@kernel(
    "void(f8[:, ::1], i8, i8, f8[:, ::1], i8[::1], f8[:, ::1])", fastmath=frozenset({"reassoc", "contract"})
)
def normalise(panel, first, last, series, counts, moments):
    """Drop absent values from columns ``first`` to ``last`` and bring them to mean 0, variance 1.

    Args:
        panel: (T, N); NaN or infinite = absent.
        series: (N, T) result: the first ``counts[i]`` values of row i; what follows them is void.
        counts: (N,) result: present values.
        moments: (N, 6) result: mean, standard deviation (n in the denominator; 0 if
            there is none whose square is representable), least, greatest,
            `arch`'s backcast of the normalised series (the mean of the first 75 squares with weights
            0.94^t), and the share of a value that makes up more than half of the series (else void).
    """
    length = panel.shape[0]
    for left in range(first, last, BLOCK):
        for top in range(0, length, TILE):
            for i in range(left, min(left + BLOCK, last)):
                count, row = counts[i], series[i]
                for t in range(top, min(top + TILE, length)):
                    row[count] = panel[t, i]
                    count += math.isfinite(panel[t, i])
                counts[i] = count
    for i in range(first, last):
        n, row = counts[i], series[i]
        if n == 0:
            continue
        low, high = row[0], row[0]
        for t in range(n):
            low, high = min(low, row[t]), max(high, row[t])
        moments[i, LOW], moments[i, HIGH] = low, high
        moments[i, MAJORITY] = majority(row[:n])
        largest = max(abs(low), abs(high))
        if not 1e-140 < largest < 1e140:
            continue
        # a power of two rounds nothing
        unit = 2.0 ** math.floor(math.log2(largest))
        inverse = 1.0 / unit
        total = 0.0
        for t in range(n):
            row[t] *= inverse
            total += row[t]
        mean, squares = total / n, 0.0
        for t in range(n):
            row[t] -= mean
            squares += row[t] * row[t]
        scale = math.sqrt(squares / n)
        moments[i, MEAN], moments[i, SCALE] = mean * unit, scale * unit
        if scale > 0.0:
            inverse = 1.0 / scale
            for t in range(n):
                row[t] *= inverse
        weight, weights, backcast = 1.0, 0.0, 0.0
        for t in range(min(PRESAMPLE, n)):
            weights += weight
            backcast += weight * row[t] * row[t]
            weight *= DECAY
        moments[i, BACKCAST] = backcast / weights


@kernel("f8(f8[::1], f8[::1], f8, f8[::1])")
def variance_path(returns, parameters, initial, path):
    """Variances of GJR-GARCH(1,1) [1]_ at given parameters; returns the one after the last return.

    Args:
        returns: (T,); after an absent (NaN) one the squared shock is its expectation.
        parameters: mu, omega, alpha, gamma, beta.
        initial: variance of the first return.
        path: (T,) result.
    """
    mu, omega, alpha, gamma, beta = parameters
    h = initial
    for t in range(len(returns)):
        path[t] = h
        e = returns[t] - mu
        if np.isnan(e):
            h = omega + (alpha + 0.5 * gamma + beta) * h
        else:
            h = omega + (alpha + gamma if e < 0.0 else alpha) * e * e + beta * h
    return h
