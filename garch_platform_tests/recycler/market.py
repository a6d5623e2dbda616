"""Small lakes to replay, and a time that tests turn themselves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from garch_platform.bars import BAR_SCHEMA, UTC_TIMESTAMP, Timeframe
from garch_platform.recycler.clock import Gaps, ReplayClock, Speed, Stamps
from garch_platform.recycler.player import Mode, Player
from garch_platform.recycler.tape import Tape
from garch_platform.recycler.tick import Tick
from garch_platform.sessions import trading_calendar
from garch_platform.store.lake import Lake

CALENDAR = trading_calendar("XNYS")
MINUTE = Timeframe.parse("1Min")
DAY = Timeframe.parse("1Day")
DAYS = [date(2024, 3, 7), date(2024, 3, 8), date(2024, 3, 11)]
"""A Thursday, the Friday before New York's clocks change, and the Monday after."""
NOW = datetime(2025, 5, 5, 12, 0, 30, tzinfo=UTC)

Minutes = Mapping[str, Iterable[int]]


class TurnedTime:
    """A time that stands still until somebody waits; then it is at once as late as was asked for."""

    def __init__(self, now: datetime = NOW) -> None:
        self.moment = now
        self.waited: list[float] = []
        self.on_wait: Callable[[float], None] | None = None

    def now(self) -> datetime:
        """The moment that was turned to."""
        return self.moment

    def turn(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.moment += timedelta(seconds=seconds)

    async def wait(self, seconds: float, changed: asyncio.Event) -> None:
        """Pass ``seconds``, unless something changes; `on_wait` is told before."""
        self.waited.append(seconds)
        if self.on_wait is not None:
            self.on_wait(seconds)
        await asyncio.sleep(0)
        if changed.is_set():
            return
        if math.isinf(seconds):
            await changed.wait()
        else:
            self.turn(seconds)


def session_bars(
    minutes: Minutes, day: date = DAYS[0], *, feed: str = "iex", price: float = 100.0
) -> pl.DataFrame:
    """Minute bars of one session: symbol and the minutes after the open at which it has a bar.

    Every close tells symbol and minute apart: ``price`` + minute + a hundredth of the symbol's first letter.
    """
    opening, _ = CALENDAR.bounds(day)
    rows = [(name, minute) for name, numbers in minutes.items() for minute in numbers]
    close = [price + minute + ord(name[0]) / 100 for name, minute in rows]
    frame = pl.DataFrame(
        {
            "symbol": [name for name, _ in rows],
            "timestamp": [opening + timedelta(minutes=minute) for _, minute in rows],
            "open": [value - 0.25 for value in close],
            "high": [value + 0.5 for value in close],
            "low": [value - 0.5 for value in close],
            "close": close,
            "volume": [100.0 + minute for _, minute in rows],
            "vwap": [value + 0.125 for value in close],
            "trade_count": [minute + 1 for _, minute in rows],
        },
        schema_overrides={"symbol": pl.String, "timestamp": UTC_TIMESTAMP},
    )
    return contract(frame, day, timeframe=MINUTE, feed=feed)


def daily_bars(symbols: Sequence[str], days: Sequence[date]) -> pl.DataFrame:
    """One bar a symbol and session; the close counts the sessions from 100."""
    frames = []
    for number, day in enumerate(days):
        opening, _ = CALENDAR.bounds(day)
        price = dict.fromkeys(("open", "high", "low", "close", "vwap"), 100.0 + number)
        rows = [{"symbol": name, "timestamp": opening, "volume": 1000.0, **price} for name in symbols]
        frame = pl.DataFrame(rows, schema_overrides={"timestamp": UTC_TIMESTAMP})
        frames.append(contract(frame, day, timeframe=DAY))
    return pl.concat(frames)


def contract(frame: pl.DataFrame, day: date, *, timeframe: Timeframe, feed: str = "iex") -> pl.DataFrame:
    """``frame`` with all columns of the bar contract."""
    given = frame.with_columns(
        timeframe=pl.lit(timeframe.name),
        available_at=pl.col("timestamp") + timeframe.duration,
        session_date=pl.lit(day),
        feed=pl.lit(feed),
        data_source=pl.lit("file"),
        is_proxy=pl.lit(False),
        adjustment=pl.lit("raw"),
    )
    return given.select(
        (pl.col(name) if name in given.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in BAR_SCHEMA.items()
    )


def store(lake: Lake, bars: pl.DataFrame) -> Lake:
    """Write ``bars`` as the only ones of their symbols between their first and last session."""
    for (timeframe,), rows in bars.group_by("timeframe"):
        days, symbols = rows["session_date"], rows["symbol"].unique().to_list()
        lake.replace("bars", rows, timeframe=timeframe, symbols=symbols, start=days.min(), end=days.max())
    return lake


class MemoryLake:
    """Bars that are only read, held in memory: a hundred times as fast as files."""

    def __init__(self, bars: pl.DataFrame) -> None:
        self.bars = bars

    def version(self, table: str) -> int | None:
        """Always the first."""
        assert table == "bars"
        return 1

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
        """As `Lake.scan`."""
        assert (table, version) == ("bars", 1)
        rows = self.bars.lazy().filter(pl.col("timeframe") == timeframe)
        if symbols is not None:
            rows = rows.filter(pl.col("symbol").is_in(list(symbols)))
        if start is not None:
            rows = rows.filter(pl.col("session_date") >= start)
        if end is not None:
            rows = rows.filter(pl.col("session_date") <= end)
        return rows.select(columns or list(BAR_SCHEMA))


def market_bars(minutes: Minutes, days: Sequence[date] = DAYS) -> pl.DataFrame:
    """Every session has the same minutes, at a hundred more than the one before."""
    return pl.concat(session_bars(minutes, day, price=100.0 * (1 + n)) for n, day in enumerate(days))


def market(folder: Path, minutes: Minutes, days: Sequence[date] = DAYS) -> Lake:
    """`market_bars` in a lake."""
    return store(Lake(folder / "lake"), market_bars(minutes, days))


def player_of(
    tape: Tape,
    time: TurnedTime,
    *,
    speed: Speed = "max",
    stamps: Stamps = "live",
    session_gaps: Gaps = "skip",
    mode: Mode = "single_pass",
    loop_count: int = -1,
    remembered: int = 200_000,
    refresh_seconds: float = 1e9,
) -> Player:
    """A player of ``tape``; ``refresh_seconds=0`` looks at the lake before every tick."""
    tape.open()
    clock = ReplayClock(tape.timeframe, speed=speed, stamps=stamps, session_gaps=session_gaps)
    return Player(
        tape,
        clock,
        mode=mode,
        loop_count=loop_count,
        time=time,
        remembered=remembered,
        refresh_seconds=refresh_seconds,
    )


async def collected(
    player: Player, most: int = 100_000, after: Callable[[int, Tick], None] | None = None
) -> list[Tick]:
    """The first ``most`` ticks; ``after`` is told the number of each and the tick."""
    ticks: list[Tick] = []
    stream = player.ticks()
    async for tick in stream:
        ticks.append(tick)
        if after is not None:
            after(len(ticks), tick)
        if len(ticks) >= most:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return ticks


def play(player: Player, most: int = 100_000, after: Callable[[int, Tick], None] | None = None) -> list[Tick]:
    """`collected` in an event loop of its own."""
    return asyncio.run(collected(player, most, after))


def opening(day: date) -> datetime:
    """When session ``day`` opens, UTC."""
    return CALENDAR.bounds(day)[0]
