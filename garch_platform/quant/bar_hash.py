"""Content hashes of bars: the same rows give the same text, wherever and whenever they are read."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = ["content_hash"]

Integers = NDArray[np.int64]

TIMES: Final = ("timestamp", "available_at")
FLOATS: Final = ("open", "high", "low", "close", "volume", "vwap", "split_factor", "dividend")
TEXTS: Final = ("symbol", "timeframe", "feed", "data_source", "adjustment")
ORDER: Final = ("symbol", "session_date", "timeframe", "timestamp", "feed")
NULL_TEXT: Final = "\x00"
NULL_INTEGER: Final = np.iinfo(np.int64).min


def content_hash(bars: pl.DataFrame) -> pl.DataFrame:
    """Hash the bars of each symbol and session.

    BLAKE2b (RFC 7693), 128 bits, over every column of the bar contract in turn, its values as
    little-endian 64 bits, rows in key order. The order of the rows given does not matter; -0.0 counts as 0.0 and
    every NaN as the same; null differs from any value. Nothing depends on the process, the time or
    the version of Polars.

    Args:
        bars: rows with the columns of the bar contract.

    Returns:
        ``symbol``, ``session_date`` and ``content_hash`` (32 hexadecimal digits), in that order.
    """
    frame = _in_order(bars)
    if frame.is_empty():
        return frame.select("symbol", "session_date").with_columns(content_hash=pl.lit(None, pl.String))
    starts = _group_starts(frame)
    numbers = _numbers(frame)
    texts = frame.select(
        pl.concat_str([pl.col(name).fill_null(NULL_TEXT) for name in TEXTS], separator="\x1f")
    ).to_series()
    codes, distinct = _encode(texts)
    rows = []
    for begin, end in zip(starts, [*starts[1:], frame.height], strict=True):
        digest = hashlib.blake2b(digest_size=16)
        digest.update(int(end - begin).to_bytes(8, "little"))
        for values in numbers:
            digest.update(values[begin:end].data)
        block = codes[begin:end]
        if (block == block[0]).all():
            digest.update(distinct[block[0]] * len(block))
        else:
            digest.update(b"".join(distinct[code] for code in block))
        rows.append(digest.hexdigest())
    keys = (
        frame.select("symbol", "session_date")[starts] if starts else frame.select("symbol", "session_date")
    )
    return keys.with_columns(pl.Series("content_hash", rows, dtype=pl.String))


def _in_order(bars: pl.DataFrame) -> pl.DataFrame:
    if bars.select(ORDER).is_unique().all():
        return bars.sort(ORDER)
    rest = [name for name in (*FLOATS, *TIMES, *TEXTS, "trade_count", "is_proxy") if name not in ORDER]
    return bars.sort(*ORDER, *rest)


def _group_starts(frame: pl.DataFrame) -> list[int]:
    if frame.is_empty():
        return []
    changed = frame.select(
        pl.any_horizontal(
            pl.col(name).ne_missing(pl.col(name).shift(1)) for name in ("symbol", "session_date")
        )
    ).to_series()
    changed[0] = True
    return changed.arg_true().to_list()


def _numbers(frame: pl.DataFrame) -> list[Integers]:
    """The numeric columns as little-endian int64 patterns; each float column has its null marks after it."""
    columns = [
        frame["session_date"].cast(pl.Int32).cast(pl.Int64).fill_null(NULL_INTEGER).to_numpy(),
        *(frame[name].dt.epoch("us").fill_null(NULL_INTEGER).to_numpy() for name in TIMES),
        frame["trade_count"].cast(pl.Int64).fill_null(NULL_INTEGER).to_numpy(),
        frame["is_proxy"].cast(pl.Int64).fill_null(NULL_INTEGER).to_numpy(),
    ]
    for name in FLOATS:
        null = frame[name].is_null()
        values = frame[name].cast(pl.Float64).fill_null(0.0).to_numpy() + 0.0
        values[np.isnan(values)] = np.nan
        columns.extend((values.view(np.int64), null.cast(pl.Int64).to_numpy()))
    return [np.ascontiguousarray(column, dtype="<i8") for column in columns]


def _encode(texts: pl.Series) -> tuple[Integers, list[bytes]]:
    """Codes of ``texts`` and, for each code, the text as bytes with its length in front."""
    distinct = texts.unique(maintain_order=True)
    index = {text: code for code, text in enumerate(distinct)}
    codes = texts.replace_strict(index, return_dtype=pl.Int64).to_numpy()
    encoded = [text.encode() for text in distinct]
    return codes, [len(text).to_bytes(8, "little") + text for text in encoded]
