"""Quantiles of the cubic Engle-Granger statistic (Kapetanios, Shin and Snell 2006) without cointegration.

    python benchmarks/kss_quantiles.py [--draws 1000000] [--bars 1000]

Pairs of Gaussian random walks, a constant in the cointegrating regression, no lagged differences, and the
direction with the lower Engle-Granger statistic, as `scan_pairs` reports it. The first column, of independent
walks, is the table of `garch_platform.quant.pairs.null_distributions`. Where the walks' steps correlate, the
two directions are nearly one and the choice between them costs less: the table is conservative.
"""

from __future__ import annotations

import argparse

import numpy as np

from garch_platform.quant.pairs.scan import scan_pairs

SHARES = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
    *(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999),
)
CORRELATIONS = (0.0, 0.7, 0.9)
BATCH = 2000


def statistics(rng: np.random.Generator, *, draws: int, bars: int, correlation: float) -> np.ndarray:
    """(draws,) statistics of pairs whose steps correlate."""
    pairs = np.column_stack([np.arange(BATCH), np.arange(BATCH) + BATCH])
    found = []
    for _ in range(-(-draws // BATCH)):
        steps = rng.standard_normal((bars, 2 * BATCH))
        steps[:, BATCH:] *= np.sqrt(1.0 - correlation**2)
        steps[:, BATCH:] += correlation * steps[:, :BATCH]
        scan = scan_pairs(np.cumsum(steps, axis=0), pairs=pairs, lags=0, tests=("kss",))
        found.append(scan["kss_statistic"].drop_nulls().to_numpy())
    return np.concatenate(found)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--draws", type=int, default=1_000_000)
    arguments.add_argument("--bars", type=int, default=1000)
    options = arguments.parse_args()
    rng = np.random.default_rng(20060422)
    columns = [
        np.quantile(statistics(rng, draws=draws, bars=options.bars, correlation=correlation), SHARES)
        for correlation, draws in zip(CORRELATIONS, (options.draws, *[options.draws // 5] * 2), strict=True)
    ]
    print(f"{options.bars} bars, {options.draws:,} pairs ({options.draws // 5:,} where steps correlate)")
    print(f"{'share below':>12}" + "".join(f"{f'correlation {c}':>18}" for c in CORRELATIONS))
    for share, *values in zip(SHARES, *columns, strict=True):
        print(f"{share:>12}" + "".join(f"{value:>18.3f}" for value in values))


if __name__ == "__main__":
    main()
