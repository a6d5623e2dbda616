"""What the server asks of a replay, whoever plays it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import date, datetime
from typing import Any, Final, Literal, Protocol

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP
from garch_platform.recycler.tick import Tick

__all__ = ["REPLAYED", "Replay"]

REPLAYED: Final = pl.DataFrame(
    schema={
        "stamp": UTC_TIMESTAMP,
        "symbol": pl.String,
        **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64),
        "trade_count": pl.Int64,
        "vwap": pl.Float64,
    }
)
"""The time that a bar was sent under, then the fields of `garch_platform.recycler.tick.Bar`; no rows."""


class Replay(Protocol):
    """Ticks that come when they are due, and a memory of those that have been."""

    @property
    def speed(self) -> float | Literal["max"]:
        """Bars a minute, or ``max``."""
        ...

    def ticks(self) -> AsyncIterator[Tick]:
        """Each tick when it is due; ends with the replay."""
        ...

    def pause(self) -> None:
        """Give no tick until `resume`."""
        ...

    def resume(self) -> None:
        """Go on after `pause`."""
        ...

    def seek(self, moment: datetime | date) -> None:
        """Go on with the first tick at or after ``moment`` of the stored bars' own time, or of a session."""
        ...

    def set_speed(self, speed: float | Literal["max"]) -> None:
        """Bars a minute from now on; ``max`` is as fast as clients take them."""
        ...

    def status(self) -> dict[str, Any]:
        """Where the replay stands, ready for JSON; has ``speed``, ``timeframe`` and ``paused``."""
        ...

    def symbols(self) -> list[str]:
        """The symbols that it serves; ``*`` means these."""
        ...

    def proxies(self) -> dict[str, list[dict[str, Any]]]:
        """For each symbol the spans of sent time in which another symbol's bars stood in for it.

        A span has ``proxy``, ``start`` and ``end``, both times; the end is not in it, and null while it lasts.
        """
        ...

    def replayed(
        self, symbols: Sequence[str], start: datetime | None, end: datetime | None, *, since: str = ""
    ) -> Iterator[pl.DataFrame]:
        """Bars that were sent, in frames like `REPLAYED`, by symbol and time; both ends belong.

        A symbol is never spread over two frames. Those before ``since`` may be left out.
        """
        ...
