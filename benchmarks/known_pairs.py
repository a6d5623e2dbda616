"""Textbook pairs on real bars: in which window does which survive, beside statsmodels' p-values.

    python benchmarks/known_pairs.py FOLDER

FOLDER holds daily_bars.parquet, daily_bars_etf_other.parquet and minute_bars_2018.parquet (symbol, date or
timestamp, close or adj_close). Each pair is judged alone in each window: correlation of returns at least 0.7,
Engle-Granger p at most 0.01 on the first 70 %, confirmation p at most 0.05 on the rest. Its last line counts
the trials: at these levels chance alone passes some.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from statsmodels.tsa.stattools import coint

from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.rules import SelectionRules
from garch_platform.quant.pairs.selection import select_pairs

PAIRS = (("GOOG", "GOOGL"), ("MA", "V"), ("EWA", "EWC"), ("KO", "PEP"), ("CVX", "XOM"))
YEARS = 3
INTRADAY_HORIZON = 12


def daily_windows(folder: Path) -> Iterator[tuple[str, tuple[str, str], pl.DataFrame]]:
    """Windows of three years that follow one another, split-adjusted closes."""
    columns = ["symbol", "date", "adj_close", "close"]
    files = [folder / name for name in ("daily_bars.parquet", "daily_bars_etf_other.parquet")]
    for pair in PAIRS:
        for file in files:
            rows = pl.scan_parquet(file).filter(pl.col("symbol").is_in(list(pair))).select(columns).collect()
            if rows["symbol"].n_unique() == 2:
                break
        else:
            continue
        price = pl.coalesce("adj_close", "close").log()
        rows = rows.unique(["symbol", "date"]).with_columns(log=price, timestamp="date")
        wide = rows.pivot("symbol", index="timestamp", values="log").drop_nulls().sort("timestamp")
        for year in range(wide["timestamp"][0].year, wide["timestamp"][-1].year + 1, YEARS):
            inside = wide.filter(pl.col("timestamp").dt.year().is_between(year, year + YEARS - 1))
            if len(inside) >= 400:
                yield f"daily {year}-{year + YEARS - 1}", pair, inside.select("timestamp", *pair)


def minute_windows(folder: Path) -> Iterator[tuple[str, tuple[str, str], pl.DataFrame]]:
    """Five-minute closes of early 2018, two windows."""
    bars = pl.scan_parquet(folder / "minute_bars_2018.parquet")
    for pair in PAIRS:
        rows = (
            bars.filter(pl.col("symbol").is_in(list(pair))).select("symbol", "timestamp", "close").collect()
        )
        if rows["symbol"].n_unique() < 2:
            continue
        five = rows.sort("timestamp").with_columns(pl.col("timestamp").dt.truncate("5m"))
        closes = five.group_by("symbol", "timestamp").agg(log=pl.col("close").last().log())
        wide = closes.pivot("symbol", index="timestamp", values="log").drop_nulls().sort("timestamp")
        half = len(wide) // 2
        for name, part in (("first", wide.head(half)), ("second", wide.tail(half))):
            yield f"5-minute 2018, {name} half", pair, part.select("timestamp", *pair)


def judged(name: str, pair: tuple[str, str], frame: pl.DataFrame) -> bool:
    """Print one window's verdict; whether the pair passes it."""
    intraday = "minute" in name
    rules = SelectionRules(correlation_horizon=INTRADAY_HORIZON if intraday else 1)
    days = frame["timestamp"].cast(pl.Date) if intraday else None
    panel = PairPanel.read(frame, formation_share=0.7, session_ids=days)
    row = select_pairs(panel, rules=rules, bars_per_year=252.0).table.row(0, named=True)
    first, second = panel.formation.T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = [coint(a, b, maxlag=1, autolag=None)[1] for a, b in ((first, second), (second, first))]
    ours = [row["pvalue_1_on_2"], row["pvalue_2_on_1"]]
    confirmation = row["confirmation_pvalue"]
    print(
        f"{'/'.join(pair):<11} {name:<26} {len(frame):>6} {row['return_correlation']:>7.2f} "
        f"{ours[0]:>9.2g} {reference[0]:>9.2g} {ours[1]:>9.2g} {reference[1]:>9.2g} "
        f"{'' if confirmation is None else format(confirmation, '.2g'):>9} {row['gate'] or 'passes'}"
    )
    assert np.allclose(ours, reference, rtol=1e-8), (ours, reference)
    return row["passed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(
        f"{'pair':<11} {'window':<26} {'bars':>6} {'return':>7} {'EG 1 on 2':>9} {'(sm)':>9} {'EG 2 on 1':>9} "
        f"{'(sm)':>9} {'confirm':>9} fell at"
    )
    verdicts = [judged(*window) for window in (*daily_windows(folder), *minute_windows(folder))]
    print(f"\n{sum(verdicts)} of {len(verdicts)} windows pass; (sm) is statsmodels' p-value")


if __name__ == "__main__":
    main()
