"""Every pair of a universe, tested for correlation and cointegration in compiled code.

A pair is tested on its common bars: those on which both legs have a price. Residuals are formed bar by
bar, so a pair of nearly collinear prices keeps its digits, and a pair's result depends on its two series
alone: not on the other symbols, their order, the tiling or the number of threads.

Beside the log prices and the result, a scan takes at most 32 T N bytes (scaled series, returns, and what it
takes to make them) and `BYTES_PER_PAIR` for each pair of a tile. `scan_tiles` hands over one tile at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.compiled import in_threads
from garch_platform.quant.pairs.cointegration import REASONS
from garch_platform.quant.pairs.correlation import ReturnCorrelation
from garch_platform.quant.pairs.null_distributions import (
    JOHANSEN_TRACE_5PCT,
    cointegration_pvalue,
    smooth_transition_pvalue,
)
from garch_platform.quant.pairs.scan_columns import ScanColumns, even_slices, require_at_least

__all__ = [
    "BYTES_PER_PAIR",
    "SCAN_SCHEMA",
    "TESTS",
    "scan_pairs",
    "scan_tiles",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Lags = int | Literal["aic", "bic"]
Progress = Callable[[int, int], None]

SCAN_SCHEMA: Final[dict[str, pl.DataType]] = {
    "symbol_1": pl.String(),
    "symbol_2": pl.String(),
    "n_observations": pl.Int64(),
    "coverage": pl.Float64(),
    "price_correlation": pl.Float64(),
    "return_correlation": pl.Float64(),
    "statistic_1_on_2": pl.Float64(),
    "pvalue_1_on_2": pl.Float64(),
    "lags_1_on_2": pl.Int64(),
    "statistic_2_on_1": pl.Float64(),
    "pvalue_2_on_1": pl.Float64(),
    "lags_2_on_1": pl.Int64(),
    "hedge_ratio_1_on_2": pl.Float64(),
    "intercept_1_on_2": pl.Float64(),
    "hedge_ratio_2_on_1": pl.Float64(),
    "intercept_2_on_1": pl.Float64(),
    "half_life_1_on_2": pl.Float64(),
    "half_life_2_on_1": pl.Float64(),
    "hurst": pl.Float64(),
    "johansen_trace_0": pl.Float64(),
    "johansen_trace_1": pl.Float64(),
    "johansen_rank": pl.Int64(),
    "kss_statistic": pl.Float64(),
    "kss_pvalue": pl.Float64(),
    "reason": pl.String(),
}
"""Columns of `scan_pairs`; null where a value was not computed or does not exist."""

TESTS: Final = ("johansen", "kss", "hurst")
"""Tests beside Engle and Granger's that `scan_pairs` can make."""
BYTES_PER_PAIR: Final = 800
"""Most bytes of working memory for each pair of a tile, its part of the frame included."""
BLOCK: Final = 64
"""Partners that are kept near the processor while the first legs change."""


