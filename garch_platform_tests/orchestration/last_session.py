"""A market of nine symbols that stands before its last session, and what tests do to that session's input.

The last session is Monday 2024-04-01: Good Friday and a weekend lie before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl
from sqlalchemy import event

from garch_platform.bars import BAR_KEY
from garch_platform.orchestration.launch import Launcher, RunOutcome
from garch_platform.store.database import Database
from garch_platform.store.schema import METADATA, unique_key
from garch_platform_tests.orchestration import small_market
from garch_platform_tests.orchestration.small_market import CALENDAR, RESULT_TABLES

EVE: Final = date(2024, 3, 28)
LAST: Final = date(2024, 4, 1)
NOW: Final = datetime(2024, 4, 2, 12, tzinfo=UTC)
SESSIONS: Final = CALENDAR.sessions(CALENDAR.window_start(LAST, 320), LAST)

SYMBOLS: Final = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH", "III"]
SECTORS: Final = {symbol: "technology" if symbol < "EEE" else "healthcare" for symbol in SYMBOLS}
SETTINGS: Final = small_market.settings_with(
    trading_days={"start": EVE, "end": LAST},
    formation={"sessions": 260, "out_of_sample_sessions": 40},
    garch={"sessions": 260, "distributions": ["normal"], "min_observations": 150},
    universe={"sectors": {"active": ["all"], "available": ["technology", "healthcare"]}},
    quality={"max_rejected_share": 0.7},
    pairs={
        "profile": "classic",
        "classic": {"min_price_correlation": 0.3, "max_pvalue": 0.2, "min_score": 0.0},
        "floor_draws": 1,
    },
)

Rows = dict[str, pl.DataFrame]
Garch = Callable[..., str]
Once = Callable[[str, Callable[[Path], object]], Path]


def create(folder: Path) -> Path:
    """A workspace whose files hold all sessions; history and the eve have run, the last session has not."""
    bars = small_market.daily_bars(SESSIONS, SYMBOLS)
    small_market.create(folder, bars, settings=SETTINGS, symbols=SECTORS)
    opened = launcher(folder)
    planner = opened.planner
    small_market.run(opened, [*planner.history(), *planner.daily(EVE, EVE), *planner.ranking(EVE, EVE)])
    close(opened)
    return folder


def launcher(folder: Path) -> Launcher:
    """A prepared launcher of the workspace in ``folder``, on the morning after the last session."""
    return small_market.launcher(folder, now=NOW)


def memory_launcher(folder: Path) -> Launcher:
    """The same, without a trace in DAGSTER_HOME: twice as fast."""
    return small_market.memory_launcher(folder, now=NOW)


def close(opened: Launcher) -> None:
    """Close the connections of a launcher."""
    opened.instance.dispose()
    opened.workspace.database.dispose()


def folder_of(opened: Launcher) -> Path:
    """The workspace's folder."""
    return opened.workspace.settings.workspace


def run_day(opened: Launcher, day: date = LAST, *, rank: bool = True) -> list[RunOutcome]:
    """`garch materialize --date`: the daily run of all symbols and then the rankings, whatever happens."""
    ranking = opened.planner.ranking(day, day) if rank else []
    return list(opened.run([*opened.planner.daily(day, day), *ranking]))


def evaluations(opened: Launcher, run_id: str, check: str) -> list[dg.AssetCheckEvaluation]:
    """What a run said of a check: of single keys, then of the whole."""
    events = opened.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [entry.dagster_event.asset_check_evaluation_data for entry in events if entry.dagster_event]
    return [one for one in found if one.check_name == check]


def contents(opened: Launcher) -> Rows:
    """What the stores state, without lake versions, so that two workspaces can be compared."""
    return small_market.contents(opened.workspace, versions=False)


def save(rows: Rows, folder: Path) -> None:
    """Keep ``rows`` in files that `saved` reads back."""
    folder.mkdir(parents=True)
    for table, frame in rows.items():
        frame.write_ipc(folder / f"{table}.arrow")


def saved(folder: Path) -> Rows:
    """The rows that `save` kept."""
    return {path.stem: pl.read_ipc(path) for path in sorted(folder.iterdir())}


def of_symbols(rows: Rows, symbols: Iterable[str]) -> Rows:
    """The rows that concern ``symbols`` alone; of rankings those with both legs, without what other pairs decide."""
    names = list(symbols)
    chosen = {
        table: frame.filter(pl.col("symbol").is_in(names))
        for table, frame in rows.items()
        if table not in ("pair_rankings", "rejections", "scan_ledger")
    }
    pairs = rows["pair_rankings"].filter(pl.col("symbol_1").is_in(names), pl.col("symbol_2").is_in(names))
    of_the_family = pl.selectors.ends_with("rank") | pl.selectors.starts_with("honest_")
    return chosen | {"pair_rankings": pairs.drop(of_the_family, "confirmation_qvalue", "input_hash")}


def of_daily_job(rows: Rows) -> Rows:
    """The tables that the daily job writes."""
    return {table: frame for table, frame in rows.items() if table not in ("pair_rankings", "scan_ledger")}


def assert_nothing_doubled(rows: Rows) -> None:
    """Every table's key is unique."""
    keys = {table: unique_key(METADATA.tables[table]) for table in RESULT_TABLES}
    keys |= {"bars": BAR_KEY, "features": ("symbol", "timeframe", "timestamp")}
    doubled = {table: int(rows[table].select(key).is_duplicated().sum()) for table, key in keys.items()}
    assert doubled == dict.fromkeys(keys, 0)


def change_bar(folder: Path, symbol: str, day: date, **values: float) -> None:
    """Put other values into one bar of the source file."""
    rows = small_market.read_inbox(folder, symbol)
    hit = pl.col("date") == day
    small_market.write_inbox(
        folder,
        rows.with_columns(
            pl.when(hit).then(value).otherwise(name).alias(name) for name, value in values.items()
        ),
    )


def add_bars(folder: Path, symbol: str, bars: pl.DataFrame, *, first: bool = False) -> None:
    """Append (or prepend) rows to the source file."""
    rows = small_market.read_inbox(folder, symbol)
    small_market.write_inbox(folder, pl.concat([bars, rows] if first else [rows, bars]))


def bar_of(folder: Path, symbol: str, day: date, **values: object) -> pl.DataFrame:
    """One bar of the source file, with other values where given."""
    row = small_market.read_inbox(folder, symbol).filter(pl.col("date") == day)
    return row.with_columns(**{name: pl.lit(value) for name, value in values.items()})


def limit_pages(database: Database, pages: int) -> None:
    """Let a SQLite file have no more than ``pages`` pages, as on a volume without space."""

    @event.listens_for(database.engine, "connect")
    def limit(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    database.dispose()
