"""How long the bars of a file are, where nobody has said so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from garch_platform.bars import TIMEFRAMES, Timeframe
from garch_platform.errors import ConfigurationError, SourceError
from garch_platform.sources.bar_file import bar_paths, open_bar_file, reading

__all__ = ["detect_timeframe"]

LOOKED_AT: Final = 200_000
"""Rows from which the length is taken."""


def detect_timeframe(
    path: Path, *, columns: Mapping[str, str], timezone: str, exchange_timezone: str
) -> Timeframe:
    """The timeframe of the bars at ``path``: the most frequent step between bars of one symbol.

    Args:
        path: a file or folder of bars; of a folder the first file is looked at.
        columns: field of the bar contract to the file's column.
        timezone: zone of times without one.
        exchange_timezone: zone in which days are counted.

    Raises:
        SourceError: the file cannot be read.
        ConfigurationError: the step is none of the known lengths.
    """
    first = bar_paths(path)[0]
    minute, daily = TIMEFRAMES["1Min"], TIMEFRAMES["1Day"]

    read = partial(
        open_bar_file,
        first,
        columns=columns,
        timezone=timezone,
        exchange_timezone=exchange_timezone,
        label="start",
    )
    try:
        file = read(timeframe=minute)
        when = file.times.stamp()
    except SourceError:
        file = read(timeframe=daily)
        when = file.times.day()
    with reading(first):
        rows = file.scan().select(symbol=file.symbol(), at=when).head(LOOKED_AT).collect()
    steps = rows.drop_nulls().sort("symbol", "at").select(step=pl.col("at").diff().over("symbol"))
    positive = steps.filter(pl.col("step") > timedelta(0))["step"]
    if positive.is_empty():
        raise ConfigurationError(f"{path} has no two bars of one symbol, so their length is not known")
    step = positive.mode().sort()[0]
    known = [timeframe for timeframe in TIMEFRAMES.values() if timeframe.duration == step]
    if not known:
        raise ConfigurationError(
            f"most bars of {path} are {step} apart, which is none of {', '.join(TIMEFRAMES)}; "
            "bring bars of one of those lengths"
        )
    return known[0]
