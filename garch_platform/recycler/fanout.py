"""One tick to many clients: encoded once, framed once a subscription, written as the same bytes.

Clients with the same codec and the same subscription form a group. A group's frames are serialised once
and handed to every member's outbox; nothing is done per client but one write. Ticks that follow one
another within a millisecond share that write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from garch_platform.recycler.daily import RunningDays
from garch_platform.recycler.faults import Delivery, FaultInjector
from garch_platform.recycler.outbox import Outbox
from garch_platform.recycler.session import ALL, Subscriptions
from garch_platform.recycler.tick import Bar, Tick
from garch_platform.recycler.wire import Codec

__all__ = ["Fanout", "Interest"]

COALESCE_SECONDS: Final = 0.001
COALESCE_BYTES: Final = 64 * 1024

Channel = Literal["b", "d"]


@dataclass(frozen=True)
class Interest:
    """What a client gets; equal interests share their frames.

    Attributes:
        codec: of the connection.
        bars: symbols of the bar subscription, or None for all.
        days: symbols of the daily bars, or None for all.
        invented: subscribed symbols that the replay does not have, but gives (path ``/v2/test``).
        stands_in: symbol whose bars go out under those.
    """

    codec: Codec
    bars: frozenset[str] | None
    days: frozenset[str] | None
    invented: frozenset[str] = frozenset()
    stands_in: str = ""

    @classmethod
    def of(cls, subscriptions: Subscriptions, codec: Codec, served: Sequence[str] | None = None) -> Interest:
        """The interest of a client with ``subscriptions``.

        Args:
            subscriptions: of the client.
            codec: of the client.
            served: the replay's symbols where it shall get bars under any symbol, else None.
        """
        bars, days = (_names(subscriptions.of(channel)) for channel in ("bars", "dailyBars"))
        if not served:
            return cls(codec, bars, days)
        invented = ((bars or frozenset()) | (days or frozenset())).difference(served)
        return cls(codec, bars, days, invented, served[0])

    @cached_property
    def is_empty(self) -> bool:
        """Whether no bar can reach the client."""
        return self.bars == self.days == frozenset()


def _names(symbols: Sequence[str]) -> frozenset[str] | None:
    return None if ALL in symbols else frozenset(symbols)


class _EncodedTick:
    """The elements of a tick's frames, each encoded when first wanted."""

    def __init__(self, tick: Tick, days: RunningDays) -> None:
        self.tick = tick
        self.bars = {bar.symbol: bar for bar in tick.bars}
        self._days = days
        self._elements: dict[tuple[str, Channel, str], bytes] = {}
        self._moments: dict[tuple[str, Channel], object] = {}

    def wanted(self, symbols: frozenset[str] | None, interest: Interest) -> Iterable[str]:
        """The symbols of the tick among ``symbols``, in the order of the tick."""
        bars = self.bars
        if symbols is None:
            return bars
        names = [name for name in bars if name in symbols]
        if interest.stands_in in bars:
            names += sorted(symbols & interest.invented)
        return names

    def bar(self, symbol: str, interest: Interest) -> Bar:
        """The minute bar under ``symbol``."""
        bar = self.bars.get(symbol)
        return bar if bar is not None else self.bars[interest.stands_in]._replace(symbol=symbol)

    def elements(self, channel: Channel, symbols: frozenset[str] | None, interest: Interest) -> list[bytes]:
        """The encoded bars of ``channel`` among ``symbols``."""
        codec, known = interest.codec, self._elements
        found = []
        for symbol in self.wanted(symbols, interest):
            key = (codec.name, channel, symbol)
            element = known.get(key)
            if element is None:
                element = known[key] = self._encoded(codec, channel, symbol, interest)
            found.append(element)
        return found

    def _encoded(self, codec: Codec, channel: Channel, symbol: str, interest: Interest) -> bytes:
        moment = self._moments.get((codec.name, channel))
        if moment is None:
            start = self._days.start if channel == "d" else None
            moment = self._moments[codec.name, channel] = codec.moment(start or self.tick.timestamp)
        bar = self.bar(symbol, interest)
        if channel == "d":
            source = symbol if symbol in self.bars else interest.stands_in
            bar = self._days.bar(source)._replace(symbol=symbol)
        return codec.element(channel, bar, moment)


