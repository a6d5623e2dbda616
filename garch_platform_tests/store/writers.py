"""What the store tests run in processes of their own; top-level functions, because they are spawned.

The first ones run in `garch_platform_tests.store.conftest.Together`, four at once: each waits at `start`
for the others. The last ones are killed with SIGKILL, as the kernel does when memory runs out.
"""

from __future__ import annotations

import os
import signal
from datetime import date
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import event

from garch_platform.store import lake as lake_module
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.store.registry import SymbolRegistry
from garch_platform_tests.store.rows import bars, verdicts

_barriers: list[Barrier] = []


def meet(barrier: Barrier) -> None:
    """Keep the barrier of the pool that this process belongs to."""
    _barriers.append(barrier)


def start() -> None:
    """Wait until all processes of the pool are here."""
    _barriers[0].wait(60)


class UnlockedLake(Lake):
    """A lake without file locks, as on an object store: writers meet at the commit."""

    is_local = False  # type: ignore[assignment]


def replace_bars(url: str, symbols: list[str], day: date, rounds: int) -> None:
    """Replace the bars of ``symbols`` on ``day``, ``rounds`` times; the last round's price is ``rounds``."""
    _replace_bars(Lake(url), symbols, day, rounds)


def replace_bars_unlocked(url: str, symbols: list[str], day: date, rounds: int) -> None:
    """As `replace_bars`, without the file lock."""
    Path(url).mkdir(exist_ok=True)
    _replace_bars(UnlockedLake(url), symbols, day, rounds)


def _replace_bars(lake: Lake, symbols: list[str], day: date, rounds: int) -> None:
    start()
    for price in range(1, rounds + 1):
        frame = bars(symbols, [day], price=float(price))
        lake.replace("bars", frame, timeframe="1Min", symbols=symbols, start=day, end=day)


def replace_verdicts(url: str, symbols: list[str], days: list[date], rounds: int) -> None:
    """Replace the verdicts of ``symbols``, ``rounds`` times; the last round's seed is ``rounds``."""
    database = Database(url)
    start()
    for seed in range(1, rounds + 1):
        frame = verdicts(symbols, days, seed=seed)
        database.replace("variance_stability_tracking", frame, where={"symbol": symbols, "test_date": days})
    database.dispose()


def migrate(url: str) -> None:
    """Migrate a database that others migrate too."""
    database = Database(url)
    start()
    database.migrate()
    database.dispose()


def die_before_commit_of_bars(url: str, symbols: list[str], day: date) -> None:
    """Write the new files of a replacement, then be killed before the log names them."""
    write = lake_module.write_deltalake

    def killed_at(table: Any, frame: pl.DataFrame, **_: Any) -> None:
        folder = f"{table.table_uri.removeprefix('file://').rstrip('/')}/timeframe=1Min/period={day}"
        frame.drop("timeframe", "period").write_parquet(f"{folder}/part-00000-orphan.parquet")
        os.kill(os.getpid(), signal.SIGKILL)

    lake = Lake(url)
    assert write is not killed_at
    lake_module.write_deltalake = killed_at  # type: ignore[assignment]
    frame = bars(symbols, [day], price=2.0)
    lake.replace("bars", frame, timeframe="1Min", symbols=symbols, start=day, end=day)


def replace_bars_until_killed(url: str, symbols: list[str], day: date) -> None:
    """Replace a session's bars by prices 1, 2, 3 … for ever."""
    lake = Lake(url)
    price = 0.0
    while True:
        price += 1
        frame = bars(symbols, [day], per_session=390, price=price)
        lake.replace("bars", frame, timeframe="1Min", symbols=symbols, start=day, end=day)


def die_between_delete_and_insert(url: str, symbols: list[str], days: list[date]) -> None:
    """Replace verdicts and be killed when the old rows are deleted and the new ones not yet there."""
    database = Database(url)

    def killed_at(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO variance_stability_tracking"):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(database.engine, "before_cursor_execute", killed_at)
    frame = verdicts(symbols, days, seed=2)
    database.replace("variance_stability_tracking", frame, where={"symbol": symbols, "test_date": days})


def add_symbols(path: Path, symbols: list[str]) -> None:
    """Add symbols to a registry one by one."""
    registry = SymbolRegistry(path)
    start()
    for symbol in symbols:
        registry.add(symbol)
