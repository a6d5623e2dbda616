"""Misbehaviour on purpose, the same for the same seed and number of the connection.

What can go wrong with a bar is drawn once for every bar of the connection, whichever faults are on, so
that one fault does not move the others. Faults meet minute bars (``b``); daily bars pass.

A bar that is revised is first sent as it might have stood before the trades that came late, then corrected: its
own values follow as an updated bar (``u``), after every copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

import numpy as np

from garch_platform.recycler.tick import Bar
from garch_platform.settings.live import Faults

__all__ = ["Delivery", "FaultInjector", "are_on"]

DRAWS: Final = 5
BEFORE: Final = 0.999
"""The prices of a bar that will be corrected, as a share of its own."""


class Delivery(NamedTuple):
    """One bar on its faulty way."""

    timestamp: datetime
    bar: Bar
    delay: float
    """Seconds after its time."""
    is_malformed_before: bool
    """Whether a frame that cannot be decoded comes first."""
    correction: Bar | None = None
    """Its own values, to be sent after it; null if it has them."""


def are_on(faults: Faults) -> bool:
    """Whether any fault of the bars, or of the connection, is configured."""
    shares = (
        faults.drop,
        faults.delay,
        faults.duplicate,
        faults.out_of_order,
        faults.revise,
        faults.malformed,
    )
    return any(shares) or faults.disconnect_after is not None or faults.mute_after is not None


class FaultInjector:
    """The faults of one connection.

    Args:
        faults: which, how often, and the seed.
        number: of the connection since the server started, from 0.
    """

    def __init__(self, faults: Faults, number: int) -> None:
        self._faults = faults
        self._draws = np.random.default_rng([faults.seed & 0xFFFFFFFF, number])
        self._revisions = np.random.default_rng([faults.seed & 0xFFFFFFFF, number, DRAWS])
        self._held: dict[str, Delivery] = {}
        self.bars = 0
        """Bars that the client was sent, duplicates included."""

    @property
    def may_revise(self) -> bool:
        """Whether any bar is corrected after it was sent."""
        return self._faults.revise > 0

    @property
    def is_mute(self) -> bool:
        """Whether the connection has fallen silent for good."""
        return self._faults.mute_after is not None and self.bars >= self._faults.mute_after

    @property
    def is_cut(self) -> bool:
        """Whether it is time to cut the connection."""
        return self._faults.disconnect_after is not None and self.bars >= self._faults.disconnect_after

    def revises(self) -> bool:
        """Whether the next bar is corrected after it was sent; `deliveries` asks for its own."""
        return bool(self._revisions.random() < self._faults.revise)

    def deliveries(self, timestamp: datetime, bar: Bar) -> Iterator[Delivery]:
        """What becomes of a bar: nothing, itself, itself twice, or the next of its symbol before it."""
        faults = self._faults
        is_revised = self.revises()
        drop, delay, duplicate, swap, malformed = self._draws.random(DRAWS)
        if drop < faults.drop:
            return
        late = faults.delay_seconds if delay < faults.delay else 0.0
        is_malformed = bool(malformed < faults.malformed)
        if is_revised:
            delivery = Delivery(timestamp, _provisional(bar), late, is_malformed, correction=bar)
        else:
            delivery = Delivery(timestamp, bar, late, is_malformed)
        copies = 2 if duplicate < faults.duplicate else 1
        held = self._held.pop(bar.symbol, None)
        if held is None and swap < faults.out_of_order:
            self._held[bar.symbol] = delivery
            return
        first = [delivery._replace(correction=None)] * (copies - 1)
        for each in [*first, delivery, *([held] if held else [])]:
            if self.is_mute or self.is_cut:
                return
            self.bars += 1
            yield each

    def remaining(self) -> Iterator[Delivery]:
        """Bars that waited for a next one of their symbol that does not come."""
        held, self._held = self._held, {}
        for delivery in held.values():
            if self.is_mute or self.is_cut:
                return
            self.bars += 1
            yield delivery


def _provisional(bar: Bar) -> Bar:
    """``bar`` before half of its trades were known: no value that is not 0 or null is its own."""
    return bar._replace(
        open=bar.open * BEFORE,
        high=bar.high * BEFORE,
        low=bar.low * BEFORE,
        close=bar.close * BEFORE,
        volume=bar.volume // 2,
        trade_count=None if bar.trade_count is None else bar.trade_count // 2,
        vwap=None if bar.vwap is None else bar.vwap * BEFORE,
    )
