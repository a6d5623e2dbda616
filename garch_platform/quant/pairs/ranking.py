"""All pairs of a panel: tested, scored, gated and ranked.

The gates are those of the project's original documents ("classic"): correlation of log prices, then
Engle-Granger, then the composite score (`garch_platform.quant.pairs.score`). **Pairs pass them by
chance.** Log prices of independent random walks correlate; among such pairs above 0.8 the Engle-Granger
test at 5 % passes about 18 %, 11 % with a common market factor, and nothing corrects for the number of
pairs tried. The score reads the out-of-sample bars, so no performance number measured there
(``oos_sharpe``) is independent of the ranking.

Everything else is estimated on the formation window alone: bars before ``out_of_sample_start``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import combinations
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import DataError
from garch_platform.quant.pairs.cointegration import CointegrationTest, engle_granger
from garch_platform.quant.pairs.score import (
    backtest_spread,
    composite_score,
    constant_variance_bic,
    diagnostics_score,
    fit_score,
    trading_score,
    volatility_score,
)
from garch_platform.quant.pairs.spread import autoregression, half_life, spread, spread_shocks
from garch_platform.quant.returns import log_returns
from garch_platform.quant.volatility.batch import fit_garch_batch
from garch_platform.quant.volatility.health import is_constant

__all__ = ["MIN_OUT_OF_SAMPLE", "RANKING_SCHEMA", "PairGates", "rank_pairs"]

Floats = NDArray[np.float64]

MIN_OUT_OF_SAMPLE: Final = 20
"""Fewest common out-of-sample bars on which a pair is scored."""

RANKING_SCHEMA: Final[dict[str, pl.DataType]] = {
    "symbol_1": pl.String(),
    "symbol_2": pl.String(),
    "symbol_y": pl.String(),
    "symbol_x": pl.String(),
    "n_observations": pl.Int64(),
    "coverage": pl.Float64(),
    "price_correlation": pl.Float64(),
    "return_correlation": pl.Float64(),
    "statistic_1_on_2": pl.Float64(),
    "pvalue_1_on_2": pl.Float64(),
    "statistic_2_on_1": pl.Float64(),
    "pvalue_2_on_1": pl.Float64(),
    "coint_statistic": pl.Float64(),
    "coint_pvalue": pl.Float64(),
    "hedge_ratio": pl.Float64(),
    "intercept": pl.Float64(),
    "half_life": pl.Float64(),
    "spread_mean": pl.Float64(),
    "spread_std": pl.Float64(),
    "spread_zscore": pl.Float64(),
    "fit_score": pl.Float64(),
    "volatility_score": pl.Float64(),
    "trading_score": pl.Float64(),
    "diagnostics_score": pl.Float64(),
    "score": pl.Float64(),
    "oos_sharpe": pl.Float64(),
    "rank": pl.Int64(),
    "passed": pl.Boolean(),
    "rejection_reason": pl.String(),
}
"""Columns of `rank_pairs`; null wherever a pair was rejected before the value was computed."""


@dataclass(frozen=True)
class PairGates:
    """Thresholds and costs of a ranking.

    Attributes:
        min_correlation: least correlation of log prices.
        max_pvalue: greatest Engle-Granger p-value of the better direction.
        min_score: least composite score.
        lags: lagged differences in the Engle-Granger regression.
        min_coverage: least share of the formation bars on which both legs have a close.
        entry_zscore, exit_zscore: thresholds of the backtest.
        cost_bps: one-way cost of each leg, basis points.
    """

    min_correlation: float
    max_pvalue: float
    min_score: float
    lags: int
    min_coverage: float
    entry_zscore: float
    exit_zscore: float
    cost_bps: float


def rank_pairs(
    log_closes: pl.DataFrame,
    *,
    out_of_sample_start: datetime | date | int,
    gates: PairGates,
    bars_per_year: float,
    excluded: Mapping[str, str] | None = None,
    session_ids: pl.Series | Sequence[Any] | NDArray[Any] | None = None,
    min_observations: int = 250,
) -> pl.DataFrame:
    """Test and rank every unordered pair of symbols.

    Args:
        log_closes: ``timestamp`` (strictly increasing) and one Float64 column of log closes a symbol;
            null or NaN = absent.
        out_of_sample_start: timestamp of the first out-of-sample bar, or its row number.
        gates: the thresholds.
        bars_per_year: bars in a year, to annualise ``oos_sharpe``.
        excluded: symbol to reason. Its pairs are rows too, rejected with that reason and not computed;
            a symbol without a column may stand here.
        session_ids: (T,) session of each bar, for intraday bars: returns and shocks of the spread across
            sessions are then left out of the correlation and the GARCH fit. Levels keep every bar.
        min_observations: fewest formation shocks to which GARCH is fitted; a pair with fewer has no score.

    Returns:
        N (N - 1) / 2 rows with the columns of `RANKING_SCHEMA`: ranked pairs first, then the others by
        name. ``symbol_1`` < ``symbol_2``; ``symbol_y`` is the dependent and ``symbol_x`` the independent leg
        of the direction with the lower p-value. ``half_life`` counts bars; ``spread_zscore`` is of the last
        common bar with the formation's mean and standard deviation; ``oos_sharpe`` is annualised and net of
        costs. ``rank`` is 1, 2, ... among the pairs that pass every gate (by score, then p-value, then
        names) and null for the others, whose ``rejection_reason`` names the first gate that failed.

    Raises:
        DataError: timestamps are absent or not strictly increasing, or do not compare with the split.
    """
    panel = _Panel.read(log_closes, out_of_sample_start, session_ids)
    reasons = dict(excluded or {})
    pairs = [
        _screen(panel, first, second, gates, reasons)
        for first, second in combinations(sorted({*panel.closes, *reasons}), 2)
    ]
    survivors = [pair for pair in pairs if pair.reason is None]
    _score(survivors, panel, gates, bars_per_year, min_observations)
    return _ranked(pairs)


@dataclass
class _Panel:
    """Log closes (T,) by symbol, one-bar returns alike, and the row of the first out-of-sample bar."""

    closes: dict[str, Floats]
    returns: dict[str, Floats]
    sessions: NDArray[np.int64] | None
    split: int

    @classmethod
    def read(cls, log_closes: pl.DataFrame, start: datetime | date | int, session_ids: Any) -> _Panel:
        if "timestamp" not in log_closes.columns:
            raise DataError("log_closes have no column timestamp; give one row a bar, one column a symbol")
        times = log_closes["timestamp"]
        if times.null_count() or not (times.diff().drop_nulls().to_physical() > 0).all():
            raise DataError("log_closes.timestamp does not strictly increase; sort it and keep one row a bar")
        sessions = None
        if session_ids is not None:
            sessions = pl.Series("session", session_ids).rle_id().cast(pl.Int64).to_numpy()
        closes = {}
        for name in sorted(set(log_closes.columns) - {"timestamp"}):
            values = log_closes[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            closes[name] = np.where(np.isfinite(values), values, np.nan)
        returns = {name: log_returns(close, session_index=sessions) for name, close in closes.items()}
        return cls(closes, returns, sessions, _split(times, start))

    def shocks(self, levels: Floats, mean: float) -> Floats:
        """(T,) one-bar shocks of a spread, its autoregression estimated on the formation window."""
        phi = autoregression(levels[: self.split])
        return spread_shocks(levels, mean=mean, phi=phi, session_index=self.sessions)


@dataclass
class _Pair:
    """One row in the making: its values, the first gate that failed, and its spread over all bars."""

    row: dict[str, Any]
    reason: str | None = None
    levels: Floats = field(default_factory=lambda: np.empty(0))


def _split(times: pl.Series, start: datetime | date | int) -> int:
    if isinstance(start, int):
        return min(max(start, 0), len(times))
    try:
        return int((times < start).sum())
    except (pl.exceptions.PolarsError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"out_of_sample_start {start!r} does not compare with timestamps of type {times.dtype}; "
            "use the same type and time zone"
        ) from error


def _screen(panel: _Panel, first: str, second: str, gates: PairGates, excluded: Mapping[str, str]) -> _Pair:
    pair = _Pair({"symbol_1": first, "symbol_2": second})
    named = [f"{name} excluded: {excluded[name]}" for name in (first, second) if name in excluded]
    if named:
        pair.reason = "; ".join(named)
        return pair
    a, b = (panel.closes[name][: panel.split] for name in (first, second))
    common = int(np.sum(np.isfinite(a) & np.isfinite(b)))
    coverage = common / panel.split if panel.split else 0.0
    correlation = _correlation(a, b)
    pair.row |= {
        "n_observations": common,
        "coverage": coverage,
        "price_correlation": correlation,
        "return_correlation": _correlation(*(panel.returns[name][: panel.split] for name in (first, second))),
    }
    if coverage < gates.min_coverage:
        pair.reason = f"coverage {coverage:.3f} < {gates.min_coverage:g}"
    elif not math.isfinite(correlation):
        pair.reason = "price_correlation is not defined: a leg is constant or absent"
    else:
        _cointegrate(pair, panel, gates)
    return pair


def _cointegrate(pair: _Pair, panel: _Panel, gates: PairGates) -> None:
    first, second = pair.row["symbol_1"], pair.row["symbol_2"]
    a, b = panel.closes[first], panel.closes[second]
    forward = engle_granger(a[: panel.split], b[: panel.split], lags=gates.lags)
    backward = engle_granger(b[: panel.split], a[: panel.split], lags=gates.lags)
    swap = _strength(backward) < _strength(forward)
    better = backward if swap else forward
    y, x = (b, a) if swap else (a, b)
    pair.row |= {
        "symbol_y": second if swap else first,
        "symbol_x": first if swap else second,
        "statistic_1_on_2": forward.statistic,
        "pvalue_1_on_2": forward.pvalue,
        "statistic_2_on_1": backward.statistic,
        "pvalue_2_on_1": backward.pvalue,
        "coint_statistic": better.statistic,
        "coint_pvalue": better.pvalue,
        "hedge_ratio": better.hedge_ratio,
        "intercept": better.intercept,
    }
    if better.reason is None:
        pair.levels = spread(y, x, hedge_ratio=better.hedge_ratio, intercept=better.intercept)
        pair.row |= _spread_statistics(pair.levels, panel.split)
    correlation = pair.row["price_correlation"]
    if correlation < gates.min_correlation:
        pair.reason = f"price_correlation {correlation:.3f} < {gates.min_correlation:g}"
    elif better.reason is not None:
        pair.reason = f"cointegration not tested: {better.reason}"
    elif better.pvalue > gates.max_pvalue:
        pair.reason = f"coint_pvalue {better.pvalue:.3g} > {gates.max_pvalue:g}"


def _spread_statistics(levels: Floats, split: int) -> dict[str, float]:
    present = np.flatnonzero(np.isfinite(levels))
    formation = levels[present[present < split]]
    mean, std = float(formation.mean()), float(formation.std(ddof=1))
    return {
        "half_life": half_life(formation),
        "spread_mean": mean,
        "spread_std": std,
        "spread_zscore": float(levels[present[-1]] - mean) / std,
    }


def _strength(test: CointegrationTest) -> tuple[bool, float, float]:
    """Sorts the stronger direction first: tested, lower p-value, lower statistic."""
    untested = test.reason is not None
    return untested, 0.0 if untested else test.pvalue, 0.0 if untested else test.statistic


def _correlation(a: Floats, b: Floats) -> float:
    common = np.isfinite(a) & np.isfinite(b)
    a, b = a[common], b[common]
    if len(a) < 2 or is_constant(a) or is_constant(b):
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    return float(np.sum(a * b)) / math.sqrt(float(np.sum(a * a)) * float(np.sum(b * b)))


def _score(
    pairs: Sequence[_Pair], panel: _Panel, gates: PairGates, bars_per_year: float, min_observations: int
) -> None:
    """Fit GARCH to the formation shocks of the surviving pairs, score them and gate the score."""
    if not pairs:
        return
    shocks = [panel.shocks(pair.levels, pair.row["spread_mean"]) for pair in pairs]
    formation = np.column_stack([shock[: panel.split] for shock in shocks])
    fits = fit_garch_batch(formation, min_observations=min_observations)
    for pair, shock, fit in zip(pairs, shocks, fits.table.iter_rows(named=True), strict=True):
        start = max(np.flatnonzero(np.isfinite(pair.levels[: panel.split])))
        later = pair.levels[start:]
        later = later[np.isfinite(later)]
        if fit["status"] not in ("ok", "weak"):
            pair.reason = f"garch {fit['status']}: {fit['reason']}"
        elif len(later) - 1 < MIN_OUT_OF_SAMPLE:
            pair.reason = f"out_of_sample_bars {len(later) - 1} < {MIN_OUT_OF_SAMPLE}"
        else:
            _score_pair(pair, shock, later, fit, panel.split, gates, bars_per_year)


def _score_pair(
    pair: _Pair,
    shocks: Floats,
    later: Floats,
    fit: Mapping[str, Any],
    split: int,
    gates: PairGates,
    bars_per_year: float,
) -> None:
    formation = shocks[:split]
    formation = formation[np.isfinite(formation)]
    backtest = backtest_spread(
        later,
        mean=pair.row["spread_mean"],
        std=pair.row["spread_std"],
        hedge_ratio=pair.row["hedge_ratio"],
        entry_zscore=gates.entry_zscore,
        exit_zscore=gates.exit_zscore,
        cost_bps=gates.cost_bps,
    )
    scores = {
        "fit": fit_score(bic_garch=fit["bic"], bic_constant=constant_variance_bic(formation)),
        "volatility": volatility_score(
            shocks[split:],
            mu=fit["mu"],
            omega=fit["omega"],
            alpha=fit["alpha"],
            beta=fit["beta"],
            initial_variance=fit["forecast_variance"],
            constant_mean=float(formation.mean()),
            constant_variance=float(formation.var()),
        ),
        "trading": trading_score(backtest),
        "diagnostics": diagnostics_score(fit["ljung_box_pvalue"], fit["arch_lm_pvalue"]),
    }
    score = composite_score(**scores)
    pair.row |= {f"{name}_score": value for name, value in scores.items()}
    pair.row |= {"score": score, "oos_sharpe": backtest.sharpe * math.sqrt(bars_per_year)}
    if score < gates.min_score:
        pair.reason = f"score {score:.3f} < {gates.min_score:g}"


def _ranked(pairs: Sequence[_Pair]) -> pl.DataFrame:
    passed = sorted(
        (pair for pair in pairs if pair.reason is None),
        key=lambda pair: (
            -pair.row["score"],
            pair.row["coint_pvalue"],
            pair.row["symbol_1"],
            pair.row["symbol_2"],
        ),
    )
    for rank, pair in enumerate(passed, start=1):
        pair.row["rank"] = rank
    rejected = (pair for pair in pairs if pair.reason is not None)
    rows = [
        [
            {**pair.row, "passed": pair.reason is None, "rejection_reason": pair.reason}.get(name)
            for name in RANKING_SCHEMA
        ]
        for pair in (*passed, *rejected)
    ]
    return pl.DataFrame(rows, schema=RANKING_SCHEMA, orient="row").fill_nan(None)
