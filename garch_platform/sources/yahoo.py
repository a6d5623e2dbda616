"""Bars of US equities from Yahoo Finance."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import polars as pl

from garch_platform.bars import Timeframe
from garch_platform.errors import CalendarError, ConfigurationError
from garch_platform.rest.symbol_chunks import ask_in_chunks
from garch_platform.sessions import FIRST_DAY, TradingCalendar
from garch_platform.sources.corporate_actions import apply_actions
from garch_platform.sources.directory import unlisted_symbols
from garch_platform.sources.session_rows import assign_daily_sessions, assign_intraday_sessions
from garch_platform.sources.source import candidate_rows, empty_bars
from garch_platform.sources.yahoo_access import YAHOO, YahooAccess
from garch_platform.sources.yahoo_history import empty_history, raw_history
from garch_platform.sources.yahoo_info import COMPANY_SCHEMA, company_row

__all__ = ["YahooSource"]

LOG = logging.getLogger(__name__)

INTERVALS: Final = {"1Day": "1d", "1Hour": "1h"}
HOURLY_DAYS: Final = 729
"""Calendar days before now for which Yahoo keeps hourly bars."""


class YahooSource:
    """Daily and hourly bars through yfinance, one symbol a request.

    Prices are raw (``adjustment`` ``raw``): Yahoo's are adjusted for splits, which `yahoo_history` takes
    out again. Splits and dividends stand at the first bar on or after their ex-date; all other bars have
    null factors. There is no ``vwap`` and no ``trade_count``.

    Args:
        calendar: sessions of the exchange.
        timeframe: ``1Day`` or ``1Hour`` (counted from the open, 09:30).
        history_days: calendar days of a symbol's whole past, which is what a range from `FIRST_DAY` asks for.
        requests_per_minute: at most.
        attempts: of a question that fails by network, 429 or 5xx.
        session: a ``requests`` or ``curl_cffi`` session; None = yfinance's own.
        sleep: waits so many seconds.
        now: the time, UTC.

    Raises:
        ConfigurationError: Yahoo is not asked for that timeframe.
    """

    name = YAHOO

    def __init__(
        self,
        calendar: TradingCalendar,
        timeframe: Timeframe,
        *,
        history_days: int = 3650,
        requests_per_minute: int = 60,
        attempts: int = 3,
        session: Any = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if timeframe.name not in INTERVALS:
            raise ConfigurationError(
                f"the yahoo source has no bars of {timeframe}; set universe.timeframe to one of "
                f"{', '.join(INTERVALS)}, or another universe.source"
            )
        self.calendar = calendar
        self.timeframe = timeframe
        self.history_days = history_days
        self._access = YahooAccess(
            requests_per_minute=requests_per_minute, attempts=attempts, session=session, sleep=sleep, now=now
        )
        self._seen: set[str] = set()
        self._unreadable: dict[str, str] = {}

    def unreadable(self) -> dict[str, str]:
        """Symbols that the latest `fetch` or `company_info` could not read, with the reason."""
        return dict(self._unreadable)

    def symbols(self) -> pl.DataFrame:
        """The symbols that gave bars: Yahoo has no list. Their first and last sessions are null.

        Symbols that could not be read just now are left out.
        """
        return unlisted_symbols(self._seen - set(self._unreadable))

    def fetch(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Bars of ``symbols`` for the days ``start`` to ``end``, both included.

        A ``start`` of `FIRST_DAY` means ``history_days`` before ``end``. Hourly bars older than Yahoo keeps
        are not asked for. A symbol that Yahoo does not have gives no rows.

        Raises:
            CalendarError: the range is reversed.
            SourceError: nothing at all could be read.
        """
        first, bars, actions = self._histories(symbols, start, end)
        if bars.is_empty():
            return empty_bars()
        self._seen |= set(bars["symbol"])
        if self.timeframe.is_daily:
            placed = assign_daily_sessions(bars.drop("timestamp"), self.calendar)
        else:
            placed = assign_intraday_sessions(bars, self.calendar, self.timeframe, regular_hours=True)
        given = placed.filter(pl.coalesce("session_date", "day").is_between(first, end))
        return candidate_rows(
            apply_actions(given, actions).sort("symbol", "timestamp"),
            timeframe=self.timeframe.name,
            feed=YAHOO,
            data_source=YAHOO,
            is_proxy=False,
            adjustment="raw",
        )

    def company_info(self, symbols: Sequence[str]) -> pl.DataFrame:
        """What Yahoo says of each company, as rows of the table ``company_info``.

        A symbol that Yahoo does not know gives no row, nor does one that could not be read (`unreadable`).

        Raises:
            SourceError: nothing at all could be read.
        """

        def ask(chunk: list[str]) -> pl.DataFrame:
            info = self._access.ask(chunk[0], lambda ticker: ticker.get_info())
            return company_row(chunk[0], info or {}, self._access.now())

        found = ask_in_chunks(list(dict.fromkeys(symbols)), 1, ask)
        self._note(found.failed)
        return pl.concat([pl.DataFrame(schema=COMPANY_SCHEMA), *found.answers])

    def _histories(
        self, symbols: Sequence[str], start: date, end: date
    ) -> tuple[date, pl.DataFrame, pl.DataFrame]:
        """The first day asked for, bars from it up to now, and the actions up to ``end``."""
        if start > end:
            raise CalendarError(f"the range {start} to {end} is reversed; give the earlier date first")
        first = start if start > FIRST_DAY else end - timedelta(days=self.history_days)
        if not self.timeframe.is_daily:
            today = self._access.now().astimezone(self.calendar.timezone).date()
            first = max(first, today - timedelta(days=HOURLY_DAYS))
        self._unreadable = {}
        wanted = list(dict.fromkeys(symbols)) if first <= end else []
        found = ask_in_chunks(wanted, 1, lambda chunk: self._history(chunk[0], first))
        self._note(found.failed)
        answers = [empty_history(), *found.answers]
        bars, actions = (pl.concat(frames) for frames in zip(*answers, strict=True))
        return first, bars, actions.filter(pl.col("ex_date").is_between(first, end))

    def _history(self, symbol: str, first: date) -> tuple[pl.DataFrame, pl.DataFrame]:
        history = self._access.ask(
            symbol,
            lambda ticker: ticker.history(
                start=first.isoformat(),
                interval=INTERVALS[self.timeframe.name],
                auto_adjust=False,
                back_adjust=False,
                actions=True,
                keepna=True,
                timeout=30,
            ),
        )
        return empty_history() if history is None else raw_history(symbol, history)

    def _note(self, failed: dict[str, Any]) -> None:
        self._unreadable = {symbol: str(reason) for symbol, reason in failed.items()}
        if failed:
            LOG.warning("%s could not be read from Yahoo", ", ".join(failed))
