"""Quality of bars: which candidate rows may be stored, and what is suspicious about the stored ones.

Nothing is repaired here. A faulty row is rejected with the reason and the value that shows it; a
suspicious one (spike, unadjusted split, gap) is reported and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC as UTC_ZONE
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from garch_platform.errors import DataError
from garch_platform.quant.bar_gaps import find_gaps
from garch_platform.quant.bar_hash import content_hash
from garch_platform.quant.bar_outliers import find_outliers

__all__ = [
    "REJECTION_SCHEMA",
    "BarQuality",
    "check_bars",
    "content_hash",
    "find_gaps",
    "find_outliers",
]

KEY: Final = ("symbol", "timeframe", "timestamp", "feed")
UTC: Final = pl.Datetime("us", "UTC")
PRICES: Final = ("open", "high", "low", "close", "vwap")
FLOATS: Final = (*PRICES, "volume", "split_factor", "dividend")
VALUES: Final = (*PRICES, "volume", "trade_count", "adjustment", "split_factor", "dividend")
DTYPES: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "timeframe": pl.String,
    "timestamp": UTC,
    "available_at": UTC,
    "session_date": pl.Date,
    **dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), pl.Float64),
    "trade_count": pl.Int64,
    "feed": pl.String,
    "data_source": pl.String,
    "is_proxy": pl.Boolean,
    "adjustment": pl.String,
    "split_factor": pl.Float64,
    "dividend": pl.Float64,
}

PRICE_TOLERANCE: Final = 1e-9
"""Relative slack of the order high >= open, close >= low: adjusted prices carry rounding."""

NEAR_SESSION: Final = timedelta(hours=8)
"""A bar this close to a session, yet outside it, is an extended-hours bar of that session's day."""

MOMENT: Final = "%Y-%m-%d %H:%M:%S UTC"

REJECTION_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "timeframe": pl.String,
    "timestamp": UTC,
    "feed": pl.String,
    "session_date": pl.Date,
    "reason": pl.String,
    "detail": pl.String,
}


