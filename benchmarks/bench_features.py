"""Features of minute bars against the same columns in pandas and Polars, and an append against a recompute.

    python benchmarks/bench_features.py [--symbols 20] [--sessions 500] [--quick]

All get the same frame, sorted by symbol and time, and one thread (Polars: POLARS_MAX_THREADS=1). Returns
are taken across sessions, which spares the peers the overnight gaps in their windows. pandas groups by
symbol and rolls; Polars takes rolling and cumulative expressions over the symbol. Times are medians of
runs taken in turn (pandas: one run).
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from garch_platform.quant.feature_kernels import FEATURE_ROWS, feature_rows
from garch_platform.quant.features import FeatureWindows, compute_features

BARS = 390
WINDOWS = FeatureWindows(rolling_window=30, min_periods=30, ma_short=5, ma_long=20, rsi_window=14)
PER_YEAR = 98_280.0
COLUMNS = (
    "log_close log_return z_score rolling_mean rolling_std volatility_annualized ma_short ma_long rsi "
    "return_count return_sum return_sum_squares"
).split()


def market(symbols: int, sessions: int) -> pl.DataFrame:
    """Minute closes of random walks."""
    rows = sessions * BARS
    first = datetime(2022, 1, 3, 14, 30, tzinfo=UTC)
    days = np.repeat(np.arange(sessions), BARS)
    minute = np.tile(np.arange(BARS), sessions)
    stamps = np.datetime64(first.replace(tzinfo=None), "us") + (days * 1440 + minute) * np.timedelta64(
        60, "s"
    )
    dates = [(first + timedelta(days=int(day))).date() for day in range(sessions)]
    steps = np.random.default_rng(0).standard_normal((symbols, rows)) * 6e-4
    return pl.DataFrame(
        {
            "symbol": np.repeat([f"S{k:04d}" for k in range(symbols)], rows),
            "timestamp": pl.Series(np.tile(stamps, symbols)).dt.replace_time_zone("UTC"),
            "session_date": pl.Series(dates)[np.tile(days, symbols)],
            "close": np.round(80.0 * np.exp(np.cumsum(steps, axis=1)), 4).ravel(),
        }
    )


def ours(frame: pl.DataFrame, **options: Any) -> pl.DataFrame:
    """The features of this package."""
    return compute_features(frame, windows=WINDOWS, bars_per_year=PER_YEAR, intraday=False, **options)


def with_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """Group by symbol and roll."""
    out = frame[["symbol", "timestamp", "session_date"]].copy()
    out["log_close"] = np.log(frame["close"])

    def by_symbol(values: pd.Series[float]) -> Any:
        return values.groupby(frame["symbol"], sort=False)

    def rolled(values: pd.Series[float], window: int, statistic: str) -> pd.Series[float]:
        return getattr(by_symbol(values).rolling(window), statistic)().droplevel(0)

    returns = out["log_return"] = by_symbol(out["log_close"]).diff()
    filled = returns.fillna(0.0)
    out["return_count"] = by_symbol(returns.notna()).cumsum()
    out["return_sum"] = by_symbol(filled).cumsum()
    out["return_sum_squares"] = by_symbol(filled**2).cumsum()
    expanding = by_symbol(returns).expanding(WINDOWS.min_periods)
    mean, std = expanding.mean().droplevel(0), expanding.std().droplevel(0)
    out["z_score"] = (returns - by_symbol(mean).shift()) / by_symbol(std).shift()
    out["rolling_mean"] = rolled(returns, WINDOWS.rolling_window, "mean")
    out["rolling_std"] = rolled(returns, WINDOWS.rolling_window, "std")
    out["volatility_annualized"] = out["rolling_std"] * math.sqrt(PER_YEAR)
    out["ma_short"] = rolled(frame["close"], WINDOWS.ma_short, "mean")
    out["ma_long"] = rolled(frame["close"], WINDOWS.ma_long, "mean")
    change = by_symbol(frame["close"]).diff()
    gains = rolled(change.clip(lower=0.0), WINDOWS.rsi_window, "sum")
    losses = rolled(-change.clip(upper=0.0), WINDOWS.rsi_window, "sum")
    out["rsi"] = 100.0 * gains / (gains + losses)
    return out


def with_polars(frame: pl.DataFrame) -> pl.DataFrame:
    """Rolling and cumulative expressions over the symbol."""
    value, close = pl.col("log_return"), pl.col("close")
    change = close.diff()
    gains = change.clip(lower_bound=0.0).rolling_sum(WINDOWS.rsi_window)
    losses = (-change.clip(upper_bound=0.0)).rolling_sum(WINDOWS.rsi_window)
    n, total = pl.col("return_count").shift(), pl.col("return_sum").shift()
    variance = (pl.col("return_sum_squares").shift() - total * total / n) / (n - 1)
    z_score = pl.when(n >= WINDOWS.min_periods).then((value - total / n) / variance.sqrt())
    window = WINDOWS.rolling_window
    return (
        frame.lazy()
        .with_columns(log_close=close.log())
        .with_columns(log_return=pl.col("log_close").diff().over("symbol"))
        .with_columns(
            return_count=value.is_not_null().cum_sum().cast(pl.Int64).over("symbol"),
            return_sum=value.fill_null(0.0).cum_sum().over("symbol"),
            return_sum_squares=(value * value).fill_null(0.0).cum_sum().over("symbol"),
            rolling_mean=value.rolling_mean(window).over("symbol"),
            rolling_std=value.rolling_std(window).over("symbol"),
            ma_short=close.rolling_mean(WINDOWS.ma_short).over("symbol"),
            ma_long=close.rolling_mean(WINDOWS.ma_long).over("symbol"),
            rsi=(100.0 * gains / (gains + losses)).over("symbol"),
        )
        .with_columns(
            z_score=z_score.over("symbol"),
            volatility_annualized=pl.col("rolling_std") * math.sqrt(PER_YEAR),
        )
        .select("symbol", "timestamp", "session_date", *COLUMNS)
        .collect()
    )


def kernel_only(frame: pl.DataFrame) -> Callable[[], None]:
    """The kernel and the logarithms, on arrays that are there already."""
    close, rows = frame["close"].to_numpy(), frame.height
    starts = np.append(np.flatnonzero(frame["symbol"].rle_id().diff().fill_null(1).to_numpy()), rows)
    session = frame["session_date"].to_physical().to_numpy()
    nothing = np.zeros(len(starts), dtype=np.int64)
    lengths = np.array([30, 30, 5, 20, 14, WINDOWS.tail])
    results, counts = np.empty((len(FEATURE_ROWS), rows)), np.empty(rows, dtype=np.int64)

    def run() -> None:
        np.log(close, out=results[0])
        feature_rows(
            np.exp(results[0]),
            session,
            starts,
            np.empty((6, 0)),
            session[:0],
            nothing,
            lengths,
            math.sqrt(PER_YEAR),
            False,
            results,
            counts,
        )

    return run


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of a call."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def worst_difference(result: pl.DataFrame, peer: pl.DataFrame) -> tuple[float, str]:
    """Largest relative difference (floor 1e-6 of a column's deviation) and a column whose nulls differ."""
    worst, unlike = 0.0, ""
    for name in COLUMNS:
        a, b = (f[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for f in (result, peer))
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            unlike += f" {name}"
        both = np.isfinite(a) & np.isfinite(b)
        scale = np.maximum(np.abs(a[both]), 1e-6 * np.std(a[both]))
        worst = max(worst, float(np.max(np.abs(a[both] - b[both]) / scale)))
    return worst, unlike or " none"


def main() -> None:
    """Run the benchmark."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="5 symbols, 50 sessions")
    options = parser.parse_args()
    symbols, sessions = (5, 50) if options.quick else (options.symbols, options.sessions)
    frame = market(symbols, sessions)
    table = frame.to_pandas()
    print(f"{frame.height:,} rows: {symbols} symbols x {sessions} sessions x {BARS} bars; one thread")
    result = ours(frame)
    for name, peer in (("pandas", pl.from_pandas(with_pandas(table))), ("polars", with_polars(frame))):
        worst, unlike = worst_difference(result, peer)
        print(f"largest relative difference from {name}: {worst:.1e}; nulls differ in:{unlike}")
    timed: dict[str, Callable[[], object]] = {
        "kernel and logarithms": kernel_only(frame),
        "compute_features": lambda: ours(frame),
        "compute_features, shuffled rows": lambda: ours(shuffled),
        "Polars expressions": lambda: with_polars(frame),
        "pandas groupby and rolling": lambda: with_pandas(table),
    }
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(5):  # in turn, so that a busy machine slows all of them
        for name, run in timed.items():
            if "pandas" not in name or not times[name]:
                times[name].append(median_seconds(run, 1))
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"{'':<34}{'seconds':>9}{'Mrows/s':>9}{'of Polars':>11}{'of pandas':>11}")
    polars, pandas = seconds["Polars expressions"], seconds["pandas groupby and rolling"]
    for name, took in seconds.items():
        rate = frame.height / took / 1e6
        print(f"{name:<34}{took:>9.3f}{rate:>9.2f}{polars / took:>10.1f}x{pandas / took:>10.1f}x")
    last = frame["session_date"].max()
    day, before = frame.filter(pl.col("session_date") == last), frame.filter(pl.col("session_date") < last)
    tail = ours(before).group_by("symbol", maintain_order=True).tail(WINDOWS.tail)
    appended = ours(day, previous=tail)
    same = appended.equals(result.filter(pl.col("session_date") == last))
    took = median_seconds(lambda: ours(day, previous=tail), 9)
    print(
        f"append of one session ({day.height:,} rows): {1e3 * took:.1f} ms, a full recompute "
        f"{1e3 * seconds['compute_features']:.0f} ms ({seconds['compute_features'] / took:.0f}x); "
        f"bit-equal: {'yes' if same else 'NO'}"
    )


if __name__ == "__main__":
    main()
