"""Alpaca's historical bars for what was replayed so far, so that clients can fill gaps; never the future."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import parse_qs

from garch_platform.recycler.daily import NEW_YORK, RunningDays, day_start
from garch_platform.recycler.replay import Replay
from garch_platform.recycler.tick import Bar
from garch_platform.recycler.wire import bar_fields, rfc3339

__all__ = ["BadRequest", "bars_page"]

DEFAULT_LIMIT: Final = 1_000
MOST: Final = 10_000
MINUTE: Final = "1Min"
DAY: Final = "1Day"

Dated = tuple[datetime, Bar]


class BadRequest(Exception):
    """A query that Alpaca would answer with status 400; the text says why."""


def bars_page(replay: Replay, query: str, *, symbol: str | None = None) -> dict[str, Any]:
    """One page of ``GET /v2/stocks/bars``.

    Bars come by symbol and time; ``limit`` counts all symbols together, and ``next_page_token`` names the
    last bar of the page. Feed and adjustment are taken as they come: the replay has one of each. Daily
    bars of a replay of shorter ones are made from what was sent.

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
    is_descending = _choice(given.get("sort", "asc"), "sort", ("asc", "desc")) == "desc"
    native = str(replay.status().get("timeframe") or MINUTE)
    timeframe = _choice(given.get("timeframe", ""), "timeframe", dict.fromkeys((native, MINUTE, DAY)))
    is_made = timeframe == DAY != native
    after = _after(given.get("page_token"))
    rows = itertools.islice(
        _rows(replay, symbols, start, end, after, is_made=is_made, is_descending=is_descending), limit + 1
    )
    page = list(rows)
    bars: dict[str, list[dict[str, Any]]] = {}
    for timestamp, bar in page[:limit]:
        bars.setdefault(bar.symbol, []).append(bar_fields(bar, rfc3339(timestamp)))
    token = _token(*page[limit - 1]) if len(page) > limit else None
    if symbol:
        return {"symbol": symbol, "bars": bars.get(symbol, []), "next_page_token": token}
    return {"bars": bars, "next_page_token": token}


def _rows(
    replay: Replay,
    symbols: Sequence[str],
    start: datetime | None,
    end: datetime | None,
    after: tuple[str, datetime] | None,
    *,
    is_made: bool,
    is_descending: bool,
) -> Iterator[Dated]:
    """All bars from ``after`` on, by symbol, as far as they are asked for."""
    spans = [(symbols, start, end)]
    if after is not None:
        step = timedelta(microseconds=1)
        rest = (start, after[1] - step) if is_descending else (after[1] + step, end)
        later = [symbol for symbol in symbols if symbol > after[0]]
        spans = [([symbol for symbol in symbols if symbol == after[0]], *rest), (later, start, end)]
    for names, first, last in spans:
        if not names:
            continue
        rows = _days(replay, names, first, last) if is_made else replay.replayed(names, first, last)
        if is_descending:
            for _, group in itertools.groupby(rows, lambda row: row[1].symbol):
                yield from reversed(list(group))
        else:
            yield from rows


def _days(
    replay: Replay, symbols: Sequence[str], start: datetime | None, end: datetime | None
) -> Iterator[Dated]:
    """Daily bars whose own time lies between ``start`` and ``end``."""
    first = None if start is None else _first_day(start)
    last = (
        None if end is None else day_start(day_start(end) + timedelta(hours=36)) - timedelta(microseconds=1)
    )
    rows = replay.replayed(symbols, first, last)
    for (symbol, begin), day in itertools.groupby(rows, lambda row: (row[1].symbol, day_start(row[0]))):
        running = RunningDays()
        for timestamp, bar in day:
            running.add(timestamp, [bar])
        yield begin, running.bar(symbol)


def _first_day(start: datetime) -> datetime:
    begin = day_start(start)
    return begin if begin == start else day_start(begin + timedelta(hours=36))


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise BadRequest(f"limit: {text!r} is not between 1 and {MOST}")
    return int(text)


def _choice(text: str, name: str, allowed: Iterable[str]) -> str:
    if text not in (choices := list(allowed)):
        raise BadRequest(f"{name}: {text!r} is not served; ask for {' or '.join(choices)}")
    return text


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


def _token(timestamp: datetime, bar: Bar) -> str:
    return base64.urlsafe_b64encode(f"{bar.symbol}|{rfc3339(timestamp)}".encode()).decode()


def _after(token: str | None) -> tuple[str, datetime] | None:
    if token is None:
        return None
    try:
        symbol, _, moment = base64.urlsafe_b64decode(token).decode().partition("|")
        return symbol, datetime.fromisoformat(moment)
    except (binascii.Error, ValueError):
        raise BadRequest(f"page_token: {token!r} is none that was given") from None
