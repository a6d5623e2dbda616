"""A small market in Parquet files, and workspaces around it: six symbols, 420 daily sessions, five of them daily.

2024-03-29 is Good Friday, so the window 2024-03-22 .. 2024-03-28 has a weekend inside and a holiday after.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final

import dagster as dg
import polars as pl
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg

from garch_platform.orchestration.jobs import DAILY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher, RunOutcome
from garch_platform.orchestration.planner import KeyRange
from garch_platform.orchestration.refresh import refresh_plan
from garch_platform.quant.timeseries.generator import MarketSpec, simulate_market
from garch_platform.sessions import trading_calendar
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace

CALENDAR: Final = trading_calendar("XNYS")
LAST: Final = date(2024, 3, 28)
SESSIONS: Final = CALENDAR.sessions(CALENDAR.window_start(LAST, 420), LAST)
DAYS: Final = SESSIONS[-5:]
NOW: Final = datetime(2024, 3, 29, 12, tzinfo=UTC)

SECTORS: Final = {
    "AAA": "technology",
    "BBB": "technology",
    "CCC": "technology",
    "DDD": "technology",
    "EEE": "healthcare",
    "FFF": "healthcare",
}
SYMBOLS: Final = list(SECTORS)

SETTINGS: Final[dict[str, Any]] = {
    "universe": {
        "timeframe": "1Day",
        "source": "files",
        "sectors": {"active": ["technology", "all"], "available": ["technology", "healthcare", "financial"]},
    },
    "trading_days": {"start": DAYS[0], "end": DAYS[-1]},
    "formation": {"sessions": 360, "out_of_sample_sessions": 50},
    "pairs": {"floor_draws": 2},
    "garch": {"sessions": 300},
}

RESULT_TABLES: Final = ("variance_stability_tracking", "garch_models", "pair_rankings", "scan_ledger")


def daily_bars(sessions: list[date] = SESSIONS, symbols: list[str] = SYMBOLS, seed: int = 6) -> pl.DataFrame:
    """Daily bars whose first two symbols are a planted pair: symbol, date, open, high, low, close, volume."""
    spec = MarketSpec(
        n_symbols=len(symbols),
        n_pairs=1,
        bars_per_session=(1,) * len(sessions),
        half_lives=(4.0,),
        breaking_pairs=0,
        bar_volatility=0.012,
        garch_alpha=0.2,
        garch_beta=0.7,
        overnight_volatility=0.0,
        spread_volatility=0.006,
        missing_share=0.0,
    )
    market = simulate_market(spec, seed=seed)
    prices = {name: getattr(market, name).ravel() for name in ("open", "high", "low", "close", "volume")}
    days = [day for day in sessions for _ in symbols]
    return pl.DataFrame({"symbol": symbols * len(sessions), "date": days, **prices})


def intraday_bars(
    sessions: list[date], symbols: list[str], *, minutes: int = 15, seed: int = 11, pairs: int = 1
) -> pl.DataFrame:
    """Bars of ``minutes`` minutes with planted pairs: symbol, timestamp (UTC), open .. volume."""
    stamps = [
        pl.datetime_range(*CALENDAR.bounds(day), f"{minutes}m", closed="left", eager=True) for day in sessions
    ]
    spec = MarketSpec(
        n_symbols=len(symbols),
        n_pairs=pairs,
        bars_per_session=[len(one) for one in stamps],
        half_lives=(10.0, 20.0),
        breaking_pairs=0,
        bar_volatility=0.002,
        spread_volatility=0.002,
        missing_share=0.0,
    )
    market = simulate_market(spec, seed=seed)
    prices = {name: getattr(market, name).ravel() for name in ("open", "high", "low", "close", "volume")}
    timestamps = [stamp for one in stamps for stamp in one for _ in symbols]
    return pl.DataFrame({"symbol": symbols * sum(map(len, stamps)), "timestamp": timestamps, **prices})


def write_inbox(folder: Path, bars: pl.DataFrame) -> None:
    """One Parquet file a symbol in ``folder/inbox``; the files of other symbols stay."""
    inbox = folder / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    for (symbol,), rows in bars.group_by("symbol", maintain_order=True):
        rows.write_parquet(inbox / f"{symbol}.parquet")


def read_inbox(folder: Path, symbol: str) -> pl.DataFrame:
    """What the file of ``symbol`` holds."""
    return pl.read_parquet(folder / "inbox" / f"{symbol}.parquet")


def revise(folder: Path, symbol: str, day: date, factor: float) -> None:
    """Multiply the prices of one bar in the source file."""
    prices = ["open", "high", "low", "close"]
    changed = pl.when(pl.col("date") == day).then(pl.col(prices) * factor).otherwise(pl.col(prices))
    write_inbox(folder, read_inbox(folder, symbol).with_columns(changed))


def drop_bar(folder: Path, symbol: str, day: date) -> pl.DataFrame:
    """Take one bar out of the source file; return it."""
    rows = read_inbox(folder, symbol)
    write_inbox(folder, rows.filter(pl.col("date") != day))
    return rows.filter(pl.col("date") == day)


def settings_with(**changes: Any) -> dict[str, Any]:
    """The small market's settings with some sections changed: ``settings_with(garch={"sessions": 90})``."""
    values = copy.deepcopy(SETTINGS)
    for section, change in changes.items():
        values[section] = values.get(section, {}) | change
    return values


