"""What is known about each pair before any verdict: direction, spread, confirmation, score, performance.

The scan tests every pair on the formation window. Only pairs that are *candidates* of a profile (correlated
and significant there) go on: their spread is frozen at the end of formation, tested on the confirmation
window, scored on it, and traded over the performance window.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.quant.pairs.backtest import backtest_spreads
from garch_platform.quant.pairs.confirmation import bootstrap_draws, confirm_spreads
from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.rules import SelectionRules
from garch_platform.quant.pairs.score import SCORE_COLUMNS, score_spreads
from garch_platform.quant.pairs.spread import corrected_half_life, spread

__all__ = ["FROZEN_COLUMNS", "directed", "gather_evidence"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BATCH: Final = 256
"""Spreads held at once: bounds the memory by 256 columns of T bars, whatever the universe."""

FROZEN_COLUMNS: Final[dict[str, pl.DataType]] = {
    "spread_mean": pl.Float64(),
    "spread_std": pl.Float64(),
    "spread_zscore": pl.Float64(),
    "confirmation_observations": pl.Int64(),
    "confirmation_statistic": pl.Float64(),
    "confirmation_pvalue": pl.Float64(),
    **SCORE_COLUMNS,
    "oos_sharpe": pl.Float64(),
    "oos_probabilistic_sharpe": pl.Float64(),
    "oos_trades": pl.Int64(),
}
"""Columns of candidates alone; null for the other pairs."""


def directed(scan: pl.DataFrame) -> pl.DataFrame:
    """The scan with the stronger direction of each pair: the one with the lower Engle-Granger p-value.

    Adds ``symbol_y`` (dependent leg), ``symbol_x``, ``coint_statistic``, ``coint_pvalue``,
    ``coint_lags``, ``hedge_ratio``, ``intercept`` and ``half_life`` (bars, corrected for bias).
    """
    turned = (pl.col("pvalue_2_on_1") < pl.col("pvalue_1_on_2")).fill_null(False)

    def of(name: str) -> pl.Expr:
        return pl.when(turned).then(f"{name}_2_on_1").otherwise(f"{name}_1_on_2")

    rows = scan.with_columns(
        symbol_y=pl.when(turned).then("symbol_2").otherwise("symbol_1"),
        symbol_x=pl.when(turned).then("symbol_1").otherwise("symbol_2"),
        coint_statistic=of("statistic"),
        coint_pvalue=of("pvalue"),
        coint_lags=of("lags"),
        hedge_ratio=of("hedge_ratio"),
        intercept=of("intercept"),
        half_life=of("half_life"),
    )
    raw, bars = (
        rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("half_life", "n_observations")
    )
    return rows.with_columns(half_life=pl.Series(corrected_half_life(raw, bars), nan_to_null=True))


def gather_evidence(
    scan: pl.DataFrame,
    panel: PairPanel,
    *,
    rules: SelectionRules,
    bars_per_year: float,
    min_observations: int,
) -> pl.DataFrame:
    """Add to a `directed` scan what the later windows say about its candidates.

    Args:
        scan: pairs of the panel's symbols.
        panel: their log prices and windows.
        rules: gates that make a pair a candidate, thresholds and costs of the backtests.
        bars_per_year: bars in a year, to annualise ``oos_sharpe``.
        min_observations: fewest innovations of a spread to which GARCH is fitted.

    Returns:
        ``scan`` in its order with the columns of `FROZEN_COLUMNS`. ``spread_zscore`` is of the last common
        bar, with the mean and deviation of the formation window; ``oos_*`` are of the performance window,
        the Sharpe ratio annual and net of costs.
    """
    rows = scan.with_row_index("row")
    honest, classic = _candidates(rules)
    candidates = rows.filter(honest | classic)
    draws = bootstrap_draws(len(rows.filter(honest)), rules.honest)
    place = {symbol: column for column, symbol in enumerate(panel.symbols)}
    parts = [
        _frozen(batch, panel, place, rules, bars_per_year, min_observations, draws)
        for batch in candidates.iter_slices(BATCH)
    ]
    known = pl.concat(parts) if parts else pl.DataFrame(schema={"row": pl.UInt32(), **FROZEN_COLUMNS})
    return rows.join(known, on="row", how="left").sort("row").drop("row")


def _candidates(rules: SelectionRules) -> tuple[pl.Expr, pl.Expr]:
    """Whether a pair reaches the later windows under the honest and under the classic profile."""
    covered = pl.col("coverage") >= rules.min_coverage
    classic, honest = rules.classic, rules.honest
    one_stage = honest.false_discovery == "by_all"
    most = honest.false_discovery_rate if one_stage else honest.max_pvalue
    by_returns = pl.col("return_correlation") >= honest.min_return_correlation
    by_prices = pl.col("price_correlation") >= classic.min_price_correlation
    return (
        (covered & by_returns & (pl.col("coint_pvalue") <= most)).fill_null(False),
        (covered & by_prices & (pl.col("coint_pvalue") <= classic.max_pvalue)).fill_null(False),
    )


def _frozen(
    pairs: pl.DataFrame,
    panel: PairPanel,
    place: dict[str, int],
    rules: SelectionRules,
    bars_per_year: float,
    min_observations: int,
    draws: int,
) -> pl.DataFrame:
    """`FROZEN_COLUMNS` of a batch of candidates, with their ``row``."""
    hedge_ratio, intercept = pairs["hedge_ratio"].to_numpy(), pairs["intercept"].to_numpy()
    y, x = ([place[name] for name in pairs[leg]] for leg in ("symbol_y", "symbol_x"))
    prices = panel.log_prices
    spreads = spread(prices[:, y], prices[:, x], hedge_ratio=hedge_ratio, intercept=intercept)
    split, end = panel.formation_end, panel.confirmation_end
    mean = np.nanmean(spreads[:split], axis=0)
    std = np.nanstd(spreads[:split], axis=0, ddof=1)
    statistic, pvalue = confirm_spreads(spreads[split:end] - mean, lags=rules.lags, draws=draws)
    sessions = panel.session_index
    scores = score_spreads(
        spreads[:end],
        formation_end=split,
        mean=mean,
        std=std,
        hedge_ratio=hedge_ratio,
        rules=rules,
        session_index=None if sessions is None else sessions[:end],
        min_observations=min_observations,
    )
    backtest = backtest_spreads(
        spreads[max(end - 1, 0) :] if end < len(spreads) else spreads[:0],
        mean=mean,
        std=std,
        hedge_ratio=hedge_ratio,
        entry_zscore=rules.entry_zscore,
        exit_zscore=rules.exit_zscore,
        cost_bps=rules.cost_bps,
    )
    judged = len(backtest.returns) > 0
    nothing = np.full(len(pairs), np.nan)
    table = pl.DataFrame(
        {
            "row": pairs["row"],
            "spread_mean": mean,
            "spread_std": std,
            "spread_zscore": (_newest(spreads) - mean) / std,
            "confirmation_observations": np.isfinite(spreads[split:end]).sum(axis=0),
            "confirmation_statistic": statistic,
            "confirmation_pvalue": pvalue,
            "oos_sharpe": backtest.sharpe * math.sqrt(bars_per_year) if judged else nothing,
            "oos_probabilistic_sharpe": backtest.probabilistic_sharpe if judged else nothing,
            "oos_trades": backtest.trades if judged else pl.Series([None] * len(pairs), dtype=pl.Int64),
        }
    ).with_columns(pl.selectors.float().fill_nan(None))
    return pl.concat([table, scores], how="horizontal").select(
        "row", *(pl.col(name).cast(dtype) for name, dtype in FROZEN_COLUMNS.items())
    )


def _newest(spreads: Floats) -> Floats:
    """(P,) the last present value of each column."""
    newest = len(spreads) - 1 - np.argmax(np.isfinite(spreads[::-1]), axis=0)
    values: Floats = np.take_along_axis(spreads, newest[np.newaxis], axis=0)[0]
    return values
