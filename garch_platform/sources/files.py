"""Bars in Parquet and CSV files."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from garch_platform.bars import Timeframe
from garch_platform.errors import CalendarError, ConfigurationError, SourceError
from garch_platform.sessions import TradingCalendar
from garch_platform.sources.bar_file import BarFile, bar_paths, open_bar_file, reading, require_layout
from garch_platform.sources.columns import validate_mapping
from garch_platform.sources.directory import describe_symbols
from garch_platform.sources.session_rows import assign_daily_sessions, assign_intraday_sessions
from garch_platform.sources.source import SYMBOLS_SCHEMA, candidate_rows, empty_bars

__all__ = ["FilesSource"]


class FilesSource:
    """Bars from one Parquet or CSV file (``.csv.gz`` too), or from a folder of them.

    A folder is read with its subfolders, except those whose names begin with a dot or an underscore;
    all its files have one layout. Where no column gives the symbol, the file's name does
    (``AAPL.csv``). A row whose time cannot be read has a null timestamp and is given with the day of
    the readable row before it in the file. Rows without a symbol belong to nobody and are left out.

    Args:
        path: a file or folder.
        calendar: sessions of the exchange.
        timeframe: length of the bars wanted in the end.
        columns: field of the bar contract to the file's column; common names are recognised without.
        timezone: zone of times without one.
        label: whether bars are labelled at their ``start`` or ``end``.
        adjustment: ``raw``, ``split`` or ``all``.
        feed: the rows' feed.
        regular_hours: drop the bars of a trading day that lie outside its session.
        resample: timeframe of the bars in the files where it is shorter than ``timeframe``. `fetch`
            gives the bars as they are in the files (`bar_timeframe`): they are checked first and
            resampled afterwards, so that a faulty bar cannot hide in a longer one.

    Raises:
        ConfigurationError: an argument is none of those allowed.
    """

    name = "file"

    def __init__(
        self,
        path: str | Path,
        *,
        calendar: TradingCalendar,
        timeframe: Timeframe,
        columns: Mapping[str, str] | None = None,
        timezone: str = "UTC",
        label: Literal["start", "end"] = "start",
        adjustment: Literal["raw", "split", "all"] = "raw",
        feed: str = "file",
        regular_hours: bool = True,
        resample: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.calendar = calendar
        self.timeframe = timeframe
        self.bar_timeframe = Timeframe.parse(resample) if resample else timeframe
        self.columns = dict(columns or {})
        self.timezone = timezone
        self.label = label
        self.adjustment = adjustment
        self.feed = feed
        self.regular_hours = regular_hours
        self._known: dict[tuple[Path, int, int], BarFile] = {}
        self._validate()

    def _validate(self) -> None:
        validate_mapping(self.columns)
        if self.label not in ("start", "end"):
            raise ConfigurationError(f"files.label {self.label!r} is not known; use start or end")
        if self.adjustment not in ("raw", "split", "all"):
            raise ConfigurationError(
                f"files.adjustment {self.adjustment!r} is not known; use raw, split or all"
            )
        if self.bar_timeframe.duration > self.timeframe.duration:
            raise ConfigurationError(
                f"files.resample {self.bar_timeframe} is longer than the timeframe {self.timeframe}; "
                "bars can only be resampled to longer ones"
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ConfigurationError(
                f"files.timezone {self.timezone!r} is not known; use an IANA name such as America/New_York"
            ) from None

    def symbols(self) -> pl.DataFrame:
        """The symbols of the files with name, sector, asset class, first and last sessions.

        Raises:
            SourceError: a file cannot be read; the message names it, the column and the remedy.
        """
        spans = []
        for file in self._files():
            with reading(file.path):
                spans.append(
                    file.scan()
                    .select(file.symbol().alias("symbol"), file.times.day().alias("day"))
                    .group_by("symbol")
                    .agg(pl.col("day").min().alias("first"), pl.col("day").max().alias("last"))
                    .collect()
                )
        merged = (
            pl.concat(spans)
            .filter(pl.col("symbol").is_not_null() & (pl.col("symbol") != ""))
            .group_by("symbol")
            .agg(pl.col("first").min(), pl.col("last").max())
            .sort("symbol")
        )
        days = self.calendar.schedule["session_date"].to_list()
        merged = merged.with_columns(
            pl.Series("first_session", [_session_from(days, day) for day in merged["first"]], dtype=pl.Date),
            pl.Series("last_session", [_session_until(days, day) for day in merged["last"]], dtype=pl.Date),
        )
        return describe_symbols(merged).select(list(SYMBOLS_SCHEMA))

    def fetch(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Rows of ``symbols`` for the days ``start`` to ``end``, both included, as found.

        Raises:
            CalendarError: the range is reversed.
            SourceError: a file cannot be read; the message names it, the column and the remedy.
        """
        if start > end:
            raise CalendarError(f"the range {start} to {end} is reversed; give the earlier date first")
        wanted = list(dict.fromkeys(symbols))
        frames = [
            self._read(file, wanted, start, end)
            for file in self._files()
            if file.own_symbol is None or file.own_symbol in wanted
        ]
        if not frames:
            return empty_bars()
        frame = pl.concat(frames, how="diagonal")
        if self.bar_timeframe.is_daily:
            placed = assign_daily_sessions(frame, self.calendar)
        else:
            placed = assign_intraday_sessions(
                frame, self.calendar, self.bar_timeframe, regular_hours=self.regular_hours
            )
        day = pl.coalesce("session_date", "day", "hint")
        given = placed.filter(day.is_between(start, end))
        provenance = {} if "data_source" in given.columns else {"data_source": self.name}
        proxy = {} if "is_proxy" in given.columns else {"is_proxy": False}
        return candidate_rows(
            given,
            timeframe=self.bar_timeframe.name,
            feed=self.feed,
            adjustment=self.adjustment,
            **provenance,
            **proxy,
        )

    def _read(self, file: BarFile, symbols: list[str], start: date, end: date) -> pl.DataFrame:
        """The wanted rows of one file with a day to spare on each side: fields, ``day``, ``hint``."""
        with reading(file.path):
            rows = file.scan()
            if file.own_symbol is None:
                rows = rows.filter(file.symbol().is_in(symbols))
            hint = file.times.day()
            if rows.select(hint.is_null().any()).collect().item():
                hint = hint.forward_fill().backward_fill().fill_null(pl.lit(start))
            else:
                rows = file.within(rows, start, end)
            fields = [
                file.values(field).alias(field)
                for field in file.columns
                if field not in ("symbol", "timestamp")
            ]
            times = [file.times.day().alias("day"), hint.alias("hint")]
            if not self.bar_timeframe.is_daily:
                times.append(file.times.stamp().alias("timestamp"))
            margin = timedelta(days=1)
            return (
                rows.select(file.symbol().alias("symbol"), *times, *fields)
                .filter(pl.col("hint").is_between(start - margin, end + margin))
                .collect()
            )

    def unreadable(self) -> dict[str, str]:
        """Files that cannot be read or lack a column: name and what is wrong."""
        return {path.name: message for path, message in self._opened()[1].items()}

    def _files(self) -> list[BarFile]:
        """Every readable file with its resolved columns.

        Raises:
            SourceError: there is no file, or none can be read.
        """
        files, faults = self._opened()
        if not files:
            raise SourceError("; ".join(faults.values()))
        return files

    def _opened(self) -> tuple[list[BarFile], dict[Path, str]]:
        """The readable files, and what is wrong with the others; a file that did not change is not opened again."""
        known: dict[tuple[Path, int, int], BarFile] = {}
        faults: dict[Path, str] = {}
        for path in bar_paths(self.path):
            stat = path.stat()
            key = (path, stat.st_mtime_ns, stat.st_size)
            try:
                file = self._known.get(key) or open_bar_file(
                    path,
                    columns=self.columns,
                    timeframe=self.bar_timeframe,
                    timezone=self.timezone,
                    exchange_timezone=str(self.calendar.timezone),
                    label=self.label,
                )
                require_layout(file, next(iter(known.values()), file))
            except SourceError as error:
                faults[path] = str(error)
            else:
                known[key] = file
        self._known = known
        return list(known.values()), faults


def _session_from(days: list[date], day: date | None) -> date | None:
    place = len(days) if day is None else bisect_left(days, day)
    return days[place] if place < len(days) else None


def _session_until(days: list[date], day: date | None) -> date | None:
    place = 0 if day is None else bisect_right(days, day)
    return days[place - 1] if place else None
