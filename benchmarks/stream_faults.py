"""What the stream client makes of each of the recycler's faults: one session of 20 symbols, replayed with it.

A row is right if it equals the lake's bar in every field. Run: python benchmarks/stream_faults.py
"""

from __future__ import annotations

import logging
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from garch_platform.settings import load_settings
from garch_platform.sources import SimulatedSource
from garch_platform.workspace import Workspace
from garch_platform.workspace.live import record_replay

DAY = date(2024, 3, 28)
SYMBOLS = 20
FIELDS = ["symbol", "timestamp", "open", "high", "low", "close", "volume", "vwap", "trade_count"]
FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "drop 10 %": {"drop": 0.1},
    "delay 10 % by 0.2 s": {"delay": 0.1, "delay_seconds": 0.2},
    "duplicate 10 %": {"duplicate": 0.1},
    "out of order 10 %": {"out_of_order": 0.1},
    "revise 30 %": {"revise": 0.3},
    "malformed 5 %": {"malformed": 0.05},
    "disconnect after 1,000": {"disconnect_after": 1000},
    "mute after 2,000": {"mute_after": 2000},
    "slow ack 0.5 s": {"slow_ack_seconds": 0.5},
    "drop, duplicate, reorder, disconnect": {
        "drop": 0.1,
        "duplicate": 0.1,
        "out_of_order": 0.1,
        "disconnect_after": 1500,
    },
    "the same, revise 30 %": {
        "drop": 0.1,
        "duplicate": 0.1,
        "out_of_order": 0.1,
        "disconnect_after": 1500,
        "revise": 0.3,
    },
}


def workspace_with(folder: Path, bars: pl.DataFrame, faults: dict[str, Any]) -> Workspace:
    """A workspace whose lake holds ``bars`` and whose recycler has ``faults``."""
    folder.mkdir()
    values = {
        "universe": {"timeframe": "1Min"},
        "trading_days": {"start": DAY},
        "websocket": {"mute_seconds": 1.0, "recycler": {"default_proxy": None, "faults": faults}},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(values), "utf-8")
    workspace = Workspace(load_settings(folder))
    workspace.prepare()
    names = bars["symbol"].unique().sort().to_list()
    workspace.registry.write_new(pl.DataFrame({"symbol": names}))
    workspace.sync_symbols()
    workspace.lake.replace("bars", bars, timeframe="1Min", symbols=names, start=DAY, end=DAY)
    return workspace


def main() -> None:
    """Print one line a fault."""
    logging.disable(logging.CRITICAL)
    settings = load_settings()
    source = SimulatedSource(
        settings.calendar, n_symbols=SYMBOLS, sessions=1, last_session=DAY, pairs=2, seed=4
    )
    bars = source.fetch(source.symbols()["symbol"].to_list(), DAY, DAY)
    wanted = bars.select(FIELDS).sort("symbol", "timestamp")
    print(f"{len(bars):,} bars of {SYMBOLS} symbols, speed max, historical clock, SQLite")
    print(f"{'fault':38}{'received':>9}{'filled':>8}{'doubled':>9}{'reconn.':>9}{'rows':>8}{'right':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, faults) in enumerate(FAULTS.items()):
            workspace = workspace_with(Path(folder) / str(number), bars, faults)
            row = record_replay(
                workspace,
                name,
                start=DAY,
                end=DAY,
                symbols=[],
                speed="max",
                clock="historical",
                attach=False,
            ).row
            rows = workspace.database.read_table("market_data", timeframe=["1Min"]).select(FIELDS)
            right = len(rows.join(wanted, on=FIELDS, how="semi", nulls_equal=True))
            print(
                f"{name:38}{row['bars_received']:>9,}{row['bars_filled']:>8,}{row['duplicates']:>9,}"
                f"{row['reconnects']:>9}{len(rows):>8,}{right:>8,}  {row['status']}"
            )
            workspace.database.dispose()


if __name__ == "__main__":
    main()