def scan_pairs(
    log_prices: Floats,
    *,
    symbols: Sequence[str] | None = None,
    lags: Lags = 1,
    max_lags: int | None = None,
    pairs: Integers | None = None,
    session_index: Integers | None = None,
    correlation_horizon: int = 1,
    tests: Collection[str] = TESTS,
    johansen_lags: int = 1,
    workers: int = 1,
    tile_size: int = 16_384,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Test every unordered pair of a universe.

    Args:
        log_prices: (T, N) log prices in time order; NaN = absent.
        symbols: N different names; None = "0", "1", ...
        lags: lagged differences of the Dickey-Fuller regression, or the criterion that chooses them for
            each pair and direction.
        max_lags: most lags among which a criterion chooses; None = Schwert's
            min(ceil(12 (n / 100)^(1/4)), n / 2 - 1), n the common bars.
        pairs: (P, 2) columns of the pairs to test; None = all.
        session_index: (T,) session of each bar, for intraday bars: returns stay within a session.
        correlation_horizon: bars of a return. Of the pair's common bars in a session (of all common bars
            for daily bars), every horizon-th is taken from the first on; returns run from one to the next,
            so they do not overlap and both legs' span the same time.
        tests: of ``johansen``, ``kss`` and ``hurst``.
        johansen_lags: lagged differences of the Johansen test, at least 1.
        workers: threads; the result does not depend on them.
        tile_size: pairs worked on at once.
        progress: called with pairs done and pairs to do, after each tile.

    Returns:
        A row a pair with the columns of `SCAN_SCHEMA`, in the order (0, 1), (0, 2), .. (N - 2, N - 1) or
        that of ``pairs``. ``x_1_on_2`` regards symbol_1 as the dependent leg of the regression of log
        prices with a constant; statistics and p-values are those of Engle and Granger [1]_, as of
        statsmodels ``coint(trend="c", maxlag=lags, autolag=None)`` or ``coint(autolag=lags,
        maxlag=max_lags)`` on the common bars. ``coverage`` is common bars / T. ``half_life_*`` counts bars
        (`garch_platform.quant.pairs.spread.half_life` of the residual). The rest is of the direction with
        the lower statistic: ``hurst``, the slope of log root-mean-square changes over k bars on log k,
        k = 1, 2, 4 .. n / 8 [2]_; ``johansen_trace_0`` and ``_1`` [3]_, the trace statistics of no and of
        at most one relation with a constant (statsmodels ``coint_johansen(det_order=0)``), and
        ``johansen_rank``, how many relations are not refused at 5 %, one after the other (2 = both series
        look stationary); ``kss_statistic`` [4]_, the t-statistic of u_{t-1}^3 in place of u_{t-1} with the
        same lags, and its p-value. ``reason`` says why a pair was not tested: ``insufficient_data``
        (fewer than max(30, 3 lags + 10) common bars), ``constant_series``, ``collinear`` (one leg
        determines the other) or ``singular`` (lagged differences determine one another).

    Raises:
        DataError: arrays do not fit together.
        ConfigurationError: an option is unknown or out of range.

    References
    ----------
    .. [1] Engle, R. F. and Granger, C. W. J. (1987), Econometrica 55, 251-276.
    .. [2] Di Matteo, T. (2007), "Multi-scaling in finance", Quantitative Finance 7, 21-36 (q = 2).
    .. [3] Johansen, S. (1991), Econometrica 59, 1551-1580.
    .. [4] Kapetanios, G., Shin, Y. and Snell, A. (2006), Econometric Theory 22, 279-303.
    """
    tiles = scan_tiles(
        log_prices,
        symbols=symbols,
        lags=lags,
        max_lags=max_lags,
        pairs=pairs,
        session_index=session_index,
        correlation_horizon=correlation_horizon,
        tests=tests,
        johansen_lags=johansen_lags,
        workers=workers,
        tile_size=tile_size,
        progress=progress,
    )
    frames = [frame for _, frame in tiles]
    return pl.concat(frames) if frames else pl.DataFrame(schema=SCAN_SCHEMA)


def scan_tiles(
    log_prices: Floats,
    *,
    symbols: Sequence[str] | None = None,
    lags: Lags = 1,
    max_lags: int | None = None,
    pairs: Integers | None = None,
    session_index: Integers | None = None,
    correlation_horizon: int = 1,
    tests: Collection[str] = TESTS,
    johansen_lags: int = 1,
    workers: int = 1,
    tile_size: int = 16_384,
    skip: Collection[int] = (),
    progress: Progress | None = None,
) -> Iterator[tuple[int, pl.DataFrame]]:
    """`scan_pairs` a tile at a time: each holds the next ``tile_size`` pairs, in order.

    A caller that writes every tile under its number can resume by skipping the numbers that it has; the
    tiles' contents depend on the arguments alone.

    Args:
        log_prices, symbols, lags, max_lags, pairs, session_index, correlation_horizon: see `scan_pairs`.
        tests, johansen_lags, workers, tile_size, progress: see `scan_pairs`.
        skip: numbers of tiles that are not computed.

    Yields:
        Number of the tile, from 0, and its rows.
    """
    columns = ScanColumns.read(log_prices)
    count = len(columns.values)
    require_at_least(
        1,
        correlation_horizon=correlation_horizon,
        johansen_lags=johansen_lags,
        workers=workers,
        tile_size=tile_size,
    )
    unknown = sorted(set(tests) - set(TESTS))
    if unknown:
        raise ConfigurationError(f"tests name {', '.join(unknown)}; choose from {', '.join(TESTS)}")
    criterion, most = _lag_rule(lags, max_lags)
    scan = _Scan(
        columns,
        pl.Series("symbol", _symbols(symbols, count), dtype=pl.String),
        ReturnCorrelation.read(columns, session_index=session_index, horizon=correlation_horizon),
        criterion,
        most,
        johansen_lags if "johansen" in tests else 0,
        "kss" in tests,
        "hurst" in tests,
        workers,
    )
    chosen = None if pairs is None else columns.pairs(pairs)
    total = count * (count - 1) // 2 if chosen is None else len(chosen)
    return _tiles(scan, chosen, total, tile_size, frozenset(skip), progress)


@dataclass(frozen=True)
class _Scan:
    """What every tile of a scan shares."""

    columns: ScanColumns
    symbols: pl.Series
    correlation: ReturnCorrelation
    criterion: int
    lags: int
    johansen: int
    kss: bool
    hurst: bool
    workers: int

    def tile(self, pairs: Integers) -> pl.DataFrame:
        """Rows of some pairs, in their order."""
        order = np.lexsort((pairs[:, 0], pairs[:, 1] // BLOCK))
        ordered, back = pairs[order], np.argsort(order)
        slices = even_slices(len(pairs), self.workers)
        parts = in_threads(lambda piece: self._work(ordered[piece]), slices, workers=self.workers)
        tests, spreads, correlation = (np.concatenate(part)[back] for part in zip(*parts, strict=True))
        return self._frame(pairs, tests, spreads, correlation)

    def _work(self, pairs: Integers) -> tuple[Floats, Floats, Floats]:
        """Results of the kernels for some pairs: tests, (P, 3) Hurst and traces, return correlation."""
        from garch_platform.quant.pairs import pair_kernels, scan_kernels

        columns = self.columns
        tests = np.full((len(pairs), scan_kernels.WIDTH), np.nan)
        scan_kernels.cointegrate_pairs(
            columns.values, columns.complete, columns.squares, columns.floor, pairs,
            self.criterion, self.lags, True, self.kss, tests,
        )  # fmt: skip
        spreads = np.full((len(pairs), 3), np.nan)
        if self.johansen or self.hurst:
            first = tests[:, scan_kernels.FIRST :]
            second = first[:, scan_kernels.PER_SIDE :]
            turned = second[:, scan_kernels.STATISTIC] < first[:, scan_kernels.STATISTIC]
            legs = np.where(turned[:, np.newaxis], pairs[:, ::-1], pairs)
            slope = np.where(turned, second[:, scan_kernels.SLOPE], first[:, scan_kernels.SLOPE])
            slope[np.isnan(first[:, scan_kernels.STATISTIC])] = np.nan
            pair_kernels.describe_spreads(
                columns.values, columns.complete, legs, slope, self.johansen, self.hurst, spreads
            )
        return tests, spreads, self.correlation.of(pairs)

    def _frame(self, pairs: Integers, tests: Floats, spreads: Floats, correlation: Floats) -> pl.DataFrame:
        from garch_platform.quant.pairs import scan_kernels as kernels

        bars = self.columns.values.shape[1]
        count, kss = tests[:, kernels.COUNT], tests[:, kernels.KSS]
        hurst, trace_0, trace_1 = spreads.T
        table: dict[str, Any] = {
            "symbol_1": self.symbols.gather(pairs[:, 0]),
            "symbol_2": self.symbols.gather(pairs[:, 1]),
            "n_observations": count,
            "coverage": count / bars if bars else count,
            "price_correlation": np.clip(tests[:, kernels.CORRELATION], -1.0, 1.0),
            "return_correlation": correlation,
            "hurst": hurst,
            "johansen_trace_0": trace_0,
            "johansen_trace_1": trace_1,
            "johansen_rank": _johansen_rank(trace_0, trace_1),
            "kss_statistic": kss,
            "kss_pvalue": smooth_transition_pvalue(kss),
        }
        means = tests[:, kernels.MEAN_Y : kernels.MEAN_X + 1]
        for side, name in enumerate(("1_on_2", "2_on_1")):
            found = tests[:, kernels.FIRST + side * kernels.PER_SIDE :]
            legs, centres = (pairs, means) if side == 0 else (pairs[:, ::-1], means[:, ::-1])
            statistic = found[:, kernels.STATISTIC]
            hedge_ratio, intercept = self.columns.raw_regression(legs, found[:, kernels.SLOPE], centres)
            table |= {
                f"statistic_{name}": statistic,
                f"pvalue_{name}": cointegration_pvalue(statistic),
                f"lags_{name}": found[:, kernels.LAGS],
                f"hedge_ratio_{name}": hedge_ratio,
                f"intercept_{name}": intercept,
                f"half_life_{name}": found[:, kernels.HALF_LIFE],
            }
        code = pl.Series("reason", tests[:, kernels.CODE]).cast(pl.Int64)
        table["reason"] = code.replace_strict(REASONS, default=None, return_dtype=pl.String)
        frame = pl.DataFrame(table).with_columns(pl.selectors.float().fill_nan(None))
        return frame.select(pl.col(column).cast(dtype) for column, dtype in SCAN_SCHEMA.items())


def _tiles(
    scan: _Scan,
    chosen: Integers | None,
    total: int,
    size: int,
    skip: frozenset[int],
    progress: Progress | None,
) -> Iterator[tuple[int, pl.DataFrame]]:
    for number, start in enumerate(range(0, total, size)):
        stop = min(start + size, total)
        if number not in skip:
            pairs = _pairs_between(start, stop, len(scan.symbols)) if chosen is None else chosen[start:stop]
            yield number, scan.tile(pairs)
        if progress is not None:
            progress(stop, total)


def _pairs_between(start: int, stop: int, count: int) -> Integers:
    """Pairs number ``start`` to ``stop`` of (0, 1), (0, 2), .. (count - 2, count - 1)."""
    first = np.arange(count, dtype=np.int64)
    begins = first * (2 * count - first - 1) // 2
    numbers = np.arange(start, stop, dtype=np.int64)
    i = np.searchsorted(begins, numbers, side="right") - 1
    i = np.minimum(i, count - 2)
    return np.column_stack([i, numbers - begins[i] + i + 1])


def _johansen_rank(trace_0: Floats, trace_1: Floats) -> Floats:
    none, one = JOHANSEN_TRACE_5PCT
    rank = np.where(trace_0 <= none, 0.0, np.where(trace_1 <= one, 1.0, 2.0))
    return np.where(np.isnan(trace_0), np.nan, rank)


def _lag_rule(lags: Lags, max_lags: int | None) -> tuple[int, int]:
    """The kernel's criterion and number of lags."""
    if isinstance(lags, str):
        if lags not in ("aic", "bic"):
            raise ConfigurationError(f"lags {lags!r} is neither a number nor 'aic' nor 'bic'")
        if max_lags is not None:
            require_at_least(0, max_lags=max_lags)
        return (1 if lags == "aic" else 2), -1 if max_lags is None else max_lags
    require_at_least(0, lags=lags)
    if max_lags is not None:
        raise ConfigurationError(f"max_lags {max_lags} goes with lags='aic' or 'bic', not with lags={lags}")
    return 0, lags


def _symbols(symbols: Sequence[str] | None, count: int) -> list[str]:
    names = [str(place) for place in range(count)] if symbols is None else list(symbols)
    if len(names) != count or len(set(names)) != count:
        raise DataError(
            f"{len(names)} symbols, {len(set(names))} of them different, for {count} columns of log_prices; "
            "give each column its own name"
        )
    return names
