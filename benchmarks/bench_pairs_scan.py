"""The pair scan against statsmodels, and how its time and memory grow with the universe.

    python benchmarks/bench_pairs_scan.py [--quick]

Correlated random walks, 1950 bars. Times are processor time of one thread; the scan's include its frame.
Ratios are of one run: medians of statsmodels' calls against the median scan divided by its calls.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
from statsmodels.tsa.stattools import coint
from statsmodels.tsa.vector_ar.vecm import coint_johansen

from garch_platform.quant.pairs.cointegration import dickey_fuller_frozen, engle_granger_pairs
from garch_platform.quant.pairs.correlation import correlation_matrix
from garch_platform.quant.pairs.scan import BYTES_PER_PAIR, scan_pairs, scan_tiles

BARS = 1950
TILE = 16_384


def market(symbols: int, bars: int = BARS) -> np.ndarray:
    """(bars, symbols) log prices with a common factor."""
    rng = np.random.default_rng(symbols)
    steps = rng.standard_normal((bars, symbols)) + rng.standard_normal((bars, 1))
    return 4.0 + 0.001 * np.cumsum(steps, axis=0)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median processor time of one call."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)


def compare(quick: bool) -> None:
    """Time of each test for a pair, beside statsmodels."""
    symbols, repeats = (40, 3) if quick else (80, 5)
    panel = market(symbols)
    pairs = symbols * (symbols - 1) // 2
    both = np.column_stack(np.triu_indices(symbols, 1))
    y, x = panel[:, 0], panel[:, 1]
    slow, fast = (3, 10) if quick else (9, 50)
    fixed = seconds(lambda: coint(y, x, maxlag=1, autolag=None), fast)
    aic = seconds(lambda: coint(y, x, autolag="aic"), slow)
    johansen = seconds(lambda: coint_johansen(panel[:, :2], 0, 1), fast)
    plain = {
        lags: seconds(lambda lags=lags: scan_pairs(panel, lags=lags, tests=()), repeats) / pairs
        for lags in (1, "aic", "bic")
    }
    full = seconds(lambda: scan_pairs(panel, lags="aic"), repeats) / pairs
    trace = seconds(lambda: scan_pairs(panel, lags=1, tests=("johansen",)), repeats) / pairs - plain[1]
    bare = seconds(lambda: engle_granger_pairs(panel, both, lags=1), repeats) / pairs
    frozen = seconds(lambda: dickey_fuller_frozen(panel - panel.mean(0), lags=1), 5 * repeats) / symbols
    correlation = seconds(lambda: correlation_matrix(panel), 5 * repeats)
    numpy_correlation = seconds(lambda: np.corrcoef(np.diff(panel, axis=0).T), 5 * repeats)
    rows = (
        ("Engle-Granger, AIC, both directions", 2 * aic, plain["aic"]),
        ("Engle-Granger, BIC, both directions", 2 * aic, plain["bic"]),
        ("Engle-Granger, 1 lag, both directions", 2 * fixed, plain[1]),
        ("engle_granger_pairs, 1 lag, one direction", fixed, bare),
        ("Johansen, 1 lag (added to a scan)", johansen, trace),
        ("whole row: AIC both, Johansen, KSS, Hurst", 2 * aic + johansen, full),
    )
    print(f"{symbols} symbols, {pairs} pairs, {BARS} bars; microseconds a pair")
    print(f"{'':<44}{'statsmodels':>12}{'scan':>9}{'ratio':>9}")
    for name, peer, ours in rows:
        print(f"{name:<44}{1e6 * peer:>12.0f}{1e6 * ours:>9.2f}{peer / ours:>8.0f}x")
    print(f"dickey_fuller_frozen, 1 lag: {1e6 * frozen:.2f} microseconds a spread")
    print(
        f"correlation_matrix: {1e3 * correlation:.2f} ms, numpy's corrcoef {1e3 * numpy_correlation:.2f} ms"
    )


def grow(quick: bool) -> None:
    """Time a pair as the universe grows."""
    print(f"\n{'symbols':>8}{'pairs':>10}{'1 lag':>10}{'whole row, AIC':>17}   microseconds a pair")
    for symbols in (50, 100, 200) if quick else (50, 100, 200, 400, 1000):
        panel = market(symbols)
        total = symbols * (symbols - 1) // 2
        tiles = -(-total // TILE)
        # Beyond the first tiles, every fifth one of the whole row stands for the others.
        skip = [number for number in range(tiles) if tiles > 5 and number % 5]
        started = time.process_time()
        scan_pairs(panel, lags=1, tests=(), tile_size=TILE)
        fixed = time.process_time() - started
        started = time.process_time()
        done = sum(len(frame) for _, frame in scan_tiles(panel, lags="aic", tile_size=TILE, skip=skip))
        full = time.process_time() - started
        print(f"{symbols:>8}{total:>10,}{1e6 * fixed / total:>10.2f}{1e6 * full / done:>17.2f}")


def remember(quick: bool) -> None:
    """Peak memory of a large scan, tile by tile, and its extrapolated time."""
    symbols = 500 if quick else 3000
    panel = market(symbols)
    total = symbols * (symbols - 1) // 2
    tiles = -(-total // TILE)
    skip = [number for number in range(tiles) if number % (tiles // (2 if quick else 8))]
    tracemalloc.start()
    started = time.process_time()
    done = sum(len(frame) for _, frame in scan_tiles(panel, lags="aic", tile_size=TILE, skip=skip))
    passed = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bound = 32 * panel.size + BYTES_PER_PAIR * TILE
    print(f"\n{symbols} symbols, {total:,} pairs: {done:,} of them scanned, whole row with AIC")
    print(f"peak memory beside the log prices {peak / 2**20:.0f} MiB, bound {bound / 2**20:.0f} MiB", end="")
    print(f" = 32 T N + {BYTES_PER_PAIR} a pair of a tile of {TILE:,}")
    print(
        f"{1e6 * passed / done:.2f} microseconds a pair; extrapolated to all: {passed / done * total:.0f} s, one thread"
    )


def main() -> None:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="a smaller universe and fewer repeats")
    quick = arguments.parse_args().quick
    scan_pairs(market(3, 100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(quick)
    grow(quick)
    remember(quick)


if __name__ == "__main__":
    main()
