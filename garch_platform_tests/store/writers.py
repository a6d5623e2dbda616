"""What the store tests run in processes of their own; top-level functions, because they are spawned.

`killed_at` ends the process with SIGKILL, as the kernel does when memory runs out.
"""

from __future__ import annotations

import os
import signal
from datetime import date
from multiprocessing.synchronize import Barrier
from typing import Any

import polars as pl
from sqlalchemy import event

from garch_platform.store import lake as lake_module
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform_tests.store.rows import bars, verdicts


def replace_bars(url: str, symbols: list[str], day: date, rounds: int, barrier: Barrier) -> None:
    """Replace the bars of ``symbols`` on ``day``, ``rounds`` times; the last round's price is ``rounds``."""
    lake = Lake(url)
    barrier.wait()
    for price in range(1, rounds + 1):
        frame = bars(symbols, [day], price=float(price))
        lake.replace("bars", frame, timeframe="1Min", symbols=symbols, start=day, end=day)


def replace_bars_unlocked(url: str, symbols: list[str], day: date, rounds: int, barrier: Barrier) -> None:
    """As `replace_bars`, without the file lock, as on an object store."""
    Lake.is_local = property(lambda _: False)  # type: ignore[assignment]
    replace_bars(url, symbols, day, rounds, barrier)


def replace_verdicts(url: str, symbols: list[str], days: list[date], rounds: int, barrier: Barrier) -> None:
    """Replace the verdicts of ``symbols``, ``rounds`` times; the last round's seed is ``rounds``."""
    database = Database(url)
    barrier.wait()
    for seed in range(1, rounds + 1):
        frame = verdicts(symbols, days, seed=seed)
        database.replace("variance_stability_tracking", frame, where={"symbol": symbols, "test_date": days})


def migrate(url: str, barrier: Barrier) -> None:
    """Migrate a database that others migrate too."""
    barrier.wait()
    Database(url).migrate()


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


def replace_bars_until_killed(url: str, symbols: list[str], day: date, barrier: Barrier) -> None:
    """Replace a session's bars by prices 1, 2, 3 … for ever."""
    lake = Lake(url)
    barrier.wait()
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
