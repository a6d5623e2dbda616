"""Bars of US equities from Alpaca's market-data server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Final, Literal

import polars as pl

from garch_platform.bars import Timeframe
from garch_platform.errors import CalendarError, ConfigurationError, SourceError
from garch_platform.rest.alpaca import AlpacaAccess, bar_pages, bar_query
from garch_platform.rest.request_pace import RequestRefused
from garch_platform.rest.symbol_chunks import ask_in_chunks
from garch_platform.sessions import FIRST_DAY, TradingCalendar
from garch_platform.sources.alpaca_actions import read_actions
from garch_platform.sources.alpaca_rows import bar_rows
from garch_platform.sources.corporate_actions import ACTIONS_SCHEMA, apply_actions
from garch_platform.sources.directory import unlisted_symbols
from garch_platform.sources.session_rows import assign_daily_sessions, assign_intraday_sessions
from garch_platform.sources.source import candidate_rows, empty_bars

__all__ = ["ACTIONS", "AlpacaSource"]

LOG = logging.getLogger(__name__)

ACTIONS: Final = "corporate actions"
"""Name under which `AlpacaSource.unreadable` reports that splits and dividends could not be read."""


class AlpacaSource:
    """1-minute to daily bars through alpaca-py, many symbols a request.

    Prices are as ``adjustment`` says. Raw ones carry Alpaca's splits and cash dividends, each at the first
    bar on or after its ex-date; all other bars have null factors. Bars shorter than a day are those of the
    exchange's sessions; Alpaca's hourly bars begin on the hour, so that the first one of a session also
    holds the trades of the half hour before the open.

    A request that fails by network, 429 or 5xx is attempted again; one that fails for good is halved until
    the symbols at fault are alone. They give no rows and are named by `unreadable`; the others go on.

    Args:
        calendar: sessions of the exchange.
        timeframe: length of the bars.
        access: to the server of market data.
        feed: ``iex`` (one exchange) or ``sip`` (all of them); the rows' feed.
        adjustment: ``raw``, ``split`` or ``all``.
        history_days: calendar days of a symbol's whole past, which is what a range from `FIRST_DAY` asks for.
        page_limit: bars a page, all symbols together (at most 10,000).
        symbols_per_request: in one URL.

    Raises:
        ConfigurationError: an argument is none of those allowed.
    """

    name = "alpaca"

    def __init__(
        self,
        calendar: TradingCalendar,
        timeframe: Timeframe,
        access: AlpacaAccess,
        *,
        feed: Literal["iex", "sip"] = "iex",
        adjustment: Literal["raw", "split", "all"] = "raw",
        history_days: int = 7,
        page_limit: int = 10_000,
        symbols_per_request: int = 100,
    ) -> None:
        if feed not in ("iex", "sip"):
            raise ConfigurationError(f"alpaca.feed {feed!r} is not known; use iex or sip")
        if adjustment not in ("raw", "split", "all"):
            raise ConfigurationError(f"alpaca.adjustment {adjustment!r} is not known; use raw, split or all")
        if not 1 <= page_limit <= 10_000:
            raise ConfigurationError(f"alpaca.page_limit {page_limit} is out of range; use 1 to 10000")
        self.calendar = calendar
        self.timeframe = timeframe
        self.feed = feed
        self.adjustment = adjustment
        self.history_days = history_days
        self.page_limit = page_limit
        self.symbols_per_request = symbols_per_request
        self._access = access
        self._seen: set[str] = set()
        self._unreadable: dict[str, str] = {}

    @cached_property
    def _bars_client(self) -> Any:
        from alpaca.data.historical.stock import StockHistoricalDataClient

        return self._access.open(StockHistoricalDataClient)

    @cached_property
    def _actions_client(self) -> Any:
        from alpaca.data.historical.corporate_actions import CorporateActionsClient

        return self._access.open(CorporateActionsClient)

    def unreadable(self) -> dict[str, str]:
        """Symbols that the latest `fetch` could not read, each with the reason.

        ``corporate actions`` is among them where raw bars had to be given without splits and dividends.
        """
        return dict(self._unreadable)

    def symbols(self) -> pl.DataFrame:
        """The symbols that gave bars. Their first and last sessions are null.

        Symbols that could not be read just now are left out.
        """
        return unlisted_symbols(self._seen - set(self._unreadable))

    def fetch(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Bars of ``symbols`` for the days ``start`` to ``end``, both included, as Alpaca has them.

        A ``start`` of `FIRST_DAY` means ``history_days`` before ``end``; any other is taken as it is.

        Raises:
            CalendarError: the range is reversed.
            SourceError: nothing at all could be read, or the credentials or the plan are not sufficient.
        """
        if start > end:
            raise CalendarError(f"the range {start} to {end} is reversed; give the earlier date first")
        self._unreadable = {}
        first = start if start > FIRST_DAY else end - timedelta(days=self.history_days)
        wanted = list(dict.fromkeys(symbols))
        span = self._span(first, end)
        if not wanted or span is None:
            return empty_bars()
        rows = self._rows(wanted, *span)
        self._seen |= set(rows["symbol"])
        if self.timeframe.is_daily:
            local = pl.col("timestamp").dt.convert_time_zone(str(self.calendar.timezone))
            dated = rows.with_columns(local.dt.date().alias("day")).drop("timestamp")
            placed = assign_daily_sessions(dated, self.calendar)
        else:
            placed = assign_intraday_sessions(rows, self.calendar, self.timeframe, regular_hours=True)
        given = placed.filter(pl.coalesce("session_date", "day").is_between(first, end))
        if self.adjustment == "raw":
            given = apply_actions(given, self._actions_beside(wanted, first, end))
        return candidate_rows(
            given.sort("symbol", "timestamp"),
            timeframe=self.timeframe.name,
            feed=self.feed,
            data_source=self.name,
            is_proxy=False,
            adjustment=self.adjustment,
        )

    def actions(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Splits and cash dividends with ex-dates from ``start`` to ``end``, both included.

        Returns:
            ``symbol``, ``ex_date``, ``action`` (``split``: new shares for one old; ``dividend``: currency
            per share), ``value``, ``data_source``; what falls on one day is one row.

        Raises:
            CalendarError: the range is reversed.
            SourceError: they could not be read.
        """
        if start > end:
            raise CalendarError(f"the range {start} to {end} is reversed; give the earlier date first")
        wanted = list(dict.fromkeys(symbols))
        found = ask_in_chunks(
            wanted,
            self.symbols_per_request,
            lambda chunk: read_actions(self._access, self._actions_client, chunk, start, end),
        )
        for symbol, reason in found.failed.items():
            if not isinstance(reason, RequestRefused):
                raise SourceError(
                    f"the splits and dividends of {symbol} could not be read: {reason}"
                ) from reason
            LOG.warning("%s has no splits and dividends at Alpaca: %s", symbol, reason)
        listed = [pl.DataFrame(schema=ACTIONS_SCHEMA), *found.answers]
        return pl.concat(listed).sort("symbol", "ex_date", "action")

    def _actions_beside(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        readable = [symbol for symbol in symbols if symbol not in self._unreadable]
        try:
            return self.actions(readable, start, end)
        except SourceError as error:
            LOG.warning("bars from %s to %s come without splits and dividends: %s", start, end, error)
            self._unreadable[ACTIONS] = str(error)
            return pl.DataFrame(schema=ACTIONS_SCHEMA)

    def _span(self, start: date, end: date) -> tuple[datetime, datetime] | None:
        """What to ask for, both ends included: whole days of daily bars, else the sessions alone.

        Nothing after the last close is asked for, so that a plan without recent data can have today's.
        """
        zone = self.calendar.timezone
        if self.timeframe.is_daily:
            first, last = (datetime(day.year, day.month, day.day, tzinfo=zone) for day in (start, end))
            return first, last
        sessions = self.calendar.sessions(start, end)
        if not sessions:
            return None
        opens, closes = self.calendar.bounds(sessions[0])[0], self.calendar.bounds(sessions[-1])[1]
        return opens - self.timeframe.duration, closes - timedelta(seconds=1)

    def _rows(self, symbols: list[str], start: datetime, end: datetime) -> pl.DataFrame:
        """All pages of the readable symbols; the others are noted in `unreadable`."""
        found = ask_in_chunks(symbols, self.symbols_per_request, lambda chunk: self._pages(chunk, start, end))
        self._unreadable = {symbol: str(reason) for symbol, reason in found.failed.items()}
        if self._unreadable:
            LOG.warning("bars of %s could not be read", ", ".join(self._unreadable))
        return pl.concat([page for pages in found.answers for page in pages] or [bar_rows({})])

    def _pages(self, symbols: list[str], start: datetime, end: datetime) -> list[pl.DataFrame]:
        query = bar_query(
            symbols,
            self.timeframe,
            start,
            end,
            limit=self.page_limit,
            adjustment=self.adjustment,
            feed=self.feed,
        )
        pages = map(bar_rows, bar_pages(self._access, self._bars_client.get, query))
        return [page.filter(pl.col("symbol").is_in(symbols)) for page in pages]