def create(
    folder: Path,
    bars: pl.DataFrame,
    *,
    settings: dict[str, Any] | None = None,
    symbols: dict[str, str] = SECTORS,
) -> Path:
    """A workspace's folder with settings, registry and source files; nothing has run yet."""
    write_inbox(folder, bars)
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings or SETTINGS), "utf-8")
    rows = {"symbol": list(symbols), "sector": list(symbols.values())}
    Workspace(load_settings(folder)).registry.write_new(pl.DataFrame(rows))
    return folder


class MemoryLauncher(Launcher):
    """A launcher whose runs and events are kept in memory: 2.5 times as fast as files."""

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """An instance without files."""
        return dg.DagsterInstance.ephemeral()


@contextmanager
def blank_pictures() -> Iterator[None]:
    """Runs draw their plots but do not turn them into pixels, which is a third of a small run's time."""

    def blank(_canvas: FigureCanvasAgg, out: BinaryIO, **_: object) -> None:
        out.write(b"\x89PNG\r\n\x1a\n")

    drawn, FigureCanvasAgg.print_png = FigureCanvasAgg.print_png, blank  # type: ignore[method-assign]
    try:
        yield
    finally:
        FigureCanvasAgg.print_png = drawn  # type: ignore[method-assign]


def memory_launcher(folder: Path, now: datetime = NOW, **overrides: Any) -> Launcher:
    """A prepared launcher of the workspace in ``folder`` that forgets its runs."""
    opened = MemoryLauncher(Workspace(load_settings(folder, **overrides)), now=now)
    opened.prepare()
    return opened


def launcher(folder: Path, now: datetime = NOW, **overrides: Any) -> Launcher:
    """A prepared launcher of the workspace in ``folder``."""
    opened = Launcher(Workspace(load_settings(folder, **overrides)), now=now)
    opened.prepare()
    return opened


def run(opened: Launcher, planned: list[KeyRange]) -> list[RunOutcome]:
    """Run, and require success of each."""
    outcomes = list(opened.run(planned))
    assert [one.message for one in outcomes if not one.success] == []
    return outcomes


def range_run(job: str, names: list[str], days: list[date] = DAYS) -> KeyRange:
    """One run over several days, as a backfill of the UI makes it."""
    return KeyRange(job, f"{days[0]}|{names[0]}", f"{days[-1]}|{names[-1]}", tuple(names))


def fill(opened: Launcher) -> None:
    """The bulk past, then all days in one run, then all rankings in one: the rows of `refresh` in 3 runs."""
    sectors = opened.workspace.settings.universe.sectors.active
    run(opened, opened.planner.history())
    run(opened, [range_run(DAILY_JOB, opened.planner.symbol_keys()), range_run(RANKING_JOB, sectors)])


def fill_day(opened: Launcher, day: date) -> None:
    """The bulk past, then one session and its rankings."""
    planner = opened.planner
    run(opened, [*planner.history(), *planner.daily(day, day), *planner.ranking(day, day)])


def refresh(opened: Launcher, **arguments: Any) -> list[KeyRange]:
    """`garch refresh`: run what is missing and return it."""
    planned = refresh_plan(opened, **arguments).runs
    run(opened, planned)
    return planned


def copy_workspace(template: Path, folder: Path) -> Path:
    """A copy of a workspace, source files included (with their times)."""
    shutil.copytree(template, folder)
    return folder


def lake_rows(workspace: Workspace, table: str) -> pl.DataFrame:
    """All rows of a lake table in the order of their key."""
    return workspace.lake.scan(table).collect().sort("symbol", "timestamp", "timeframe")


def contents(workspace: Workspace, *, versions: bool = True) -> dict[str, pl.DataFrame]:
    """All that the stores state; without the lake versions that were read if two builds are compared."""
    frames = {table: lake_rows(workspace, table) for table in ("bars", "features")}
    for table in (*RESULT_TABLES, "rejections"):
        rows = workspace.database.content(table)
        frames[table] = rows if versions else rows.drop("lake_version", strict=False)
    return frames


def assert_same(left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame]) -> None:
    """Both hold the same tables with the same rows, to the bit; else name the table and a differing row."""
    assert left.keys() == right.keys()
    for table, rows in left.items():
        other = right[table]
        if not rows.equals(other):
            only = rows.join(other, on=rows.columns, how="anti", nulls_equal=True)
            raise AssertionError(
                f"{table}: {len(rows)} and {len(other)} rows; {len(only)} of the first are not in the second, "
                f"such as {only.head(1).to_dicts()}"
            )
