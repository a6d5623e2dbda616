"""Estimation windows, read from the lake by session range.

A window that ends with session d holds rows of sessions up to and including d and nothing later.
The lake version and a hash of what was read travel with it, so that an estimate can be traced and
found stale when its input has been revised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from garch_platform.quant.resampling import bucket_start
from garch_platform.quant.returns import log_returns
from garch_platform.workspace import Workspace

__all__ = ["Window", "feature_lookback", "previous_features", "read_panel", "read_window"]


@dataclass(frozen=True)
class Window:
    """Log closes of some symbols over consecutive sessions, at the formation timeframe.

    Attributes:
        log_closes: wide panel: ``timestamp``, ``session_date``, one column a symbol (null = no bar).
        start: first session of the window.
        end: last session of the window.
        version: lake version that was read (null if nothing is stored yet).
    """

    log_closes: pl.DataFrame
    symbols: tuple[str, ...]
    start: date
    end: date
    intraday: bool
    version: int | None

    @cached_property
    def silent(self) -> tuple[str, ...]:
        """Symbols without a bar in the window's last session: nothing can be said about them as of it."""
        last = self.log_closes.filter(pl.col("session_date") == self.end)
        return tuple(name for name in self.symbols if last[name].null_count() == len(last))

    @cached_property
    def returns(self) -> np.ndarray:
        """Log returns, shape (T, N), NaN where absent and for `silent` symbols; within sessions if intraday."""
        silent = [pl.lit(None, pl.Float64).alias(name) for name in self.silent]
        closes = self.log_closes.with_columns(silent).select(self.symbols).fill_null(np.nan).to_numpy()
        days = self.log_closes["session_date"].to_physical().to_numpy()
        return log_returns(closes, session_index=days if self.intraday else None)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """A digest of each symbol's timestamps and log closes in the window."""
        clock = self.log_closes["timestamp"].dt.timestamp("us").to_numpy()
        digests = {}
        for symbol in self.symbols:
            values = self.log_closes[symbol].fill_null(np.nan).to_numpy()
            present = np.isfinite(values)
            digest = hashlib.blake2b(digest_size=16)
            digest.update(np.ascontiguousarray(clock[present]).tobytes())
            digest.update(np.ascontiguousarray(values[present]).tobytes())
            digests[symbol] = digest.hexdigest()
        return digests

    @property
    def panel_hash(self) -> str:
        """A digest of the whole panel."""
        joined = "".join(f"{symbol}{self.hashes[symbol]}" for symbol in sorted(self.symbols))
        return hashlib.blake2b(joined.encode(), digest_size=16).hexdigest()

    def first_bar(self, session: date) -> datetime:
        """Timestamp of the first bar at or after ``session`` (midnight UTC after the window if there is none)."""
        stamps = self.log_closes.filter(pl.col("session_date") >= session)["timestamp"]
        after = datetime.combine(self.end + timedelta(days=1), time(), UTC)
        return stamps[0] if len(stamps) else after

    def within(self, symbols: Sequence[str], start: date, end: date) -> Window:
        """The part of the window that `read_window` would read for fewer symbols and sessions."""
        rows = self.log_closes.filter(pl.col("session_date").is_between(start, end))
        panel = rows.select("timestamp", "session_date", *sorted(symbols))
        present = panel.filter(pl.any_horizontal(pl.col(sorted(symbols)).is_not_null()))
        return Window(present, tuple(sorted(symbols)), start, end, self.intraday, self.version)


def read_window(workspace: Workspace, symbols: Sequence[str], end: date, *, sessions: int) -> Window:
    """Read the ``sessions`` sessions that end with ``end`` from the features of ``symbols``.

    Where the formation timeframe is longer than the stored bars', a bucket holds the last log close
    inside it; buckets are counted from the session's open.
    """
    start = workspace.calendar.window_start(end, sessions)
    return read_panel(workspace, symbols, start, end)


def read_panel(workspace: Workspace, symbols: Sequence[str], start: date, end: date) -> Window:
    """Read the sessions ``start`` to ``end`` from the features of ``symbols``, as `read_window` does."""
    settings = workspace.settings
    version = workspace.lake.version("features")
    rows = workspace.lake.scan(
        "features",
        timeframe=settings.timeframe.name,
        symbols=list(symbols),
        start=start,
        end=end,
        columns=["symbol", "timestamp", "session_date", "log_close"],
        version=version,
    ).drop_nulls("log_close")
    step = settings.formation_timeframe
    if step != settings.timeframe:
        opens = workspace.calendar.schedule.lazy().select("session_date", "open_at")
        rows = (
            rows.join(opens, on="session_date")
            .sort("timestamp")
            .with_columns(timestamp=bucket_start(step.minutes))
        )
    closes = rows.sort("symbol", "timestamp", maintain_order=True).collect()
    closes = closes.group_by("symbol", "session_date", "timestamp", maintain_order=True).agg(
        pl.col("log_close").last()
    )
    wide = closes.pivot(on="symbol", index=["timestamp", "session_date"], values="log_close").sort(
        "timestamp"
    )
    absent = [pl.lit(None, pl.Float64).alias(name) for name in symbols if name not in wide.columns]
    panel = wide.with_columns(absent).select("timestamp", "session_date", *sorted(symbols))
    return Window(panel, tuple(sorted(symbols)), start, end, not step.is_daily, version)


def previous_features(
    workspace: Workspace, symbols: Sequence[str], start: date, *, rows: int
) -> pl.DataFrame:
    """The last ``rows`` feature rows of each symbol before session ``start``."""
    timeframe = workspace.settings.timeframe
    lookback = feature_lookback(workspace, start, rows=rows)
    before = start - timedelta(days=1)

    def tail(names: Sequence[str], since: date | None) -> pl.DataFrame:
        scan = workspace.lake.scan(
            "features", timeframe=timeframe.name, symbols=list(names), start=since, end=before
        )
        stored = scan.collect().sort("symbol", "timestamp")
        return stored if stored.is_empty() else stored.group_by("symbol", maintain_order=True).tail(rows)

    recent = tail(symbols, lookback)
    counts = dict(recent.group_by("symbol").len().iter_rows()) if not recent.is_empty() else {}
    short = [name for name in symbols if counts.get(name, 0) < rows]
    if not short:
        return recent
    older = tail(short, None)
    if recent.is_empty():
        return older
    return (
        pl.concat([recent.filter(~pl.col("symbol").is_in(short)), older]) if not older.is_empty() else recent
    )


def feature_lookback(workspace: Workspace, start: date, *, rows: int) -> date:
    """The session from which ``rows`` rows before session ``start`` are first looked for."""
    per_session = round(workspace.calendar.bars_per_year(workspace.settings.timeframe) / 252)
    return workspace.calendar.window_start(start, 10 + 3 * (1 + rows // per_session))
