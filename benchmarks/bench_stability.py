"""ARCH-LM, Ljung-Box and the variation of the rolling deviation against statsmodels, one thread each.

    python benchmarks/bench_stability.py [--quick]

The peers take a series at a time: `het_arch`, `acorr_ljungbox` and numpy's deviation of sliding windows, of
the series scaled to unit variance. Times a series are medians; differences are the largest relative ones of
statistics and p-values.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch

from garch_platform.quant.stability import arch_lm, ljung_box, rolling_std_variation, stability_tests

Floats = NDArray[np.float64]
ARCH_LAGS, LJUNG_BOX_LAGS, WINDOW = 5, 10, 30


def with_statsmodels(returns: Floats) -> tuple[float, ...]:
    """Both tests and the variation of one series."""
    standard = (returns - returns.mean()) / returns.std()
    lm = het_arch(standard, nlags=ARCH_LAGS, result_object=True)
    lb = acorr_ljungbox(standard, lags=[LJUNG_BOX_LAGS])
    rolling = np.lib.stride_tricks.sliding_window_view(standard, WINDOW).std(axis=1, ddof=1)
    return (
        lm.lm,
        lm.lmpval,
        lb["lb_stat"].iloc[0],
        lb["lb_pvalue"].iloc[0],
        rolling.std(ddof=1) / rolling.mean(),
    )


def ours(panel: Floats) -> Floats:
    """The same of every series of a panel, (N, 5)."""
    lm = arch_lm(panel, lags=ARCH_LAGS, centred=True)
    lb = ljung_box(panel, lags=LJUNG_BOX_LAGS)
    variation = rolling_std_variation(panel, WINDOW)
    return np.column_stack([lm.statistic, lm.pvalue, lb.statistic, lb.pvalue, variation])


def verdicts(panel: Floats, workers: int = 1) -> object:
    """The frame that the asset `stability` is made of."""
    return stability_tests(
        panel,
        test_window=WINDOW,
        arch_lags=ARCH_LAGS,
        ljung_box_lags=LJUNG_BOX_LAGS,
        min_observations=60,
        workers=workers,
    )


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of a call."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    repeats = 5 if parser.parse_args().quick else 25
    rng = np.random.default_rng(0)
    print(
        f"{'n':>6}{'N':>7}{'statsmodels':>14}{'stability_tests':>17}{'ratio':>8}{'2 workers':>12}{'difference':>12}"
    )
    for count, series in ((250, 130), (1950, 130), (1950, 3000), (10_000, 130)):
        panel = 1e-3 * rng.standard_t(5, (count, series))
        few = panel[:, : min(series, repeats)]
        expected = np.array([with_statsmodels(column) for column in few.T])
        difference = np.max(np.abs(ours(few) / expected - 1.0))
        peer = statistics.median(median_seconds(partial(with_statsmodels, column), 1) for column in few.T)
        one = median_seconds(partial(verdicts, panel, 1), repeats) / series
        two = median_seconds(partial(verdicts, panel, 2), repeats) / series
        print(
            f"{count:>6}{series:>7}{1e6 * peer:>11.0f} us{1e6 * one:>14.1f} us{peer / one:>7.0f}x"
            f"{1e6 * two:>9.1f} us{difference:>12.1e}"
        )


if __name__ == "__main__":
    main()
