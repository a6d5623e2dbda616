"""What the pair selection does where the truth is known: false passes, power, floor, score.

Prints the tables of docs/selection.md. Markets: market and group factors, GARCH(1,1) with Student-t(6)
shocks, drift; returns correlate by 0.8 inside groups of ten, so that hundreds of pairs pass the correlation
gates. Run it with ``--quick`` for a tenth of the draws.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

import numpy as np
import polars as pl
from markets import correlated_walks, panel_of, plant_pairs
from scipy.stats import beta, binom

from garch_platform.quant.pairs.cointegration import dickey_fuller_frozen
from garch_platform.quant.pairs.confirmation import confirm_spreads
from garch_platform.quant.pairs.floor import selection_floor
from garch_platform.quant.pairs.rules import HonestGates, SelectionRules
from garch_platform.quant.pairs.selection import judge, pair_evidence, select_pairs

METHODS = ("bh", "by", "by_all")
BARS = 1_000
SYMBOLS = 130
RATIOS = (25, 33, 50, 67, 100, 200)


def rules_of(method: str) -> SelectionRules:
    return SelectionRules(honest=HonestGates(false_discovery=method))  # type: ignore[arg-type]


def upper_bound(hits: int, trials: int) -> float:
    """Clopper-Pearson 95 % upper confidence bound (one-sided) of a share."""
    return 1.0 if hits == trials else float(beta.ppf(0.95, hits + 1, trials - hits))


def null_scan(seed: int, symbols: int = SYMBOLS) -> dict[str, int]:
    """Pairs that each rule selects on a market without cointegration."""
    rng = np.random.default_rng([1, seed, symbols])
    panel = panel_of(correlated_walks(symbols, BARS, rng))
    evidence = pair_evidence(panel, rules=rules_of("by_all"), bars_per_year=252.0, every_pair=False)
    counts = {}
    for method in METHODS:
        ledger = {
            row["profile"]: row
            for row in judge(evidence, rules=rules_of(method)).ledger.iter_rows(named=True)
        }
        counts[method] = ledger["honest"]["ranked"]
        if method == "bh":
            counts |= {"reached": ledger["honest"]["significant"], "classic": ledger["classic"]["ranked"]}
    return counts


def planted_scan(seed: int, symbols: int, ratio: int) -> list[dict[str, object]]:
    """One row a method: planted pairs found, false pairs, estimated half-lives."""
    rng = np.random.default_rng([2, seed, symbols, ratio])
    prices = correlated_walks(symbols, BARS, rng)
    planted = plant_pairs(prices, symbols // 10, BARS / ratio, rng)
    truth = {(f"S{first:04d}", f"S{second:04d}") for first, second in planted}
    panel = panel_of(prices)
    evidence = pair_evidence(panel, rules=rules_of("by_all"), bars_per_year=252.0, every_pair=False)
    rows = []
    for method in (*METHODS, "classic"):
        rules = rules_of("bh" if method == "classic" else method)
        chosen = replace(rules, profile="classic" if method == "classic" else "honest")
        table = judge(evidence, rules=chosen).table
        found = set(table.filter("passed").select("symbol_1", "symbol_2").rows())
        lives = table.filter(
            pl.struct("symbol_1", "symbol_2").is_in([{"symbol_1": a, "symbol_2": b} for a, b in truth])
        )
        rows.append(
            {
                "method": method,
                "found": len(found & truth),
                "planted": len(truth),
                "false": len(found - truth),
                "half_lives": [value / (BARS / ratio) for value in lives["half_life"] if value is not None],
                "infinite": lives["half_life"].null_count(),
            }
        )
    return rows


def print_null(pool: ProcessPoolExecutor, scans: int) -> None:
    print(f"\n## Null: {scans} markets without cointegration, {SYMBOLS} symbols, {BARS} bars")
    counts = list(pool.map(null_scan, range(scans), chunksize=4))
    print(f"pairs that reach the confirmation: mean {np.mean([c['reached'] for c in counts]):.1f}")
    print(f"{'rule':<10} {'any pass':>9} {'95 % bound':>11} {'mean pairs':>11} {'most':>6}")
    for rule in (*METHODS, "classic"):
        values = np.array([c[rule] for c in counts])
        hits = int((values > 0).sum())
        print(
            f"{rule:<10} {hits / scans:>9.1%} {upper_bound(hits, scans):>11.1%} "
            f"{values.mean():>11.2f} {values.max():>6}"
        )


def print_power(pool: ProcessPoolExecutor, scans: int) -> None:
    for symbols in (40, 130, 500):
        runs = scans if symbols < 500 else max(scans // 4, 2)
        print(
            f"\n## Power: {symbols} symbols, {symbols // 10} planted pairs, {BARS} bars, {runs} markets a row"
        )
        print(
            f"{'n/half-life':>11} {'rule':<8} {'power':>7} {'false share':>12} {'false pairs':>12} "
            f"{'half-life est./true':>20}"
        )
        for ratio in RATIOS:
            scan = partial(planted_scan, symbols=symbols, ratio=ratio)
            results = [row for rows in pool.map(scan, range(runs)) for row in rows]
            for method in (*METHODS, "classic"):
                rows = [row for row in results if row["method"] == method]
                found, planted = sum(r["found"] for r in rows), sum(r["planted"] for r in rows)
                shares = [r["false"] / max(r["found"] + r["false"], 1) for r in rows]
                false = np.mean([r["false"] for r in rows])
                lives = [v for r in rows for v in r["half_lives"]] + [np.inf] * sum(
                    r["infinite"] for r in rows
                )
                shown = f"{np.median(lives):.2f}" if method == "bh" else ""
                print(
                    f"{ratio:>11} {method:<8} {found / planted:>7.1%} {np.mean(shares):>12.1%} "
                    f"{false:>12.2f} {shown:>20}"
                )


def print_floor(pool: ProcessPoolExecutor, draws: int, markets: int) -> None:
    print(f"\n## Floor: {draws} wild draws of one market against {markets} fresh markets, {SYMBOLS} symbols")
    panel = panel_of(correlated_walks(SYMBOLS, BARS, np.random.default_rng(3)))
    floor = selection_floor(panel, rules=rules_of("bh"), draws=draws, seed=0)
    fresh = list(pool.map(null_scan, range(10_000, 10_000 + markets), chunksize=4))
    independent = []
    for seed in range(max(markets // 10, 2)):
        walks = 4.0 + 0.015 * np.cumsum(
            np.random.default_rng([4, seed]).standard_normal((BARS, SYMBOLS)), axis=0
        )
        ledger = select_pairs(
            panel_of(walks), rules=rules_of("bh"), bars_per_year=252.0, every_pair=False
        ).ledger
        independent.append(dict(ledger.select("profile", "ranked").iter_rows()))
    print(
        f"{'profile':<9} {'floor mean':>11} {'median':>7} {'95 %':>6} {'any':>7} "
        f"{'fresh mean':>11} {'independent walks':>18}"
    )
    for row in floor.summary.iter_rows(named=True):
        profile = row["profile"]
        truth = np.mean([c["bh" if profile == "honest" else "classic"] for c in fresh])
        walks_mean = np.mean([c[profile] for c in independent])
        print(
            f"{profile:<9} {floor.counts[profile].mean():>11.2f} {row['floor_median']:>7.0f} "
            f"{row['floor_q95']:>6.0f} {row['floor_any']:>7.1%} {truth:>11.2f} {walks_mean:>18.2f}"
        )


def print_tails(walks: int) -> None:
    print(f"\n## Size of the confirmation in the tail: {walks:,} GARCH-t random walks of 300 bars")
    rng = np.random.default_rng(5)
    draws = rng.standard_t(6, (300, walks)) / np.sqrt(1.5)
    from garch_platform.quant.timeseries import simulate_garch

    paths = np.cumsum(simulate_garch(draws, omega=0.02, alpha=0.08, beta=0.90), axis=0)
    _, asymptotic = dickey_fuller_frozen(paths, lags=1)
    _, used = confirm_spreads(paths, lags=1)
    print(f"{'level':>8} {'asymptotic':>11} {'with bootstrap':>15} {'95 % interval of the level':>27}")
    for level in (0.05, 0.01, 1e-3, 1e-4):
        low, high = binom.interval(0.95, walks, level)
        print(
            f"{level:>8.4g} {(asymptotic <= level).mean():>11.5f} {(used <= level).mean():>15.5f} "
            f"{f'{low / walks:.5f} to {high / walks:.5f}':>27}"
        )


def score_batches(planted: bool, wanted: int) -> Iterator[np.ndarray]:
    """Composite scores of Engle-Granger-selected random walks, or of planted pairs at n/half-life 100."""
    seed = found = 0
    while found < wanted:
        rng = np.random.default_rng([6, int(planted), seed])
        prices = correlated_walks(SYMBOLS, BARS, rng)
        truth: set[tuple[str, str]] = set()
        if planted:
            truth = {
                (f"S{a:04d}", f"S{b:04d}") for a, b in plant_pairs(prices, SYMBOLS // 2, BARS / 100, rng)
            }
        loose = SelectionRules(profile="classic")
        table = select_pairs(panel_of(prices), rules=loose, bars_per_year=252.0, every_pair=False).table
        table = table.filter(pl.col("coint_pvalue") <= 0.05, pl.col("score").is_not_null())
        keys = table.select("symbol_1", "symbol_2").rows()
        inside = [key in truth for key in keys] if planted else [True] * len(keys)
        batch = table.filter(pl.Series(inside, dtype=pl.Boolean))
        found += batch.height
        seed += 1
        yield batch.select(
            "score", "fit_score", "volatility_score", "trading_score", "diagnostics_score"
        ).to_numpy()


def print_score(wanted: int) -> None:
    print("\n## Composite score above 0.7, and the mean of its parts")
    print(f"{'pairs':<38} {'count':>7} {'> 0.7':>7} {'fit':>6} {'vol':>6} {'trade':>6} {'diag':>6}")
    for planted, name in (
        (False, "random walks that pass Engle-Granger"),
        (True, "planted, n/half-life 100"),
    ):
        values = np.vstack(list(score_batches(planted, wanted)))
        parts = " ".join(f"{mean:>6.2f}" for mean in values[:, 1:].mean(axis=0))
        print(f"{name:<38} {len(values):>7} {(values[:, 0] > 0.7).mean():>7.1%} {parts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws")
    parser.add_argument("--workers", type=int, default=2)
    share = 0.1 if (options := parser.parse_args()).quick else 1.0
    began = time.monotonic()
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        print_null(pool, int(400 * share))
        print_power(pool, int(40 * share))
        print_floor(pool, int(199 * share), int(200 * share))
    print_tails(int(100_000 * share))
    print_score(int(3_000 * share))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
