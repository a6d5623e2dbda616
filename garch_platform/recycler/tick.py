"""What is replayed: all bars of one moment."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

__all__ = ["Bar", "Tick"]


class Bar(NamedTuple):
    """One symbol's bar, its prices as stored; ``volume`` in shares, null where the store has none."""

    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    trade_count: int | None
    vwap: float | None


class Tick(NamedTuple):
    """The bars of one timestamp.

    Attributes:
        timestamp: start of the bars as sent (UTC): re-stamped in the live clock.
        source: start of the bars as stored (UTC).
        bars: one a symbol that has a bar at ``source``, in the order of the symbols.
        is_last_of_session: whether the session has no later tick.
    """

    timestamp: datetime
    source: datetime
    bars: tuple[Bar, ...]
    is_last_of_session: bool
