"""Rows of ``market_data`` made from messages of the stream and from pages of the REST interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP
from garch_platform.stream.endpoint import Endpoint

__all__ = [
    "CHANNELS",
    "CONTENT",
    "KEY",
    "MARKET_DATA",
    "REST",
    "BarRow",
    "Proxied",
    "bar_row",
    "instant",
    "microseconds",
    "rows_frame",
    "split_rows",
]

MARKET_DATA: Final = "market_data"
DAY: Final = "1Day"
REST: Final = "rest"
CHANNELS: Final = {"b": "bar", "u": "updated_bar", "d": "daily_bar"}
"""Column ``channel`` by the type of a message; what came over REST is ``rest``."""
KEY: Final = ("symbol", "timeframe", "timestamp", "feed", "data_source")
CONTENT: Final = ("open", "high", "low", "close", "volume", "vwap", "trade_count", "is_proxy")
"""What a row states, besides its key and how and when it came."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


class BarRow(NamedTuple):
    """One bar as received; both times in microseconds since 1970 (UTC), absent values null.

    ``run`` names the run of a recycler that sent it, from its start to its end; null in mode alpaca.
    """

    channel: str
    symbol: str
    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    trade_count: int | None
    vwap: float | None
    received_at: int
    run: str | None = None


class Proxied(NamedTuple):
    """What one run of a recycler said of the bars that it has sent.

    Attributes:
        run: that was asked, after it had sent them.
        spans: per symbol the spans of stamped time, half-open in microseconds, in which the bars of another
            symbol stood in for its own.
    """

    run: str
    spans: Mapping[str, Sequence[tuple[int, int]]]


SCHEMA: Final = {
    "channel": pl.String,
    "symbol": pl.String,
    "timestamp": pl.Int64,
    **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64),
    "trade_count": pl.Int64,
    "vwap": pl.Float64,
    "received_at": pl.Int64,
    "run": pl.String,
}


def microseconds(moment: datetime) -> int:
    """Whole microseconds since 1970 of an aware moment."""
    return (moment - EPOCH) // MICROSECOND


def instant(value: int) -> datetime:
    """The moment (UTC) that is ``value`` microseconds after 1970."""
    return EPOCH + timedelta(microseconds=value)


def bar_row(
    channel: str, symbol: str, values: Mapping[str, Any], received_at: int, run: str | None = None
) -> BarRow:
    """A row from a bar of Alpaca's wire, decoded from MessagePack (Timestamp) or JSON (RFC-3339 text).

    Raises:
        ValueError: a field is absent or holds no number; the message names the symbol.
    """
    try:
        moment = values["t"]
        if isinstance(moment, str):
            timestamp = microseconds(datetime.fromisoformat(moment))
        else:
            timestamp = moment.seconds * 1_000_000 + moment.nanoseconds // 1000
        count, vwap = values.get("n"), values.get("vw")
        return BarRow(
            channel,
            symbol,
            timestamp,
            float(values["o"]),
            float(values["h"]),
            float(values["l"]),
            float(values["c"]),
            float(values["v"]),
            None if count is None else int(count),
            None if vwap is None else float(vwap),
            received_at,
            run,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a bar of {symbol} cannot be read: {error!r}") from error


def rows_frame(rows: Iterable[BarRow], endpoint: Endpoint, proxied: Proxied | None) -> pl.DataFrame:
    """Rows of ``market_data`` in the order of their arrival, those of the run that was asked last.

    A row is a symbol's own only if the run that sent it has said so since: stamps repeat from run to run, and
    what one says does not hold for another.

    Args:
        rows: bars as received.
        endpoint: names their feed, source and timeframe.
        proxied: what a recycler said when it had sent the rows; null if none could be asked.
    """
    frame = pl.DataFrame(list(rows), schema=SCHEMA, orient="row")
    is_daily = pl.col("channel") == CHANNELS["d"]
    is_proxy = pl.lit(endpoint.is_recycler)
    if endpoint.is_recycler and proxied is not None:
        frame = frame.sort(_is_of(proxied.run), maintain_order=True)
        standing_in = [
            (pl.col("symbol") == symbol) & _overlaps(is_daily, start, end)
            for symbol, spans in proxied.spans.items()
            for start, end in spans
        ]
        is_proxy = pl.any_horizontal(~_is_of(proxied.run), *standing_in)
    return frame.select(
        "symbol",
        pl.when(is_daily).then(pl.lit(DAY)).otherwise(pl.lit(endpoint.timeframe.name)).alias("timeframe"),
        pl.col("timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(UTC_TIMESTAMP),
        *("open", "high", "low", "close", "volume", "vwap", "trade_count"),
        pl.lit(endpoint.feed).alias("feed"),
        pl.lit(endpoint.data_source).alias("data_source"),
        is_proxy.alias("is_proxy"),
        "channel",
        pl.col("received_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(UTC_TIMESTAMP),
    )


def _is_of(run: str) -> pl.Expr:
    return pl.col("run").eq_missing(pl.lit(run))


def _overlaps(is_daily: pl.Expr, start: int, end: int) -> pl.Expr:
    """A daily bar is proxied if any of its day is; any other one if its start is inside."""
    day = timedelta(days=1) // MICROSECOND
    length = pl.when(is_daily).then(pl.lit(day)).otherwise(pl.lit(1))
    return (pl.col("timestamp") < end) & (pl.col("timestamp") + length > start)


def split_rows(frame: pl.DataFrame, *, is_replay: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that are inserted where missing, and rows that replace what is there.

    First come bars of the stream and of the REST interface, of which the first of a key holds; then updated
    and daily bars, of which the last does. Of a replay the last of a key holds, whatever it is: it sends an
    updated bar after its bar, and its REST interface has the updated ones. What REST only repeats is left out.
    """
    replacing = pl.col("channel").is_in([CHANNELS["u"], CHANNELS["d"]])
    if is_replay:
        frame = _news(frame).unique(KEY, keep="last", maintain_order=True)
    first = frame.filter(~replacing).unique(KEY, keep="first", maintain_order=True)
    return first, frame.filter(replacing).unique(KEY, keep="last", maintain_order=True)


def _news(frame: pl.DataFrame) -> pl.DataFrame:
    """Without the rows of the REST interface that say what the row before them with their key said."""
    is_rest = pl.col("channel") == REST
    if frame.filter(is_rest).is_empty():
        return frame
    is_said = (pl.col(name).eq_missing(pl.col(name).shift(1).over(KEY)) for name in CONTENT)
    return frame.filter(~(is_rest & pl.all_horizontal(is_said)))
