"""The tape: the lake's bars in order of time, one period in memory at a time.

A period is a session, or a month of daily bars. All symbols are aligned by timestamp; a bar that the lake
does not have is missing. A `View` says which symbols are read from whose bars at which version of the lake:
it is immutable, so that a period can be read in a thread while the lake is examined anew in another.

The tape reads ``bars`` only, never the table into which the stream client writes.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from typing import Final, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.bars import UTC_TIMESTAMP, Timeframe
from garch_platform.errors import ConfigurationError, StreamError
from garch_platform.recycler.period import Chunk, Period, Session, View
from garch_platform.recycler.tick import Bar

__all__ = ["BarLake", "Tape"]

LOG = logging.getLogger(__name__)

TABLE: Final = "bars"
PRICES: Final = ("open", "high", "low", "close", "volume")
"""Without any of these a bar cannot be spoken on the wire."""
READ: Final = ("symbol", "timestamp", "session_date", "feed", *PRICES, "trade_count", "vwap")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class BarLake(Protocol):
    """What the tape needs of `garch_platform.store.lake.Lake`."""

    def version(self, table: str) -> int | None:
        """The table's newest version; None before its first write."""
        ...

    def scan(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        symbols: Sequence[str] | None = None,
        start: date | None = None,
        end: date | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pl.LazyFrame:
        """Rows of a version of ``table``, unsorted."""
        ...


class Tape:
    """The bars of some symbols and sessions, as the lake holds them at the time of reading.

    Args:
        lake: holds the bars.
        timeframe: of the bars.
        symbols: that are served; empty = all that have bars.
        default_proxy: serves a symbol without any bars; None = nothing does.
        proxies: symbol without bars: the symbol that stands in for it instead of ``default_proxy``.
        start: first session; None is the lake's.
        end: last session, inclusive; None is the lake's.
        place: whose lake it is, for messages.

    Raises:
        ConfigurationError: a symbol is named as its own proxy.
    """

    def __init__(
        self,
        lake: BarLake,
        timeframe: Timeframe,
        *,
        symbols: Sequence[str] = (),
        default_proxy: str | None = None,
        proxies: Mapping[str, str] | None = None,
        start: date | None = None,
        end: date | None = None,
        place: str = "the workspace",
    ) -> None:
        self.lake = lake
        self.timeframe = timeframe
        self.configured = sorted(set(symbols))
        self.default_proxy = default_proxy
        self.named_proxies = dict(proxies or {})
        self.start = start
        self.end = end
        self.place = place
        self.view = View()
        self._unservable: dict[str, int] = {}
        self._counted: set[Period] = set()
        self._recent: deque[Chunk] = deque(maxlen=3)
        self._counting = Lock()
        self._warned: set[tuple[str, str | None]] = set()
        for symbol, proxy in self.named_proxies.items():
            if symbol == proxy:
                raise ConfigurationError(
                    f"symbol {symbol} is its own proxy (setting websocket.recycler.proxies); "
                    "name another symbol, or leave it out"
                )

    def open(self) -> View:
        """Examine the lake for the first time.

        Raises:
            StreamError: it holds no bars of these symbols and sessions, or none with prices and volume.
        """
        self.refresh()
        if not self.view.sessions:
            raise StreamError(self._nothing())
        ticks = self._scan(self.view, set(self.view.providers.values()), self._bounds(), PRICES)
        if ticks.filter(_servable()).head(1).pipe(_collected).is_empty():
            raise StreamError(
                f"{self.place} has {self.timeframe} bars, but none with all of {', '.join(PRICES)}; "
                "Alpaca's stream cannot speak the others, load bars that are complete"
            )
        return self.view

    def refresh(self) -> bool:
        """Examine the lake anew if it has a new version; return whether it had.

        A symbol that was served by a proxy and has bars by now is served by its own from here on. A lake
        that has lost all bars changes nothing: what was there is replayed on, as long as it can be read.
        """
        version = self.lake.version(TABLE)
        if self.view.sessions and version == self.view.version:
            return False
        view = View(version)
        names = self._scan(view, None, (None, None), ["symbol"]).unique()
        held: set[str | None] = set(_collected(names)["symbol"])
        providers: dict[str, str] = {}
        silent: list[str] = []
        for symbol in self.configured or sorted(filter(None, held)):
            proxy = symbol if symbol in held else self.named_proxies.get(symbol, self.default_proxy)
            if proxy is not None and proxy in held:
                providers[symbol] = proxy
            else:
                silent.append(symbol)
            if symbol not in held:
                self._warn(symbol, proxy, is_held=proxy in held)
        sessions = self._sessions(view, set(providers.values()))
        if self.view.sessions and not sessions:
            LOG.warning(
                "%s no longer holds bars to replay; version %s is kept", self.place, self.view.version
            )
            return False
        self.view = View(version, providers, tuple(silent), sessions)
        return True

    @property
    def symbols(self) -> list[str]:
        """Symbols that are served: those configured, or all that have bars; in order."""
        return self.configured or sorted(self.view.providers)

    @property
    def unservable(self) -> dict[str, int]:
        """Symbol: bars without a price or volume that were left out, in the periods read so far."""
        with self._counting:
            return dict(sorted(self._unservable.items()))

    def period_of(self, day: date) -> Period:
        """What is read together with session ``day``."""
        if not self.timeframe.is_daily:
            return Period(day, day)
        start = day.replace(day=1)
        return Period(start, (start + timedelta(days=31)).replace(day=1) - timedelta(days=1))

    def after(self, period: Period) -> Period | None:
        """The period of the next session that has bars; None if there is none."""
        sessions = self.view.sessions
        place = bisect_left(sessions, period.end + timedelta(days=1), key=lambda session: session.day)
        return self.period_of(sessions[place].day) if place < len(sessions) else None

    def read(self, period: Period) -> Chunk:
        """The bars of ``period`` from the present view; of two feeds the last by name (sip before iex)."""
        view = self.view
        start, end = self._bounds()
        span = (max(filter(None, (period.start, start))), min(filter(None, (period.end, end))))
        rows = self._scan(view, set(view.providers.values()), span, READ).pipe(_collected)
        chunk = Chunk(view, period, self._served(rows, view, period).sort("timestamp", "symbol"))
        self._recent.append(chunk)
        return chunk

    def read_again(
        self, view: View, symbols: Iterable[str], sources: NDArray[np.int64]
    ) -> Iterator[pl.DataFrame]:
        """The bars of ``symbols`` at ``sources`` (µs since 1970) as ``view`` gave them.

        Yields:
            Frames with ``timestamp`` and the fields of `Bar`, of runs of sessions in order of time.
        """
        wanted = {symbol: view.providers[symbol] for symbol in symbols if symbol in view.providers}
        lasts = np.array([_micros(session.last) for session in view.sessions], dtype=np.int64)
        numbers = np.unique(np.searchsorted(lasts, sources))
        if not wanted or not numbers.size:
            return
        stamps = pl.Series("timestamp", sources).cast(UTC_TIMESTAMP).unique().to_frame()
        known = {chunk.period: chunk for chunk in list(self._recent) if chunk.view is view}
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
            first, last = view.sessions[run[0]].day, view.sessions[run[-1]].day
            chunk = known.get(self.period_of(first))
            if chunk is not None and last <= chunk.period.end:
                rows = chunk.frame.filter(pl.col("symbol").is_in(list(wanted)))
                yield rows.join(stamps, on="timestamp", how="semi")
            else:
                read = self._scan(view, set(wanted.values()), (first, last), READ)
                read = read.join(stamps.lazy(), on="timestamp", how="semi").filter(_servable())
                yield _renamed(_one_feed(_collected(read)), wanted)

    def _served(self, rows: pl.DataFrame, view: View, period: Period) -> pl.DataFrame:
        complete = _one_feed(rows.filter(_servable()))
        lost = rows.filter(~_servable()).unique(["symbol", "timestamp"])
        if not lost.is_empty():
            self._count(period, lost.join(complete, on=["symbol", "timestamp"], how="anti"))
        return _renamed(complete, view.providers)

    def _count(self, period: Period, lost: pl.DataFrame) -> None:
        with self._counting:
            if period in self._counted:
                return
            self._counted.add(period)
            found = dict(lost["symbol"].value_counts().iter_rows())
            fresh = sorted(set(found) - set(self._unservable))
            for symbol, count in found.items():
                self._unservable[symbol] = self._unservable.get(symbol, 0) + count
        for symbol in fresh:
            LOG.warning(
                "%s has %s bars without %s, such as in %s; they are left out, Alpaca's stream cannot speak them",
                symbol, self.timeframe, " or ".join(PRICES), period.start,
            )  # fmt: skip

    def _warn(self, symbol: str, proxy: str | None, *, is_held: bool) -> None:
        if (symbol, proxy if is_held else None) in self._warned:
            return
        self._warned.add((symbol, proxy if is_held else None))
        if is_held:
            LOG.warning("%s has no %s bars: it is served from its proxy %s", symbol, self.timeframe, proxy)
        elif proxy is None or proxy == symbol:
            LOG.warning("%s has no %s bars and no proxy: it stays silent", symbol, self.timeframe)
        else:
            LOG.warning(
                "%s has no %s bars, and its proxy %s has none either: it stays silent",
                symbol, self.timeframe, proxy,
            )  # fmt: skip

    def _scan(
        self,
        view: View,
        symbols: Iterable[str] | None,
        span: tuple[date | None, date | None],
        columns: Sequence[str],
    ) -> pl.LazyFrame:
        return self.lake.scan(
            TABLE,
            timeframe=self.timeframe.name,
            symbols=None if symbols is None else sorted(symbols),
            start=span[0],
            end=span[1],
            columns=columns,
            version=view.version,
        )

    def _sessions(self, view: View, symbols: set[str]) -> tuple[Session, ...]:
        stamps = self._scan(view, symbols, self._bounds(), ["session_date", "timestamp"])
        found = stamps.group_by("session_date").agg(
            pl.col("timestamp").min().alias("first"), pl.col("timestamp").max().alias("last")
        )
        rows = found.sort("session_date").pipe(_collected).iter_rows()
        return tuple(Session(*row) for row in rows)

    def _bounds(self) -> tuple[date | None, date | None]:
        return self.start, self.end

    def _nothing(self) -> str:
        which = f" of {', '.join(self.configured)}" if self.configured else ""
        held = (
            self._scan(self.view, None, (None, None), ["session_date"])
            .select(pl.col("session_date").min().alias("first"), pl.col("session_date").max().alias("last"))
            .pipe(_collected)
        )
        first, last = held.row(0)
        if first is None:
            return f"{self.place} holds no {self.timeframe} bars; run `garch refresh`"
        asked = f" from {self.start} to {self.end}" if self.start or self.end else ""
        return (
            f"{self.place} holds no {self.timeframe} bars{which}{asked}; it holds {first} to {last}: "
            "change websocket.recycler.date_range or .symbols, or run `garch refresh`"
        )


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    """The rows, read in pieces: memory follows the result, not what is read for it."""
    try:
        return rows.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise StreamError(
            f"the lake's bars cannot be read: {reason}; look at the lake, then start again"
        ) from error


def _servable() -> pl.Expr:
    return pl.all_horizontal(pl.col(PRICES).is_not_null())


def _one_feed(rows: pl.DataFrame) -> pl.DataFrame:
    if rows["feed"].n_unique() < 2:
        return rows
    return rows.sort("feed").unique(["symbol", "timestamp"], keep="last", maintain_order=True)


def _renamed(rows: pl.DataFrame, providers: Mapping[str, str]) -> pl.DataFrame:
    """Every bar under the name of each symbol that it serves."""
    serves = pl.DataFrame(
        {"served": list(providers), "symbol": list(providers.values())},
        schema={"served": pl.String, "symbol": pl.String},
    )
    named = rows.join(serves, on="symbol").drop("symbol").rename({"served": "symbol"})
    return named.select("timestamp", "session_date", *Bar._fields)


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
