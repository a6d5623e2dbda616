"""A workspace: one settings tree with its lake, database, symbol registry and source of bars.

The one place where adapters are wired together. Assets, sensors and the CLI receive a `Workspace`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl
from sqlalchemy import select

from garch_platform.bars import BAR_SCHEMA
from garch_platform.errors import CalendarError, ConfigurationError, GarchPlatformError
from garch_platform.quant.bar_quality import BarQuality, check_bars
from garch_platform.quant.resampling import bucket_start, resample_closes
from garch_platform.sessions import FIRST_DAY, TradingCalendar
from garch_platform.settings import ALL_SYMBOLS, Settings
from garch_platform.sources import (
    AlpacaSource,
    BarSource,
    FilesSource,
    SampleSource,
    SimulatedSource,
    load_symbol_directory,
)
from garch_platform.sources.corporate_actions import apply_actions
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.store.registry import SymbolRegistry
from garch_platform.store.schema import METADATA
from garch_platform.store.symbols import SymbolChanges, sync_symbols
from garch_platform.workspace.promotion import in_sessions, live_timeframe, promoted_rows
from garch_platform.workspace.vendors import alpaca_source, yahoo_source

__all__ = ["Workspace"]


class Workspace:
    """Everything that one state folder holds.

    Args:
        settings: the workspace's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def calendar(self) -> TradingCalendar:
        """Sessions of the workspace's exchange."""
        return self.settings.calendar

    @cached_property
    def lake(self) -> Lake:
        """Bars and features."""
        return Lake(self.settings.lake_url, reproducibility_days=self.settings.storage.reproducibility_days)

    @cached_property
    def database(self) -> Database:
        """Verdicts, entities and events."""
        return Database(self.settings.database_url)

    @cached_property
    def registry(self) -> SymbolRegistry:
        """The symbols that the workspace follows."""
        return SymbolRegistry(self.settings.registry_path)

    @cached_property
    def source(self) -> BarSource:
        """The configured source of bars."""
        settings = self.settings
        match settings.universe.source:
            case "sample":
                return SampleSource(self.calendar)
            case "simulated":
                market = settings.simulated
                return SimulatedSource(
                    self.calendar,
                    n_symbols=market.symbols,
                    sessions=market.sessions,
                    last_session=market.last_session,
                    pairs=market.pairs,
                    seed=market.seed,
                    timeframe=settings.timeframe,
                )
            case "files":
                return self.files_source(settings.files_path)
            case "alpaca":
                return alpaca_source(settings)
            case "yahoo":
                return yahoo_source(settings)

    def files_source(self, path: Path) -> FilesSource:
        """A source that reads ``path`` as the ``files`` settings say."""
        files = self.settings.files
        return FilesSource(
            path,
            calendar=self.calendar,
            timeframe=self.settings.timeframe,
            columns=files.columns,
            timezone=files.timezone,
            label=files.label,
            adjustment=files.adjustment,
            feed=files.feed,
            resample=files.resample,
        )

    def prepare(self) -> None:
        """Create the folder and bring the database to the newest revision."""
        self.settings.workspace.mkdir(parents=True, exist_ok=True)
        self.database.migrate()

    def sync_symbols(self, now: datetime | None = None) -> SymbolChanges:
        """Bring the ``symbols`` table in line with the registry; return those added and retired."""
        return sync_symbols(
            self.registry,
            self.database,
            now=now or datetime.now(UTC),
            history_end=self.settings.trading_days.start,
        )

    def require_start(self) -> None:
        """Refuse to work where ``trading_days.start`` was moved past bars that are owned by nobody.

        Symbols without stored bars simply follow the setting.

        Raises:
            ConfigurationError: a symbol's bulk past ends before the daily window begins.
        """
        start = self.settings.trading_days.start
        moved = self.symbols().filter(pl.col("history_end") != start)
        if moved.is_empty():
            return
        loaded = set(self.lake.coverage("bars", self.settings.timeframe.name)["symbol"])
        self._set_start([name for name in moved["symbol"] if name not in loaded])
        behind = moved.filter(pl.col("symbol").is_in(list(loaded)), pl.col("history_end") < start)
        if not behind.is_empty():
            name, end = behind.select("symbol", "history_end").row(0)
            raise ConfigurationError(
                f"trading_days.start is {start}, but the bulk past of {len(behind)} symbols (such as {name}) ends "
                f"before {end}: the sessions between belong to neither; run `garch advance-start`, or set it back"
            )

    def advance_start(self) -> list[str]:
        """Let every bulk past end where ``trading_days.start`` says; return the symbols that moved."""
        moved = self.symbols().filter(pl.col("history_end") != self.settings.trading_days.start)
        self._set_start(moved["symbol"].to_list())
        return moved["symbol"].to_list()

    def _set_start(self, symbols: Sequence[str]) -> None:
        rows = self.symbols().filter(pl.col("symbol").is_in(symbols))
        if not rows.is_empty():
            start = pl.lit(self.settings.trading_days.start)
            self.database.upsert("symbols", rows.with_columns(history_end=start))

    def describe(self, symbols: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """What the directory of US symbols knows of ``symbols``: name, sector, asset class."""
        known = load_symbol_directory().filter(pl.col("symbol").is_in(symbols))
        return {row.pop("symbol"): row for row in known.iter_rows(named=True)}

    def symbols(self) -> pl.DataFrame:
        """The rows of the ``symbols`` table, ordered by symbol."""
        return self.database.read_table("symbols").sort("symbol")

    def retired(self) -> dict[str, date]:
        """Symbols that have stopped trading, each with the first day without it."""
        rows = self.symbols().drop_nulls("retired_at").select("symbol", pl.col("retired_at").dt.date())
        return dict(rows.iter_rows())

    def sector_symbols(self, sector: str, day: date) -> list[str]:
        """Tradable symbols of ``sector`` (or of all) that are not retired by ``day``."""
        rows = self.symbols().filter(
            pl.col("asset_class").ne_missing("index"),
            pl.col("retired_at").is_null() | (pl.col("retired_at").dt.date() > day),
        )
        if sector != ALL_SYMBOLS:
            rows = rows.filter(pl.col("sector") == sector)
        return rows["symbol"].to_list()

    def history_groups(self, symbols: Sequence[str]) -> list[tuple[list[str], date]]:
        """``symbols`` grouped by the last day of their bulk past."""
        ends = self.symbols().filter(pl.col("symbol").is_in(symbols))
        unknown = sorted(set(symbols) - set(ends["symbol"]))
        if unknown:
            raise GarchPlatformError(
                f"symbols {unknown} have no row in the symbols table; run `garch symbols add` or `garch symbols sync`"
            )
        groups = ends.group_by("history_end", maintain_order=True).agg("symbol")
        return [(names, end - timedelta(days=1)) for end, names in groups.iter_rows()]

    def fetch(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Candidate bars of the sessions ``start`` to ``end``: the source's and promoted live ones.

        Live minutes become bars of the workspace's length with `at_timeframe`. Where the source has such a bar,
        it wins; of two live feeds the last by name (sip before iex). Recycled and proxied bars and those of the
        test feed are never promoted.

        Raises:
            CalendarError: the session ``end`` has not closed yet, so that its bars cannot be complete.
        """
        closed = self.calendar.last_closed(datetime.now(UTC))
        if end > closed:
            raise CalendarError(f"the session {end} has not closed yet; the last closed session is {closed}")
        bars = self.source.fetch(symbols, start, end)
        if self._has_alpacas_hours():
            return bars
        step = self.settings.timeframe
        taken = bars.join(self.calendar.schedule, on="session_date").select(
            "symbol", bar_start=bucket_start(step.minutes)
        )
        live = self._live_bars(symbols, start, end).join(taken, on=["symbol", "bar_start"], how="anti")
        return pl.concat([live.select(bars.columns), bars])

    def _has_alpacas_hours(self) -> bool:
        """Alpaca's hours begin on the hour; those made of minutes begin at the open and would overlap them."""
        return self.settings.universe.source == "alpaca" and self.settings.timeframe.minutes == 60

    def _live_bars(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Live bars that research may use, and ``bar_start``: of the workspace's bar that they belong to."""
        wanted = self.settings.timeframe
        step = live_timeframe(wanted)
        live = METADATA.tables["market_data"].c
        margin = timedelta(days=1)
        rows = self.database.read(
            select(*live).where(
                *promoted_rows(wanted),
                live.symbol.in_(symbols),
                live.timestamp >= datetime.combine(start, time(), UTC) - margin,
                live.timestamp < datetime.combine(end, time(), UTC) + 2 * margin,
            )
        )
        bars = in_sessions(rows, self.calendar, step).filter(pl.col("session_date").is_between(start, end))
        if step.is_daily:
            bars = bars.with_columns(timestamp=pl.col("open_at"))
        actions = self.database.read_table("corporate_actions", symbol=list(symbols)).filter(
            pl.col("ex_date").is_between(start, end)
        )
        best_feed = pl.col("feed").max().over("symbol", "bar_start")
        return (
            apply_actions(bars, actions)
            .with_columns(
                bar_start=bucket_start(wanted.minutes),
                available_at=pl.min_horizontal(pl.col("timestamp") + step.duration, "close_at"),
                adjustment=pl.lit("raw"),
            )
            .filter(pl.col("feed") == best_feed)
            .select(*(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items()), "bar_start")
            .sort("symbol", "timestamp")
        )

    def check(self, candidates: pl.DataFrame, *, now: datetime | None = None) -> BarQuality:
        """Hold ``candidates`` against the bar contract and the calendar; nothing may be later than ``now``."""
        return check_bars(
            candidates,
            max_log_move=self.settings.quality.max_log_move,
            now=now,
            sessions=self.calendar.schedule,
        )

    def at_timeframe(self, bars: pl.DataFrame) -> pl.DataFrame:
        """``bars`` (checked) at the workspace's timeframe: resampled if the source's are shorter."""
        step = self.settings.timeframe
        shorter = pl.col("timeframe") != step.name
        parts = [
            bars.filter(~shorter),
            resample_closes(bars.filter(shorter), minutes=step.minutes, session_open=self.calendar.schedule),
        ]
        return pl.concat([part.select(list(BAR_SCHEMA)) for part in parts]).sort("symbol", "timestamp")

    def history(self, symbols: Sequence[str]) -> pl.DataFrame:
        """Candidate bars of every session before each symbol's ``history_end``.

        Alpaca's raw bars are asked for from the last stored session on, after those that are stored.
        """
        groups = self.history_groups(symbols)
        source = self.source
        if isinstance(source, AlpacaSource) and source.adjustment == "raw":
            return pl.concat([self._resumed(source, group, last_day) for group, last_day in groups])
        return pl.concat([source.fetch(group, FIRST_DAY, last_day) for group, last_day in groups])

    def _resumed(self, source: AlpacaSource, symbols: Sequence[str], last_day: date) -> pl.DataFrame:
        """What is stored of ``symbols``, and what ``source`` has from the last stored session on.

        A symbol of which the beginning is missing is fetched as a whole.
        """
        step, wanted = self.settings.timeframe.name, last_day - timedelta(days=source.history_days)
        coverage = self.lake.coverage("bars", step)
        whole = coverage.filter(pl.col("first_session") <= self.calendar.next(wanted))
        starts = dict(whole.select("symbol", "last_session").iter_rows())
        groups: dict[date, list[str]] = {}
        for symbol in symbols:
            groups.setdefault(min(starts.get(symbol, FIRST_DAY), last_day), []).append(symbol)
        frames = []
        for start, names in groups.items():
            stored = self.lake.scan(
                "bars", timeframe=step, symbols=names, end=start - timedelta(days=1), columns=list(BAR_SCHEMA)
            )
            frames += [stored.collect(), source.fetch(names, start, last_day)]
        return pl.concat(frames)
