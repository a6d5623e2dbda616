"""Alpaca's historical bars for what was replayed so far, so that clients can fill gaps; never the future."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import parse_qs

import polars as pl

from garch_platform.recycler.daily import NEW_YORK, day_start
from garch_platform.recycler.replay import REPLAYED, Replay
from garch_platform.recycler.tick import Bar
from garch_platform.recycler.wire import bar_fields, rfc3339

__all__ = ["BadRequest", "bars_page"]

DEFAULT_LIMIT: Final = 1_000
MOST: Final = 10_000
MINUTE: Final = "1Min"
DAY: Final = "1Day"
LENGTH: Final = re.compile(r"(?P<number>[1-9][0-9]?)(?P<unit>[A-Za-z]+)")
UNITS: Final = {"T": "Min", "Min": "Min", "H": "Hour", "Hour": "Hour", "D": "Day", "Day": "Day"}
"""Of a length as Alpaca takes it, and the unit's name here."""

DAY_AND_MORE: Final = timedelta(hours=36)
EARLIEST: Final = datetime(2, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9998, 1, 1, tzinfo=UTC)

Place = tuple[str, datetime | None]
"""Symbol and time of the last bar of the page before; the empty symbol before the first page."""


class BadRequest(Exception):
    """A query that Alpaca would answer with status 400; the text says why."""


def bars_page(replay: Replay, query: str, *, symbol: str | None = None) -> dict[str, Any]:
    """One page of ``GET /v2/stocks/bars``.

    Bars come by symbol and time; ``limit`` counts all symbols together, and ``next_page_token`` names the
    last bar of the page. Feed and adjustment are taken as they come: the replay has one of each. It has bars of
    the length with which they were stamped, a minute in the live clock, and daily bars made from these.

    Args:
        replay: that remembers what it sent.
        query: of the URL: symbols, timeframe, start, end, limit, page_token, sort.
        symbol: of the path ``/v2/stocks/{symbol}/bars``, answered in its own shape.

    Raises:
        BadRequest: a parameter is missing or malformed.
    """
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    symbols = [symbol] if symbol else sorted({name for name in given.get("symbols", "").split(",") if name})
    if not symbols:
        raise BadRequest("symbols: name at least one, separated by commas")
    limit = _limit(given.get("limit"))
    start, end = (_moment(given.get(name), name) for name in ("start", "end"))
    is_descending = _is_descending(given.get("sort", "asc"))
    is_made = _is_made(replay, given.get("timeframe", ""))
    after = _after(given.get("page_token"))
    frames = replay.replayed(symbols, *(_days(start, end) if is_made else (start, end)), since=after[0])
    if is_made:
        frames = (_daily(frame, start, end) for frame in frames)
    page = _page(frames, after, limit + 1, is_descending=is_descending)
    bars: dict[str, list[dict[str, Any]]] = {}
    for stamp, *fields in page.head(limit).iter_rows():
        bar = Bar(*fields)
        bars.setdefault(bar.symbol, []).append(bar_fields(bar, rfc3339(stamp)))
    token = _token(*page.row(limit - 1)[:2]) if len(page) > limit else None
    if symbol:
        return {"symbol": symbol, "bars": bars.get(symbol, []), "next_page_token": token}
    return {"bars": bars, "next_page_token": token}


def _page(frames: Iterable[pl.DataFrame], after: Place, most: int, *, is_descending: bool) -> pl.DataFrame:
    """The first ``most`` bars after ``after``; no frame is taken from ``frames`` that is not needed."""
    symbol, stamp = after
    found = [REPLAYED]
    for frame in frames:
        rows = frame.filter(pl.col("symbol") >= symbol)
        if stamp is not None:
            beyond = pl.col("stamp") < stamp if is_descending else pl.col("stamp") > stamp
            rows = rows.filter((pl.col("symbol") > symbol) | beyond)
        if is_descending:
            rows = rows.sort("symbol", "stamp", descending=[False, True])
        found.append(rows.head(most))
        most -= len(found[-1])
        if not most:
            break
    return pl.concat(found)


def _daily(frame: pl.DataFrame, start: datetime | None, end: datetime | None) -> pl.DataFrame:
    """The daily bars of ``frame`` whose own time lies between the ends, as `RunningDays` sums them."""
    value = (pl.col("vwap") * pl.col("volume")).cum_sum().last()
    volume = pl.col("volume").cum_sum().last()
    is_whole = {name: pl.col(name).null_count() == 0 for name in ("trade_count", "vwap")}
    begin = pl.col("stamp").dt.convert_time_zone(str(NEW_YORK)).dt.truncate("1d").dt.convert_time_zone("UTC")
    days = frame.group_by("symbol", begin, maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        volume,
        pl.when(is_whole["trade_count"]).then(pl.col("trade_count").sum()),
        pl.when(is_whole["vwap"] & (volume != 0)).then(value / volume),
    )
    first = pl.lit(True) if start is None else pl.col("stamp") >= start
    last = pl.lit(True) if end is None else pl.col("stamp") <= end
    return days.filter(first, last).select(REPLAYED.columns)


def _days(start: datetime | None, end: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Both ends moved outwards, so that no day between them lacks a bar."""
    return (
        None if start is None or start < EARLIEST else day_start(start),
        None if end is None or end > LATEST else day_start(end) + DAY_AND_MORE,
    )


def _is_made(replay: Replay, asked: str) -> bool:
    """Whether bars of the length ``asked`` are made from those that were sent, rather than these themselves."""
    status = replay.status()
    sent = str(status["timeframe"]) if status.get("clock") == "historical" else MINUTE
    found = LENGTH.fullmatch(asked)
    name = f"{found['number']}{UNITS.get(found['unit'], found['unit'])}" if found else asked
    if name not in (sent, DAY):
        raise BadRequest(
            f"timeframe: {asked!r} is not served; ask for {' or '.join(dict.fromkeys((sent, DAY)))}"
        )
    return name == DAY != sent


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MOST:
        raise BadRequest(f"limit: {text!r} is not between 1 and {MOST}")
    return int(text)


def _is_descending(sort: str) -> bool:
    if sort not in ("asc", "desc"):
        raise BadRequest(f"sort: {sort!r} is not served; ask for asc or desc")
    return sort == "desc"


def _moment(text: str | None, name: str) -> datetime | None:
    """A time in RFC 3339, or a date: its first moment in New York, for ``end`` its last."""
    if text is None:
        return None
    try:
        if len(text) == len("2018-03-01"):
            day = datetime.combine(date.fromisoformat(text), time(), NEW_YORK)
            if name == "end":
                day += timedelta(days=1, microseconds=-1)
            return day.astimezone(UTC)
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except (ValueError, OverflowError):
        raise BadRequest(f"{name}: {text!r} is neither a date nor a time in RFC 3339") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _token(stamp: datetime, symbol: str) -> str:
    return base64.urlsafe_b64encode(f"{symbol}|{rfc3339(stamp)}".encode()).decode()


def _after(token: str | None) -> Place:
    if token is None:
        return "", None
    try:
        symbol, _, text = base64.urlsafe_b64decode(token).decode().partition("|")
        return symbol, datetime.fromisoformat(text).astimezone(UTC)
    except (binascii.Error, ValueError, OverflowError):
        raise BadRequest(f"page_token: {token!r} is none that was given") from None
