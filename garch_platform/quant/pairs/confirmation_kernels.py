"""Wild bootstrap of the Dickey-Fuller statistic without constant, compiled."""

from __future__ import annotations

import numpy as np

from garch_platform.quant.compiled import inlined, kernel

__all__ = ["wild_exceedances"]


@inlined
def _next(state):  # type: ignore[no-untyped-def]
    """One step of splitmix64: the new state and 64 random bits (Steele, Lea and Flood, 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, z ^ (z >> np.uint64(31))


@inlined
def _statistic(level, lags, gram, moments):  # type: ignore[no-untyped-def]
    """t-statistic of s_{t-1} in the regression of the change on s_{t-1} and ``lags`` earlier changes."""
    width = lags + 1
    gram[:, :] = 0.0
    moments[:] = 0.0
    total = 0.0
    used = 0
    row = np.empty(width)
    for t in range(lags + 1, len(level)):
        change = level[t] - level[t - 1]
        row[0] = level[t - 1]
        for lag in range(1, width):
            row[lag] = level[t - lag] - level[t - lag - 1]
        for a in range(width):
            moments[a] += row[a] * change
            for b in range(a + 1):
                gram[a, b] += row[a] * row[b]
        total += change * change
        used += 1
    # Ordered so that s_{t-1} comes last in the Cholesky factor: its t-statistic is then the last entry.
    rss = total
    last = 0.0
    for a in range(width):
        place = width - 1 - a
        for b in range(a + 1):
            other = width - 1 - b
            value = gram[max(place, other), min(place, other)]
            for c in range(b):
                value -= gram[c, width + a] * gram[c, width + b]
            if a == b:
                if value <= 0.0:
                    return np.inf
                gram[b, width + a] = np.sqrt(value)
            else:
                gram[b, width + a] = value / gram[b, width + b]
        value = moments[place]
        for c in range(a):
            value -= gram[c, width + a] * row[c]
        row[a] = value / gram[a, width + a]
        rss -= row[a] * row[a]
        last = row[a]
    variance = rss / (used - width)
    if variance <= 0.0:
        return np.inf
    return last / np.sqrt(variance)


@kernel("i8(f8[::1], i8, f8, i8, i8)")
def wild_exceedances(level, lags, statistic, draws, seed):  # type: ignore[no-untyped-def]
    """How many of ``draws`` paths with random signs of the changes have a statistic at or below the given one.

    Args:
        level: (n,) the spread; a path starts at its first value.
        lags: lagged differences in the regression.
        statistic: the observed one.
        draws: number of paths.
        seed: of the signs; the same seed gives the same count.
    """
    path = np.empty(len(level))
    gram = np.zeros((lags + 1, 2 * (lags + 1)))
    moments = np.zeros(lags + 1)
    state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    extreme = 0
    for _ in range(draws):
        bits = np.uint64(0)
        path[0] = level[0]
        for t in range(1, len(level)):
            if (t - 1) % 64 == 0:
                state, bits = _next(state)
            change = level[t] - level[t - 1]
            path[t] = path[t - 1] + (change if bits & np.uint64(1) else -change)
            bits >>= np.uint64(1)
        if _statistic(path, lags, gram, moments) <= statistic:
            extreme += 1
    return extreme
