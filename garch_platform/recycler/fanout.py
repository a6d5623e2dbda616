"""One tick to many clients: encoded once, framed once a subscription, written as the same bytes.

Clients with the same codec and the same subscription form a group. A group's frames are serialised once
and handed to every member's outbox; nothing is done per client but one write. Ticks that follow one
another within a millisecond share that write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Literal

from garch_platform.recycler.daily import RunningDays
from garch_platform.recycler.faults import Delivery, FaultInjector
from garch_platform.recycler.outbox import Outbox
from garch_platform.recycler.session import ALL, Subscriptions
from garch_platform.recycler.tick import Bar, Tick
from garch_platform.recycler.wire import Codec

__all__ = ["Fanout", "Interest", "Wanted"]

COALESCE_SECONDS: Final = 0.001
COALESCE_BYTES: Final = 64 * 1024

Channel = Literal["b", "d"]


@dataclass(frozen=True)
class Wanted:
    """The symbols of one channel.

    Attributes:
        names: of the replay; of no meaning where all are wanted.
        is_all: whether all of the replay's are wanted.
        invented: symbols that the replay does not have, but gives (path ``/v2/test``).
    """

    names: frozenset[str] = frozenset()
    is_all: bool = False
    invented: frozenset[str] = frozenset()

    @classmethod
    def of(cls, symbols: Sequence[str], served: Sequence[str] | None) -> Wanted:
        """Those of a subscription; ``served`` where those that the replay does not have are given, too."""
        is_all = ALL in symbols
        named = frozenset(symbols).difference({ALL})
        invented = named.difference(served) if served else frozenset()
        return cls(frozenset() if is_all else named - invented, is_all, invented)

    def __bool__(self) -> bool:
        return self.is_all or bool(self.names) or bool(self.invented)

    def has(self, symbol: str) -> bool:
        """Whether ``symbol`` is among them."""
        return self.is_all or symbol in self.names or symbol in self.invented


NOTHING: Final = Wanted()


@dataclass(frozen=True)
class Interest:
    """What a client gets; equal interests share their frames.

    Attributes:
        codec: of the connection.
        bars: of the bar subscription.
        days: of the daily bars.
        updates: of the updated bars, which there are where a fault makes them.
        stands_in: symbol whose bars go out under those that are invented.
    """

    codec: Codec
    bars: Wanted = NOTHING
    days: Wanted = NOTHING
    updates: Wanted = NOTHING
    stands_in: str = ""

    @classmethod
    def of(cls, subscriptions: Subscriptions, codec: Codec, served: Sequence[str] | None = None) -> Interest:
        """The interest of a client with ``subscriptions``.

        Args:
            subscriptions: of the client.
            codec: of the client.
            served: the replay's symbols where it shall get bars under any symbol, else None.
        """
        channels = ("bars", "dailyBars", "updatedBars")
        bars, days, updates = (Wanted.of(subscriptions.of(channel), served) for channel in channels)
        return cls(codec, bars, days, updates, served[0] if served else "")

    @cached_property
    def is_empty(self) -> bool:
        """Whether no bar can reach the client."""
        return not (self.bars or self.days or self.updates)


class _EncodedTick:
    """The elements of a tick's frames, each encoded when first wanted."""

    def __init__(self, tick: Tick, days: RunningDays) -> None:
        self.tick = tick
        self.bars = {bar.symbol: bar for bar in tick.bars}
        self._days = days
        self._elements: dict[tuple[str, Channel, str], bytes] = {}
        self._moments: dict[tuple[str, Channel], object] = {}

    def wanted(self, symbols: Wanted, interest: Interest) -> Iterable[str]:
        """The symbols of the tick among ``symbols``, in the order of the tick; then those that are invented."""
        bars = self.bars
        if not symbols.invented:
            return bars if symbols.is_all else [name for name in bars if name in symbols.names]
        names = [name for name in bars if symbols.has(name)]
        if interest.stands_in in bars:
            names += sorted(symbols.invented.difference(bars))
        return names

    def bar(self, symbol: str, interest: Interest) -> Bar:
        """The minute bar under ``symbol``."""
        bar = self.bars.get(symbol)
        return bar if bar is not None else self.bars[interest.stands_in]._replace(symbol=symbol)

    def elements(self, channel: Channel, symbols: Wanted, interest: Interest) -> list[bytes]:
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

    def take(self, tick: _EncodedTick, correct_after: float) -> int:
        """Frame what the tick has for the members; the number of bars to all of them."""
        interest = self.interest
        count = 0
        wanted: tuple[tuple[Channel, Wanted], ...] = (("b", interest.bars), ("d", interest.days))
        for channel, symbols in wanted:
            if symbols:
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
    """One client whose bars meet faults: each travels in a frame of its own.

    The correction of a bar comes before the symbol's next bar: right after the tick, or ``correct_after``
    seconds later. That of a bar that is late itself comes in the same frame.
    """

    def __init__(self, interest: Interest, injector: FaultInjector, cut: Callable[[], Any]) -> None:
        super().__init__(interest)
        self._injector = injector
        self._cut = cut
        self._corrections: dict[str, tuple[datetime, Bar]] = {}

    def take(self, tick: _EncodedTick, correct_after: float) -> int:
        interest, timestamp = self.interest, tick.tick.timestamp
        before = self._injector.bars
        names = dict.fromkeys(tick.wanted(interest.bars, interest))
        others = [name for name in tick.wanted(interest.updates, interest) if name not in names]
        self._correct([name for name in (*names, *others) if name in self._corrections])
        for symbol in names:
            for delivery in self._injector.deliveries(timestamp, tick.bar(symbol, interest)):
                self._send(delivery, is_late=delivery.timestamp != timestamp)
        for symbol in others:
            if self._injector.revises():
                self._corrections[symbol] = timestamp, tick.bar(symbol, interest)
        days = tick.elements("d", interest.days, interest)
        if days and not self._injector.is_mute:
            self.keep(interest.codec.frames(days))
        if self._injector.is_cut:
            self.flush()
            self._cut()
        elif self._corrections:
            self._correct_after(correct_after, timestamp)
        return self._injector.bars - before

    def finish(self) -> None:
        """Send the bars that waited for a next one, and what is still to be corrected."""
        for delivery in self._injector.remaining():
            self._send(delivery, is_late=True)
        self.settle()

    def settle(self) -> None:
        """Correct now what is still to be corrected."""
        self._correct(list(self._corrections))
        self.flush()

    def _send(self, delivery: Delivery, *, is_late: bool) -> None:
        codec, symbol, correction = self.interest.codec, delivery.bar.symbol, delivery.correction
        frames = codec.frame(codec.undecodable) if delivery.is_malformed_before else b""
        moment = codec.moment(delivery.timestamp)
        elements = [codec.element("b", delivery.bar, moment)]
        if correction is not None and self.interest.updates.has(symbol):
            if is_late or delivery.delay:
                elements.append(codec.element("u", correction, moment))
            else:
                self._corrections[symbol] = delivery.timestamp, correction
        frames += codec.frames(elements)
        if delivery.delay:
            asyncio.get_running_loop().call_later(delivery.delay, self._send_late, symbol, frames)
        else:
            self.keep(frames)

    def _send_late(self, symbol: str, frames: bytes) -> None:
        if self.interest.bars.has(symbol) and not self._injector.is_mute:
            for outbox in self.members:
                outbox.write(frames)

    def _correct_after(self, seconds: float, timestamp: datetime) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._correct_bars_of, timestamp)
        else:
            self._correct(list(self._corrections))

    def _correct_bars_of(self, timestamp: datetime) -> None:
        self._correct([name for name, (moment, _) in self._corrections.items() if moment == timestamp])
        self.flush()

    def _correct(self, symbols: Iterable[str]) -> None:
        """Give the own values of the bars of ``symbols`` that were sent with others."""
        codec, elements = self.interest.codec, []
        for symbol in symbols:
            timestamp, bar = self._corrections.pop(symbol)
            if self.interest.updates.has(symbol) and not (self._injector.is_mute or self._injector.is_cut):
                elements.append(codec.element("u", bar, codec.moment(timestamp)))
        if elements:
            self.keep(codec.frames(elements))


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
        """Put a client into the group of its interest; it gets what comes from now on.

        A client with faults takes what it is still due along, as far as it still wants it.
        """
        if faults is None or not faults[0].may_revise:
            interest = replace(interest, updates=NOTHING)
        key: object = interest if faults is None else outbox
        if interest.is_empty or self._group_of.get(outbox) != key:
            self.remove(outbox)
        if interest.is_empty:
            return
        if key in self._groups:
            self._groups[key].interest = interest
        else:
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

    def send(self, tick: Tick, correct_after: float = 0.0) -> bool:
        """Give a tick to all groups; whether it was written already rather than kept for a moment.

        Args:
            tick: that is due.
            correct_after: seconds after which bars that were sent with other values are corrected.
        """
        self._days.add(tick.timestamp, tick.bars)
        if not self._groups:
            return True
        encoded = _EncodedTick(tick, self._days)
        for group in list(self._groups.values()):
            self.delivered += group.take(encoded, correct_after)
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
        for group in self._faulty():
            group.finish()

    def settle(self) -> None:
        """The server stops: every bar that was sent with other values is corrected."""
        self.flush()
        for group in self._faulty():
            group.settle()

    def _faulty(self) -> list[_FaultyGroup]:
        return [group for group in self._groups.values() if isinstance(group, _FaultyGroup)]