class _Group:
    """Clients of one interest, and the frames that wait for their next write."""

    def __init__(self, interest: Interest) -> None:
        self.interest = interest
        self.members: dict[Outbox, None] = {}
        self.frames: list[bytes] = []
        self.waiting = 0

    def take(self, tick: _EncodedTick) -> int:
        """Frame what the tick has for the members; the number of bars to all of them."""
        interest = self.interest
        count = 0
        wanted: tuple[tuple[Channel, frozenset[str] | None], ...]
        wanted = (("b", interest.bars), ("d", interest.days))
        for channel, symbols in wanted:
            if symbols is None or symbols:
                elements = tick.elements(channel, symbols, interest)
                if elements:
                    frames = interest.codec.frames(elements)
                    self.keep(frames)
                    count += len(elements)
        return count * len(self.members)

    def keep(self, frames: bytes) -> None:
        """Let ``frames`` wait for the next `flush`."""
        self.frames.append(frames)
        self.waiting += len(frames)

    def flush(self) -> None:
        """Write the waiting frames to every member."""
        if not self.frames:
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames.clear()
        self.waiting = 0
        for outbox in self.members:
            outbox.write(data)


class _FaultyGroup(_Group):
    """One client whose bars meet faults: each travels in a frame of its own."""

    def __init__(self, interest: Interest, injector: FaultInjector, cut: Callable[[], Any]) -> None:
        super().__init__(interest)
        self._injector = injector
        self._cut = cut

    def take(self, tick: _EncodedTick) -> int:
        interest = self.interest
        before = self._injector.bars
        for symbol in tick.wanted(interest.bars, interest):
            for delivery in self._injector.deliveries(tick.tick.timestamp, tick.bar(symbol, interest)):
                self._send(delivery)
        days = tick.elements("d", interest.days, interest)
        if days and not self._injector.is_mute:
            self.keep(interest.codec.frames(days))
        if self._injector.is_cut:
            self.flush()
            self._cut()
        return self._injector.bars - before

    def finish(self) -> None:
        """Send the bars that waited for a next one."""
        for delivery in self._injector.remaining():
            self._send(delivery)
        self.flush()

    def _send(self, delivery: Delivery) -> None:
        codec = self.interest.codec
        frames = codec.frame(codec.undecodable) if delivery.is_malformed_before else b""
        moment = codec.moment(delivery.timestamp)
        frames += codec.frames([codec.element("b", delivery.bar, moment)])
        if delivery.delay:
            asyncio.get_running_loop().call_later(delivery.delay, self._send_late, frames)
        else:
            self.keep(frames)

    def _send_late(self, frames: bytes) -> None:
        if not self._injector.is_mute:
            for outbox in self.members:
                outbox.write(frames)


class Fanout:
    """All groups, and the daily bars that run along."""

    def __init__(self) -> None:
        self.delivered = 0
        """Bars times clients, so far."""
        self._groups: dict[object, _Group] = {}
        self._group_of: dict[Outbox, object] = {}
        self._days = RunningDays()
        self._flushed_at = 0.0
        self._scheduled: asyncio.TimerHandle | None = None

    @property
    def has_listeners(self) -> bool:
        """Whether any client is subscribed to bars."""
        return bool(self._groups)

    def place(
        self,
        outbox: Outbox,
        interest: Interest,
        faults: tuple[FaultInjector, Callable[[], Any]] | None = None,
    ) -> None:
        """Put a client into the group of its interest; it gets what comes from now on."""
        self.remove(outbox)
        if interest.is_empty:
            return
        key: object = interest if faults is None else outbox
        if key not in self._groups:
            self._groups[key] = _Group(interest) if faults is None else _FaultyGroup(interest, *faults)
        self._groups[key].members[outbox] = None
        self._group_of[outbox] = key

    def remove(self, outbox: Outbox) -> None:
        """Take a client out of its group, after what it is still due."""
        key = self._group_of.pop(outbox, None)
        if key is None:
            return
        self.flush()
        group = self._groups[key]
        del group.members[outbox]
        if not group.members:
            del self._groups[key]

    def send(self, tick: Tick) -> bool:
        """Give a tick to all groups; whether it was written already rather than kept for a moment."""
        self._days.add(tick.timestamp, tick.bars)
        if not self._groups:
            return True
        encoded = _EncodedTick(tick, self._days)
        for group in list(self._groups.values()):
            self.delivered += group.take(encoded)
        loop = asyncio.get_running_loop()
        waiting = max((group.waiting for group in self._groups.values()), default=0)
        if loop.time() - self._flushed_at >= COALESCE_SECONDS or waiting >= COALESCE_BYTES:
            self.flush()
            return True
        if self._scheduled is None:
            self._scheduled = loop.call_later(COALESCE_SECONDS, self.flush)
        return False

    def flush(self) -> None:
        """Write what waits."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        for group in self._groups.values():
            group.flush()
        self._flushed_at = asyncio.get_running_loop().time()

    def finish(self) -> None:
        """The replay is over: nothing is held back any longer."""
        self.flush()
        for group in self._groups.values():
            if isinstance(group, _FaultyGroup):
                group.finish()
