"""Times as files write them: dates, naive and aware times, epochs, text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP, Timeframe
from garch_platform.errors import SourceError

__all__ = ["TimeReader"]

Kind = Literal["date", "aware", "naive", "epoch", "text"]

DATE_FORMATS: Final = ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%Y/%m/%d", "%d-%b-%Y")
TIME_FORMATS: Final = tuple(
    f"{day} {clock}"
    for day in ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%Y/%m/%d")
    for clock in ("%H:%M:%S%.f", "%H:%M")
)
OFFSET_FORMATS: Final = ("%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M%:z", "%Y-%m-%d %H:%M:%S%.f%z")
EPOCH_LIMITS: Final = (
    (100_000_000_000, 1_000_000),
    (100_000_000_000_000, 1_000),
    (100_000_000_000_000_000, 1),
)
"""Epochs below the limit are seconds, milliseconds, microseconds; the factor makes microseconds."""


@dataclass(frozen=True)
class TimeReader:
    """Reads the time column of one file.

    A naive time is one of ``timezone``: one that occurs twice when clocks go back is the earlier, one
    that clocks skip becomes null. Dates in text are year first, or month/day/year.

    Attributes:
        file: name for messages.
        column: the time column.
        dtype: its type.
        timeframe: length of the bars.
        timezone: zone of naive times.
        exchange_timezone: zone in which days are counted.
        label: whether a time names the bar's start or its end.
    """

    file: str
    column: str
    dtype: pl.DataType
    timeframe: Timeframe
    timezone: str
    exchange_timezone: str
    label: Literal["start", "end"]

    @property
    def kind(self) -> Kind:
        """How the column writes times.

        Raises:
            SourceError: the type holds no times, or dates only where bars are shorter than a day.
        """
        if self.dtype == pl.Date and self.timeframe.is_daily:
            return "date"
        if isinstance(self.dtype, pl.Datetime):
            return "naive" if self.dtype.time_zone is None else "aware"
        if self.dtype.is_integer():
            return "epoch"
        if self.dtype == pl.String:
            return "text"
        problem = f"is {self.dtype}"
        if self.dtype == pl.Date:
            problem = f"holds dates without times, but bars are {self.timeframe}"
        raise SourceError(
            f"{self.file}: column {self.column!r} {problem}; declare a column of times in files.columns "
            "(timestamp: NAME), or the right timeframe"
        )

    def stamp(self) -> pl.Expr:
        """Start of an intraday bar, UTC; null where it cannot be read."""
        instants = (self._aware(), self._localised())
        start = pl.coalesce(one.dt.convert_time_zone("UTC").cast(UTC_TIMESTAMP) for one in instants)
        return start - self.timeframe.duration if self.label == "end" else start

    def day(self) -> pl.Expr:
        """The day of a bar, null where it cannot be read.

        For daily bars: the date itself, or that of a midnight in the column's own zone, or else the
        exchange's date of the instant (just before it, where labels are ends). For shorter bars: the
        exchange's date of the start, or for a time that clocks skip the date as written.
        """
        if self.kind == "date":
            return pl.col(self.column)
        if not self.timeframe.is_daily:
            local = self.stamp().dt.convert_time_zone(self.exchange_timezone).dt.date()
            return pl.coalesce(local, self._naive().dt.date())
        days = []
        for when, localised in ((self._aware(), self._aware()), (self._naive(), self._localised())):
            instant, written = localised, when
            if self.label == "end":
                instant, written = localised - timedelta(microseconds=1), when - timedelta(microseconds=1)
            midnight = when.dt.time() == pl.time(0, 0)
            local = instant.dt.convert_time_zone(self.exchange_timezone).dt.date()
            days.append(pl.when(midnight).then(written.dt.date()).otherwise(local))
        return pl.coalesce(*days, self._dates()) if self.kind == "text" else pl.coalesce(*days)

    def _text(self) -> pl.Expr:
        text = pl.col(self.column).str.strip_chars()
        return text.str.replace(r"^(\S+)T(\d)", "${1} ${2}").str.replace(r"Z$", "+00:00")

    def _dates(self) -> pl.Expr:
        return pl.coalesce([self._text().str.to_date(form, strict=False) for form in DATE_FORMATS])

    def _aware(self) -> pl.Expr:
        """Instants of the values that carry their zone, in that zone or UTC."""
        raw = pl.col(self.column)
        if self.kind == "aware":
            return raw.dt.cast_time_unit("us")
        if self.kind == "epoch":
            return _epoch(raw)
        if self.kind == "text":
            digits = self._text().str.extract(r"^(\d{10,19})$").cast(pl.Int64, strict=False)
            parsed = [
                self._text().str.to_datetime(form, time_zone="UTC", time_unit="us", strict=False)
                for form in OFFSET_FORMATS
            ]
            return pl.coalesce([*parsed, _epoch(digits)])
        return pl.lit(None, dtype=UTC_TIMESTAMP)

    def _naive(self) -> pl.Expr:
        """Values without a zone, as written."""
        if self.kind == "naive":
            return pl.col(self.column).dt.cast_time_unit("us")
        if self.kind == "text":
            text = self._text()
            return pl.coalesce(
                [text.str.to_datetime(form, time_unit="us", strict=False) for form in TIME_FORMATS]
            )
        return pl.lit(None, dtype=pl.Datetime("us"))

    def _localised(self) -> pl.Expr:
        return (
            self._naive()
            .dt.replace_time_zone(self.timezone, ambiguous="earliest", non_existent="null")
            .dt.convert_time_zone("UTC")
        )


def _epoch(value: pl.Expr) -> pl.Expr:
    size = value.abs()
    microseconds = value // 1_000
    for limit, factor in reversed(EPOCH_LIMITS):
        microseconds = pl.when(size < limit).then(value * factor).otherwise(microseconds)
    return microseconds.cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
