"""Files of bars for the tests of the sources."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from garch_platform.bars import Timeframe
from garch_platform.sessions import trading_calendar
from garch_platform.sources import FilesSource

__all__ = ["CALENDAR", "DAY", "OPEN", "minute_rows", "shared_data", "source"]

CALENDAR = trading_calendar()
DAY = date(2024, 3, 28)
OPEN = datetime(2024, 3, 28, 13, 30, tzinfo=UTC)


def source(path: Path, timeframe: str = "1Min", **arguments: Any) -> FilesSource:
    """A files source of the New York calendar."""
    return FilesSource(path, calendar=CALENDAR, timeframe=Timeframe.parse(timeframe), **arguments)


def minute_rows(count: int = 3, *, start: datetime = OPEN, symbol: str = "AAPL") -> pl.DataFrame:
    """``count`` sound bars, a minute apart."""
    return pl.DataFrame(
        {
            "symbol": [symbol] * count,
            "timestamp": [start + timedelta(minutes=m) for m in range(count)],
            "open": [100.0 + m for m in range(count)],
            "high": [101.0 + m for m in range(count)],
            "low": [99.0 + m for m in range(count)],
            "close": [100.5 + m for m in range(count)],
            "volume": [1000 + m for m in range(count)],
        }
    )


def shared_data(name: str) -> Path:
    """A file of the folder of real market data; the test skips where it is absent."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("GARCH_SHARED_DATA") or beside) / name
    if not path.is_file():
        pytest.skip(f"real market data {name} is absent; name its folder in GARCH_SHARED_DATA")
    return path
