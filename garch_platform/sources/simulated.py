"""A simulated market on the exchange's calendar, whose cointegrated pairs are known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Final

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP, Timeframe
from garch_platform.errors import CalendarError, ConfigurationError
from garch_platform.sessions import TradingCalendar
from garch_platform.sources.source import candidate_rows

if TYPE_CHECKING:
    from garch_platform.quant.timeseries.generator import SimulatedMarket

__all__ = ["SimulatedSource"]

SECTORS: Final = ("technology", "healthcare", "financial")


class SimulatedSource:
    """Bars of `garch_platform.quant.timeseries.generator.simulate_market`, stamped with real sessions.

    Symbols are ``SIM01``, ``SIM02``, …; the generator's missing bars are absent rows, and half days have
    fewer bars. Prices have nothing to adjust for (``adjustment='all'``). The market is made once an
    instance, on first use, and is the same for the same arguments.

    Args:
        calendar: sessions of the exchange.
        n_symbols: number of symbols.
        sessions: number of sessions, the last of which is ``last_session``.
        last_session: date of the last session.
        pairs: planted cointegrated pairs; the last of them breaks.
        seed: seed of all that is random.
        timeframe: length of the bars, one minute by default.

    Raises:
        CalendarError: ``last_session`` is not a session, or the calendar holds too few before it.
        ConfigurationError: a number is out of range.
    """

    name = "simulated"

    def __init__(
        self,
        calendar: TradingCalendar,
        *,
        n_symbols: int,
        sessions: int,
        last_session: date,
        pairs: int,
        seed: int,
        timeframe: Timeframe | None = None,
    ) -> None:
        self.calendar = calendar
        self.timeframe = timeframe or Timeframe.parse("1Min")
        self.n_symbols = n_symbols
        self.pairs = pairs
        self.seed = seed
        last = calendar.require_session(last_session)
        if sessions < 1 or n_symbols < max(1, 2 * pairs):
            raise ConfigurationError(
                f"simulated: {n_symbols} symbols, {sessions} sessions, {pairs} pairs is no market; "
                "give at least one session and two symbols a pair"
            )
        self.sessions = calendar.sessions(calendar.window_start(last, sessions), last)
        if len(self.sessions) < sessions:
            raise CalendarError(
                f"simulated: the calendar {calendar.name} holds {len(self.sessions)} sessions up to {last}, "
                f"not {sessions}; ask for fewer or a later last_session"
            )
        width = max(2, len(str(n_symbols)))
        self._names = [f"SIM{number:0{width}d}" for number in range(1, n_symbols + 1)]

    @cached_property
    def _stamps(self) -> pl.DataFrame:
        """``timestamp``, ``available_at``, ``session_date`` of each row of the market's arrays."""
        days = []
        for day in self.sessions:
            _, close = self.calendar.bounds(day)
            stamps = self.calendar.expected_timestamps(day, self.timeframe).to_frame("timestamp")
            days.append(
                stamps.with_columns(pl.lit(day).alias("session_date"), pl.lit(close).alias("close_at"))
            )
        end = pl.col("close_at")
        if not self.timeframe.is_daily:
            end = pl.min_horizontal(pl.col("timestamp") + self.timeframe.duration, end)
        return pl.concat(days).select(
            "timestamp", end.cast(UTC_TIMESTAMP).alias("available_at"), "session_date"
        )

    @cached_property
    def _market(self) -> SimulatedMarket:
        from garch_platform.quant.timeseries.generator import MarketSpec, simulate_market

        counts = self._stamps.group_by("session_date", maintain_order=True).len()["len"].to_list()
        spec = MarketSpec(
            n_symbols=self.n_symbols,
            n_pairs=self.pairs,
            bars_per_session=tuple(counts),
            breaking_pairs=min(1, self.pairs),
        )
        return simulate_market(spec, seed=self.seed)

    @cached_property
    def _bars(self) -> pl.DataFrame:
        market = self._market
        columns = {
            field: getattr(market, field).ravel(order="F")
            for field in ("open", "high", "low", "close", "volume")
        }
        rows = pl.concat([self._stamps] * self.n_symbols).with_columns(
            pl.Series("symbol", self._names, dtype=pl.String).repeat_by(self._stamps.height).explode(),
            **{field: pl.Series(values).fill_nan(None) for field, values in columns.items()},
        )
        return candidate_rows(
            rows.drop_nulls("close"),
            timeframe=self.timeframe.name,
            feed=self.name,
            data_source=self.name,
            is_proxy=False,
            adjustment="all",
        )

    def unreadable(self) -> dict[str, str]:
        """Nothing: all bars are at hand."""
        return {}

    def symbols(self) -> pl.DataFrame:
        """All symbols; both symbols of a planted pair are in one sector."""
        return pl.DataFrame(
            {
                "symbol": self._names,
                "name": [f"Simulated {name.removeprefix('SIM')}" for name in self._names],
                "sector": [SECTORS[(column // 2) % len(SECTORS)] for column in range(self.n_symbols)],
                "asset_class": ["equity"] * self.n_symbols,
                "first_session": [self.sessions[0]] * self.n_symbols,
                "last_session": [self.sessions[-1]] * self.n_symbols,
            }
        )

    def fetch(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Bars of ``symbols`` for the sessions ``start`` to ``end``, both included.

        Raises:
            CalendarError: the range is reversed.
        """
        if start > end:
            raise CalendarError(f"the range {start} to {end} is reversed; give the earlier date first")
        return self._bars.filter(
            pl.col("symbol").is_in(list(symbols)) & pl.col("session_date").is_between(start, end)
        )

    def truth(self) -> pl.DataFrame:
        """The planted pairs.

        Returns:
            ``symbol_1``, ``symbol_2`` (in alphabetical order), ``hedge_ratio`` (of the log price of
            symbol_1 on that of symbol_2), ``half_life_bars``, ``breaks_at`` (timestamp of the first bar
            after the break, null where the pair holds).
        """
        stamps = self._stamps["timestamp"]
        return self._market.truth.select(
            pl.Series("symbol_1", [self._names[column] for column in self._market.truth["first"]]),
            pl.Series("symbol_2", [self._names[column] for column in self._market.truth["second"]]),
            pl.col("hedge_ratio").cast(pl.Float64),
            pl.col("half_life_bars").cast(pl.Float64),
            pl.Series(
                "breaks_at",
                [None if row is None else stamps[int(row)] for row in self._market.truth["breaks_at"]],
                dtype=UTC_TIMESTAMP,
            ),
        )
