"""All pairs of a bar file: read, checked, laid side by side, tested, confirmed, held against chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import polars as pl

from garch_platform.bars import Timeframe
from garch_platform.errors import InsufficientData, SymbolError
from garch_platform.quant.adjustment import with_split_adjustment
from garch_platform.quant.bar_quality import check_bars
from garch_platform.quant.pairs.floor import selection_floor
from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.power import with_detectable_half_life
from garch_platform.quant.pairs.scan import scan_pairs
from garch_platform.quant.pairs.selection import Selection, select_pairs
from garch_platform.quant.resampling import close_panel, resample_closes
from garch_platform.reporting.selection import SelectionView
from garch_platform.scanning.rules import selection_rules
from garch_platform.scanning.tile_store import TileStore
from garch_platform.settings import Settings
from garch_platform.sources.bar_length import detect_timeframe
from garch_platform.sources.files import FilesSource

__all__ = ["FLOOR_SEED", "FileScan", "ScanRequest", "scan_file"]

Progress = Callable[[str, int, int], None]
"""Called with the name of the stage, steps done and steps to do."""

FLOOR_SEED: Final = 20_240_101
"""Of the markets without cointegration; the same bars give the same floor."""
FEWEST_BARS: Final = 60
"""Bars of the formation and confirmation windows together below which nothing is scanned."""


@dataclass(frozen=True)
class ScanRequest:
    """What to scan.

    Attributes:
        path: a Parquet or CSV file of bars, or a folder of them.
        settings: calendar, how to read files, gates, draws of the floor.
        timeframe: length of the bars to scan; longer ones than the file's are made of them. None = the file's.
        sessions: sessions that form and confirm pairs, the last ones before the third window; None = all.
        performance_sessions: sessions of the third window, which no gate sees.
        start, end: first and last day to read; None = all.
        symbols: those to scan; None = all.
        workers: threads.
        tiles: folder that keeps finished tiles, so that an interrupted scan goes on; None = none are kept.
    """

    path: Path
    settings: Settings
    timeframe: Timeframe | None = None
    sessions: int | None = None
    performance_sessions: int = 0
    start: date | None = None
    end: date | None = None
    symbols: Sequence[str] | None = None
    workers: int = 1
    tiles: Path | None = None


@dataclass(frozen=True)
class FileScan:
    """Result of `scan_file`.

    Attributes:
        request: what was asked.
        timeframe: length of the scanned bars.
        panel: log closes and windows.
        closes: the same as a frame: ``timestamp`` and one column a symbol.
        selection: verdicts of all pairs.
        ledger: stages, floor and detectable half-life, one row a profile.
        rejected: bars that were left out, with their reasons.
    """

    request: ScanRequest
    timeframe: Timeframe
    panel: PairPanel
    closes: pl.DataFrame
    selection: Selection
    ledger: pl.DataFrame
    rejected: pl.DataFrame

    @property
    def view(self) -> SelectionView:
        """Best pairs, gates and stages."""
        return SelectionView(
            self.selection.table, self.ledger, self.selection.rules, str(self.timeframe), stability_gate=None
        )


def scan_file(request: ScanRequest, *, progress: Progress | None = None) -> FileScan:
    """Read the bars of a request and select pairs among them.

    Raises:
        SourceError, ConfigurationError: the file cannot be read; the message names the remedy.
        SymbolError: a symbol is not in the file.
        InsufficientData: fewer than two symbols, or too few bars.
    """
    report = progress or (lambda stage, done, total: None)
    report("reading", 0, 1)
    bars, timeframe, rejected = _bars(request)
    report("reading", 1, 1)
    closes, sessions, first_performance = _panel(request, bars)
    settings, intraday = request.settings, not timeframe.is_daily
    rules = selection_rules(settings, timeframe)
    panel = PairPanel.read(
        closes,
        formation_share=settings.pairs.formation_share,
        performance_start=first_performance,
        session_ids=sessions if intraday else None,
    )
    if len(panel.symbols) < 2 or panel.confirmation_end < FEWEST_BARS:
        raise InsufficientData(
            f"{request.path} gives {len(panel.symbols)} symbols and {panel.confirmation_end} bars of "
            f"{timeframe} before the third window; a scan needs 2 symbols and {FEWEST_BARS} bars: "
            "give more sessions, or shorter bars"
        )
    silent = _silent(closes, sessions)
    selection = select_pairs(
        panel,
        rules=rules,
        bars_per_year=settings.calendar.bars_per_year(timeframe),
        silent=silent,
        min_observations=settings.garch.min_observations,
        workers=request.workers,
        progress=lambda done, total: report("testing pairs", done, total),
        scanner=scan_pairs if request.tiles is None else TileStore(request.tiles),
    )
    floor = selection_floor(
        panel,
        rules=rules,
        silent=silent,
        draws=settings.pairs.floor_draws,
        seed=FLOOR_SEED,
        min_observations=settings.garch.min_observations,
        workers=request.workers,
        progress=lambda done, total: report("markets without cointegration", done, total),
    )
    ledger = selection.ledger.join(floor.summary, on="profile", maintain_order="left")
    ledger = with_detectable_half_life(ledger, panel, rules=rules)
    return FileScan(request, timeframe, panel, closes, selection, ledger, rejected)


def _bars(request: ScanRequest) -> tuple[pl.DataFrame, Timeframe, pl.DataFrame]:
    """Accepted bars at the scan's timeframe, that timeframe, and the rejected ones."""
    files, calendar = request.settings.files, request.settings.calendar
    found = detect_timeframe(
        request.path,
        columns=files.columns,
        timezone=files.timezone,
        exchange_timezone=str(calendar.timezone),
    )
    timeframe = request.timeframe or found
    source = FilesSource(
        request.path,
        calendar=calendar,
        timeframe=timeframe,
        columns=files.columns,
        timezone=files.timezone,
        label=files.label,
        adjustment=files.adjustment,
        resample=found.name,
    )
    known = source.symbols()
    unknown = sorted(set(request.symbols or ()) - set(known["symbol"]))
    if unknown:
        raise SymbolError(
            f"{request.path} has no bars of {', '.join(unknown)}; it has {len(known)} symbols, "
            f"such as {', '.join(known['symbol'].head(5))}"
        )
    chosen = sorted(request.symbols or known["symbol"])
    spans = known.filter(pl.col("symbol").is_in(chosen))
    first, last = request.start or spans["first_session"].min(), request.end or spans["last_session"].max()
    if not isinstance(first, date) or not isinstance(last, date):
        raise InsufficientData(f"{request.path} has no bar on a session of {calendar.name}")
    quality = check_bars(
        source.fetch(chosen, first, last),
        max_log_move=request.settings.quality.max_log_move,
        sessions=calendar.schedule,
    )
    bars = quality.accepted
    if timeframe != found:
        bars = resample_closes(bars, minutes=timeframe.minutes, session_open=calendar.schedule)
    return bars, timeframe, quality.rejected


def _panel(request: ScanRequest, bars: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series, int]:
    """Wide log closes of the wanted sessions, the session of each row, first row of the third window."""
    days = bars["session_date"].unique().sort()
    wanted = days.tail(request.sessions + request.performance_sessions) if request.sessions else days
    inside = bars.filter(pl.col("session_date") >= wanted[0]) if len(wanted) else bars
    inside = with_split_adjustment(inside).with_columns(close=pl.col("close") * pl.col("split_adjustment"))
    closes = close_panel(inside, inside["symbol"].unique().sort().to_list())
    dates = inside.select("timestamp", "session_date").unique("timestamp")
    sessions = closes.join(dates, on="timestamp", how="left", maintain_order="left")["session_date"]
    if not request.performance_sessions:
        return closes, sessions, len(closes)
    last = wanted.tail(request.performance_sessions)
    return closes, sessions, int((sessions < last[0]).sum()) if len(last) else len(closes)


def _silent(closes: pl.DataFrame, sessions: pl.Series) -> dict[str, str]:
    """Symbols without a bar in the last session."""
    end = closes.filter(sessions == sessions[-1]).drop("timestamp")
    return {name: "no bar in the last session" for name in end.columns if end[name].null_count() == len(end)}