@dataclass(frozen=True)
class BarQuality:
    """Outcome of `check_bars`.

    Attributes:
        accepted: the rows that may be stored, all columns, in key order.
        rejected: one row for each other candidate (`REJECTION_SCHEMA`).
        outliers: `find_outliers` over the accepted rows; these stay accepted.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    outliers: pl.DataFrame

    @property
    def rejected_share(self) -> float:
        """Rejected rows over all candidates; 0 for an empty batch."""
        count = self.accepted.height + self.rejected.height
        return self.rejected.height / count if count else 0.0


def check_bars(
    candidates: pl.DataFrame,
    *,
    max_log_move: float,
    now: datetime | None = None,
    sessions: pl.DataFrame | None = None,
) -> BarQuality:
    """Split candidate bars into those that meet the bar contract and those that do not.

    Every candidate ends in exactly one of the two frames. The first fault found names the reason:
    ``no_symbol``, ``null_timestamp``, ``naive_timestamp``, ``not_a_session``, ``outside_session``,
    ``future``, ``proxy_or_recycled``, ``missing_close``, ``not_finite``, ``non_positive_price``,
    ``ohlc_order``, ``negative_volume``; among the rest, rows that share a key are ``duplicate``
    (the same values) or ``conflicting_duplicate``: the row given last is the one that stays, since
    a source gives its corrections last. Rows out of order are sorted, not rejected.

    Args:
        candidates: rows with the columns of the bar contract, in the order that the source gave.
        max_log_move: size of a move that `find_outliers` reports.
        now: time (aware) of which nothing may be later; None skips this test.
        sessions: ``session_date``, ``open_at``, ``close_at`` (UTC). Where given, a session must be
            one of these and the bar must overlap it, and bars outside any session are told apart
            as extended hours (``outside_session``) or closed days (``not_a_session``).

    Raises:
        DataError: a column is missing or has a type that is none of the contract's, or ``now`` is naive.
    """
    if now is not None and now.tzinfo is None:
        raise DataError(f"now={now.isoformat()} has no time zone; pass an aware datetime")
    naive = _naive_text(candidates)
    frame = _contract(candidates).with_columns(naive, pl.row_index("_order").cast(pl.Int64))
    if sessions is not None:
        frame = _with_sessions(frame, sessions)
    marked = _mark_duplicates(_mark_faults(frame, now=now, sessions=sessions is not None))
    accepted = marked.filter(pl.col("reason").is_null()).sort(KEY).select(list(DTYPES))
    rejected = (
        marked.filter(pl.col("reason").is_not_null()).sort(*KEY, "_order").select(list(REJECTION_SCHEMA))
    )
    return BarQuality(accepted, rejected, find_outliers(accepted, max_log_move=max_log_move))


def _naive_text(candidates: pl.DataFrame) -> pl.Series:
    dtype = candidates.schema.get("timestamp")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        return candidates["timestamp"].dt.to_string("iso").alias("_naive")
    return pl.Series("_naive", [None] * candidates.height, dtype=pl.String)


def _contract(candidates: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in DTYPES if name not in candidates.columns]
    if missing:
        raise DataError(
            f"bars lack the column(s) {', '.join(missing)}; a source gives every column of the bar "
            "contract, null where it has no value"
        )
    columns = []
    for name, dtype in DTYPES.items():
        found = candidates.schema[name]
        if dtype == UTC and isinstance(found, pl.Datetime) and found.time_zone is None:
            columns.append(pl.lit(None, dtype=UTC).alias(name))
        elif dtype == UTC and isinstance(found, pl.Datetime):
            columns.append(pl.col(name).dt.convert_time_zone("UTC").cast(UTC))
        else:
            columns.append(pl.col(name).cast(dtype))
    try:
        return candidates.select(columns)
    except pl.exceptions.PolarsError as error:
        types = ", ".join(f"{name} {candidates.schema[name]}" for name in DTYPES)
        raise DataError(
            f"bars cannot be cast to the bar contract ({error}); the columns given are {types}"
        ) from None


def _with_sessions(frame: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    bounds = sessions.select("session_date", "open_at", "close_at").with_columns(
        pl.col("open_at", "close_at").cast(UTC)
    )
    frame = frame.join(bounds, on="session_date", how="left", maintain_order="left")
    order = bounds.sort("open_at")
    sided = frame.select("_order", "timestamp").drop_nulls().sort("timestamp")
    for strategy, side in (("backward", "_before"), ("forward", "_after")):
        near = order.select(
            pl.col("open_at").alias(f"{side}_open"), pl.col("close_at").alias(f"{side}_close")
        )
        sided = sided.join_asof(
            near,
            left_on="timestamp",
            right_on=f"{side}_open",
            strategy=strategy,  # type: ignore[arg-type]
        )
    near_expr = (
        (pl.col("timestamp") < pl.col("_before_close") + NEAR_SESSION).fill_null(False)
        | (pl.col("_after_open") - pl.col("timestamp") < NEAR_SESSION).fill_null(False)
    ).alias("_near")
    return frame.join(sided.select("_order", near_expr), on="_order", how="left", maintain_order="left")


def _text(column: str) -> pl.Expr:
    return pl.concat_str([pl.lit(f"{column} "), pl.col(column).cast(pl.String)])


def _first_of(columns: Sequence[str], fault: dict[str, pl.Expr]) -> pl.Expr:
    """Text of the first of ``columns`` that is at fault."""
    return pl.coalesce([pl.when(fault[name]).then(_text(name)) for name in columns])


def _session_faults(known_sessions: bool) -> list[tuple[str, pl.Expr, pl.Expr]]:
    when = pl.col("timestamp").dt.strftime("%Y-%m-%d %H:%M UTC")
    nowhere = pl.col("session_date").is_null()
    detail = pl.concat_str([pl.lit("the bar of "), when, pl.lit(" lies in no session")])
    if not known_sessions:
        return [("not_a_session", nowhere, detail)]
    day = pl.col("session_date").cast(pl.String)
    unknown = pl.concat_str([pl.lit("session_date "), day, pl.lit(" is not a session")])
    near = pl.col("_near").fill_null(False) & (pl.col("timeframe") != "1Day")
    overlaps = (pl.col("timestamp") < pl.col("close_at")) & (
        pl.col("available_at").fill_null(pl.col("timestamp")) > pl.col("open_at")
    )
    outside = pl.concat_str(
        [
            pl.lit("the bar of "),
            when,
            pl.lit(" is outside the session "),
            pl.col("open_at").dt.strftime("%Y-%m-%d %H:%M"),
            pl.lit(" to "),
            pl.col("close_at").dt.strftime("%H:%M UTC"),
        ]
    )
    extended = pl.concat_str([pl.lit("the bar of "), when, pl.lit(" is in extended hours")])
    return [
        ("not_a_session", nowhere & ~near, detail),
        ("outside_session", nowhere & near, extended),
        ("not_a_session", ~nowhere & pl.col("open_at").is_null(), unknown),
        ("outside_session", ~nowhere & ~overlaps, outside),
    ]


def _faults(now: datetime | None, known_sessions: bool) -> list[tuple[str, pl.Expr, pl.Expr]]:
    """Reason, test and detail in the order in which they are applied."""
    finite = {name: (pl.col(name).is_nan() | pl.col(name).is_infinite()) for name in FLOATS}
    low = {name: pl.col(name) <= 0 for name in (*PRICES, "split_factor")}
    slack = pl.col("high").abs() * PRICE_TOLERANCE
    high_low = pl.max_horizontal("open", "close", "low") > pl.col("high") + slack
    low_high = (
        pl.min_horizontal("open", "close", "high") < pl.col("low") - pl.col("low").abs() * PRICE_TOLERANCE
    )
    order = pl.concat_str(
        [_text(name).fill_null(f"{name} null") for name in ("open", "high", "low", "close")], separator=", "
    )
    negative = {name: pl.col(name) < 0 for name in ("volume", "trade_count")}
    blank = pl.col("symbol").is_null() | (pl.col("symbol").str.strip_chars() == "")
    naive = pl.col("_naive").is_not_null()
    faults = [
        ("no_symbol", blank, pl.lit("symbol is null or blank")),
        (
            "naive_timestamp",
            naive,
            pl.concat_str([pl.lit("timestamp "), pl.col("_naive"), pl.lit(" has no time zone")]),
        ),
        (
            "null_timestamp",
            pl.col("timestamp").is_null(),
            pl.lit("timestamp is null: absent, unreadable or skipped by a clock change"),
        ),
        *_session_faults(known_sessions),
    ]
    if now is not None:
        ends = pl.col("available_at").dt.strftime(MOMENT)
        late = pl.concat_str(
            [pl.lit("available_at "), ends, pl.lit(f" is after {now.astimezone(UTC_ZONE):{MOMENT}}")]
        )
        faults.append(("future", pl.col("available_at") > pl.lit(now).cast(UTC), late))
    recycled = pl.col("data_source") == "recycled"
    provenance = pl.concat_str(
        [_text("is_proxy").fill_null("is_proxy null"), _text("data_source").fill_null("data_source null")],
        separator=", ",
    )
    return [
        *faults,
        ("proxy_or_recycled", pl.col("is_proxy").fill_null(False) | recycled.fill_null(False), provenance),
        ("missing_close", pl.col("close").is_null(), pl.lit("close is null")),
        ("not_finite", pl.any_horizontal(*finite.values()), _first_of(FLOATS, finite)),
        ("non_positive_price", pl.any_horizontal(*low.values()), _first_of((*PRICES, "split_factor"), low)),
        ("ohlc_order", high_low.fill_null(False) | low_high.fill_null(False), order),
        (
            "negative_volume",
            pl.any_horizontal(*negative.values()),
            _first_of(("volume", "trade_count"), negative),
        ),
    ]


def _mark_faults(frame: pl.DataFrame, *, now: datetime | None, sessions: bool) -> pl.DataFrame:
    reason: pl.Expr = pl.lit(None, dtype=pl.String)
    detail: pl.Expr = pl.lit(None, dtype=pl.String)
    for name, test, text in reversed(_faults(now, sessions)):
        at_fault = test.fill_null(False)
        reason = pl.when(at_fault).then(pl.lit(name)).otherwise(reason)
        detail = pl.when(at_fault).then(text).otherwise(detail)
    return frame.with_columns(reason.alias("reason"), detail.alias("detail"))


def _mark_duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """Give every row but the last of each key its reason; rows already rejected take no part."""
    sound = frame.filter(pl.col("reason").is_null())
    if sound.select(KEY).is_unique().all():
        return frame
    kept = sound.filter(pl.struct(KEY).is_last_distinct())
    others = sound.filter(~pl.struct(KEY).is_last_distinct())
    pairs = others.join(
        kept.select(*KEY, *VALUES),
        on=KEY,
        how="left",
        nulls_equal=True,
        suffix="_kept",
        maintain_order="left",
    )
    differs = {name: pl.col(name).ne_missing(pl.col(f"{name}_kept")) for name in VALUES}
    first = pl.coalesce(
        [
            pl.when(differs[name]).then(
                pl.concat_str(
                    [
                        _text(name).fill_null(f"{name} null"),
                        pl.lit(" against "),
                        pl.col(f"{name}_kept").cast(pl.String).fill_null("null"),
                        pl.lit(" of the row given last, which is kept"),
                    ]
                )
            )
            for name in VALUES
        ]
    )
    conflict = pl.any_horizontal(*differs.values())
    marked = pairs.with_columns(
        pl.when(conflict)
        .then(pl.lit("conflicting_duplicate"))
        .otherwise(pl.lit("duplicate"))
        .alias("reason"),
        pl.when(conflict)
        .then(first)
        .otherwise(pl.lit("the same row was given more than once"))
        .alias("detail"),
    ).select(frame.columns)
    return pl.concat([frame.filter(pl.col("reason").is_not_null()), kept, marked])
