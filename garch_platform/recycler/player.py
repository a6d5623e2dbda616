"""The player: gives every tick of the tape when the clock says that it is due, and obeys its controls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal

import polars as pl

from garch_platform.errors import GarchPlatformError, StreamError
from garch_platform.recycler.clock import MAX, ReplayClock, Speed
from garch_platform.recycler.emitted import EmittedTicks, ProxySpans
from garch_platform.recycler.period import Chunk, Period, Session
from garch_platform.recycler.tape import Tape
from garch_platform.recycler.tick import Tick
from garch_platform.recycler.wall_time import LONGEST_WAIT, Time, WallTime
from garch_platform.recycler.wire import rfc3339

__all__ = ["Mode", "Player"]

LOG = logging.getLogger(__name__)

Mode = Literal["loop", "date_range", "single_pass"]

FOR_EVER: Final = -1
RETRY_SECONDS = (1.0, 5.0, 15.0, 30.0)
"""Pauses between attempts to read a period, in case the lake is away for a moment."""
MICROSECOND: Final = timedelta(microseconds=1)


class Player:
    """One replay of a tape, a `garch_platform.recycler.replay.Replay`.

    The next period is read in a thread while the present one plays. Controls are called from the event
    loop's thread and take effect at once, also while the next tick is waited for.

    Args:
        tape: the bars; it must be open. Of a ``date_range`` it holds those sessions only.
        clock: when ticks are due, and how they are stamped.
        mode: ``loop`` begins again after the last session; ``date_range`` and ``single_pass`` end there.
        loop_count: passes of mode ``loop``; -1 = for ever.
        time: the present moment and waiting.
        remembered: ticks that `replayed` can give.
        refresh_seconds: how often the lake is looked at for a new version.
    """

    def __init__(
        self,
        tape: Tape,
        clock: ReplayClock,
        *,
        mode: Mode = "loop",
        loop_count: int = FOR_EVER,
        time: Time | None = None,
        remembered: int = 200_000,
        refresh_seconds: float = 5.0,
    ) -> None:
        self.tape = tape
        self.clock = clock
        self.mode = mode
        self.passes = loop_count if mode == "loop" else 1
        self.time = time or WallTime()
        self.refresh_after = timedelta(seconds=refresh_seconds)
        self._emitted = EmittedTicks(remembered)
        self._spans = ProxySpans()
        self._changed = asyncio.Event()
        self._state: Literal["ready", "playing", "ended"] = "ready"
        self._pass = 1
        self._bar_count = 0
        self._is_pass_empty = True
        self._last: tuple[datetime, date] | None = None
        self._has_jumped = True
        self._stamp: datetime | None = None
        self._target: datetime | None = None
        self._cursor = datetime.min.replace(tzinfo=UTC)
        self._chunk: Chunk | None = None
        self._number = 0
        self._looked_at = self.time.now()
        self._look: asyncio.Future[Chunk | None] | None = None
        self._ahead: tuple[Period, asyncio.Future[Chunk]] | None = None

    async def ticks(self) -> AsyncIterator[Tick]:
        """Give each tick when it is due, to one reader; end with the replay.

        Raises:
            StreamError: a second reader, no bar of a whole pass can be spoken, or a period cannot be read.
        """
        if self._state != "ready":
            raise StreamError(
                f"the replay is {self._state}; one reader takes its ticks, build another player"
            )
        self._state = "playing"
        try:
            chunk = await self._arrive()
            self.clock.start(self.time.now())
            while chunk is not None:
                if await self._is_due(chunk):
                    yield self._emit(chunk)
                    if self.clock.speed == MAX:
                        await asyncio.sleep(0)
                chunk = await self._arrive()
        finally:
            self._state = "ended"
            self._drop_ahead()
            if self._look is not None:
                _forget(self._look)

    @property
    def speed(self) -> Speed:
        """Bars a minute, or ``max``."""
        return self.clock.speed

    def pause(self) -> None:
        """Give no tick until `resume`."""
        self.clock.pause(self.time.now())
        self._changed.set()

    def resume(self) -> None:
        """Go on after `pause`; live stamps go on at the present."""
        self.clock.resume(self.time.now())
        self._changed.set()

    def set_speed(self, speed: Speed) -> None:
        """Change the pace from now on; raise `StreamError` for a value that is none."""
        self.clock.set_speed(speed, self.time.now())
        self._changed.set()

    def seek(self, moment: datetime | date) -> None:
        """Go on with the first tick at or after ``moment`` in source time; a date stands for its session.

        Raises:
            StreamError: it lies outside what is replayed, has no time zone, or the replay has ended.
        """
        if self._state == "ended":
            raise StreamError(f"cannot seek {moment}: the replay has ended; start the recycler again")
        sessions = self.tape.view.sessions
        first, last = sessions[0], sessions[-1]
        target = self._moment_of(moment)
        if target is None or not datetime.combine(first.day, time(), UTC) <= target <= last.last:
            raise StreamError(
                f"cannot seek {moment}: the replay holds the sessions {first.day} to {last.day}, "
                f"{_text(first.first)} to {_text(last.last)}; give a moment between"
            )
        self._target = max(target, first.first)
        self._changed.set()

    def symbols(self) -> list[str]:
        """The symbols that it serves, in order."""
        return self.tape.symbols

    def proxies(self) -> dict[str, list[dict[str, Any]]]:
        """Symbol: spans of stamped time in which another symbol's bars were sent as its own.

        Each has ``proxy``, ``start`` and ``end`` (RFC 3339): it holds the stamps t with start <= t < end;
        null while it lasts.
        """
        return self._spans.spans()

    def replayed(
        self, symbols: Sequence[str], start: datetime | None, end: datetime | None, *, since: str = ""
    ) -> Iterator[pl.DataFrame]:
        """What was sent by now, never more; frames like `garch_platform.recycler.replay.REPLAYED`.

        Args:
            symbols: that are asked for.
            start: first stamp; None is the oldest that is remembered.
            end: last stamp, inclusive; None is the newest.
            since: symbols before it may be left out.
        """
        return self._emitted.bars(self.tape, symbols, start, end, since=since)

    def status(self) -> dict[str, Any]:
        """Where the replay stands, ready for JSON; times are ISO 8601 in UTC, null before the first tick."""
        view = self.tape.view
        sessions = view.sessions
        source, session = self._last or (None, None)
        return {
            "mode": self.mode,
            "state": "paused" if self.clock.is_paused and self._state == "playing" else self._state,
            "paused": self.clock.is_paused,
            "ended": self._state == "ended",
            "speed": self.clock.speed,
            "clock": self.clock.stamps,
            "session_gaps": self.clock.session_gaps,
            "timeframe": self.tape.timeframe.name,
            "position": _text(source),
            "stamp": _text(self._stamp),
            "session": session and session.isoformat(),
            "date_range": [bound and bound.isoformat() for bound in (self.tape.start, self.tape.end)],
            "sessions": len(sessions),
            "first_session": sessions[0].day.isoformat() if sessions else None,
            "last_session": sessions[-1].day.isoformat() if sessions else None,
            "pass": self._pass,
            "passes": None if self.passes == FOR_EVER else self.passes,
            "ticks": self._emitted.count,
            "bars": self._bar_count,
            "symbols": self.symbols(),
            "proxies": view.proxies,
            "silent": list(view.silent),
            "unservable": self.tape.unservable,
            "lake_version": view.version,
        }

    async def _arrive(self) -> Chunk | None:
        """The chunk whose tick number `_number` comes next; None at the end of the replay."""
        await self._look_at_lake()
        while True:
            if self._target is not None:
                await self._jump(self._target)
            elif self._chunk is None:
                await self._turn_to(self._first_session())
            chunk = self._chunk
            if chunk is not None and self._number < len(chunk):
                return chunk
            following = None if chunk is None else self.tape.after(chunk.period)
            if following is None:
                if self._pass == self.passes:
                    return None
                self._wrap()
            else:
                await self._read(following)

    async def _is_due(self, chunk: Chunk) -> bool:
        """Wait until the next tick is due; False if it is another one by then."""
        source = chunk.timestamps[self._number]
        while self._target is None:
            self._changed.clear()
            seconds = self.clock.wait(self._minutes(chunk, source), self.time.now())
            if seconds <= 0.0:
                return True
            await self.time.wait(seconds, self._changed)
        return False

    def _minutes(self, chunk: Chunk, source: datetime) -> int:
        if self._last is None or self._has_jumped:
            return 1
        before, day = self._last
        return self.clock.minutes(before, source, sessions=(day, chunk.days[self._number]))

    def _emit(self, chunk: Chunk) -> Tick:
        number = self._number
        source, bars = chunk.timestamps[number], chunk.bars(number)
        stamp = self.clock.stamp(self._minutes(chunk, source), source)
        self._number += 1
        self._cursor = source + MICROSECOND
        self._last = (source, chunk.days[number])
        self._has_jumped = False
        self._stamp = stamp
        self._bar_count += len(bars)
        self._is_pass_empty = False
        self._spans.sent(stamp, chunk.view)
        self._emitted.append(stamp, source, chunk.view)
        return Tick(stamp, source, bars, chunk.is_last_of_session(number))

    async def _look_at_lake(self) -> None:
        """Take over what was written to the lake since, in the present period too.

        It is looked at in a thread, which is waited for until a tick is due or a control changes something.
        """
        now = self.time.now()
        if self._look is None and self._chunk is not None and now - self._looked_at >= self.refresh_after:
            self._looked_at = now
            self._look = asyncio.ensure_future(asyncio.to_thread(self._renewed, self._chunk.period))
        if self._look is None:
            return
        changed: asyncio.Future[Any] = asyncio.ensure_future(self._changed.wait())
        spare = self._spare_seconds()
        await asyncio.wait([self._look, changed], timeout=spare, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()
        if not self._look.done():
            return
        look, self._look = self._look, None
        try:
            chunk = look.result()
        except GarchPlatformError as error:
            LOG.warning("the lake could not be looked at, the replay goes on as it was: %s", error)
            return
        if chunk is not None and self._chunk is not None and self._chunk.period == chunk.period:
            self._place(chunk)

    def _renewed(self, period: Period) -> Chunk | None:
        return self.tape.read(period) if self.tape.refresh() else None

    def _spare_seconds(self) -> float:
        if self._chunk is None or self._number >= len(self._chunk):
            return 0.0
        source = self._chunk.timestamps[self._number]
        return min(LONGEST_WAIT, self.clock.wait(self._minutes(self._chunk, source), self.time.now()))

    async def _jump(self, target: datetime) -> None:
        session = self.tape.view.session_at(target)
        if session is None:
            raise StreamError(
                f"the lake no longer holds bars at or after {_text(target)}; run `garch refresh`"
            )
        self._has_jumped, self._cursor, self._is_pass_empty = True, target, False
        await self._read(self.tape.period_of(session.day))
        if self._target == target:
            self._target = None

    async def _turn_to(self, session: Session) -> None:
        self._has_jumped, self._cursor = True, session.first
        await self._read(self.tape.period_of(session.day))

    def _wrap(self) -> None:
        if self._is_pass_empty:
            raise StreamError(
                f"a whole pass of {self.tape.place} had no bar with all prices and volume; run `garch refresh`"
            )
        self._pass += 1
        self._is_pass_empty = True
        self._chunk = None
        LOG.info("pass %d of the replay begins", self._pass)

    def _first_session(self) -> Session:
        sessions = self.tape.view.sessions
        if not sessions:
            raise StreamError(f"{self.tape.place} no longer holds bars to replay; run `garch refresh`")
        return sessions[0]

    async def _read(self, period: Period) -> None:
        chunk = await self._read_before(period)
        if chunk is None or chunk.view is not self.tape.view:
            chunk = await self._read_now(period)
        self._place(chunk)

    async def _read_now(self, period: Period) -> Chunk:
        for pause in RETRY_SECONDS:
            try:
                return await asyncio.to_thread(self.tape.read, period)
            except GarchPlatformError as error:
                LOG.warning(
                    "the bars of %s could not be read, once more in %g s: %s", period.start, pause, error
                )
                await self.time.wait(pause, asyncio.Event())
        await asyncio.to_thread(self.tape.refresh)
        return await asyncio.to_thread(self.tape.read, period)

    def _place(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._number = chunk.place_of(self._cursor)
        self._read_ahead(chunk)

    async def _read_before(self, period: Period) -> Chunk | None:
        if self._ahead is None or self._ahead[0] != period:
            self._drop_ahead()
            return None
        ahead, self._ahead = self._ahead[1], None
        try:
            return await ahead
        except GarchPlatformError as error:
            LOG.warning("reading %s ahead failed, once more: %s", period.start, error)
            return None

    def _read_ahead(self, chunk: Chunk) -> None:
        self._drop_ahead()
        following = self.tape.after(chunk.period)
        if following is None and self._pass != self.passes and self.tape.view.sessions:
            following = self.tape.period_of(self.tape.view.sessions[0].day)
        if following is None:
            return
        if following == chunk.period:
            done: asyncio.Future[Chunk] = asyncio.get_running_loop().create_future()
            done.set_result(chunk)
            self._ahead = (following, done)
        else:
            self._ahead = (following, asyncio.ensure_future(asyncio.to_thread(self.tape.read, following)))

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            _forget(self._ahead[1])
            self._ahead = None

    def _moment_of(self, moment: datetime | date) -> datetime | None:
        """``moment`` in UTC; of a date the begin of the first session from it on, None outside."""
        if not isinstance(moment, datetime):
            sessions = self.tape.view.sessions
            if moment < sessions[0].day:
                return None
            return next((session.first for session in sessions if session.day >= moment), None)
        if moment.tzinfo is None:
            raise StreamError(
                f"the moment {moment} has no time zone; write it as {moment}Z or with an offset"
            )
        return moment.astimezone(UTC)


def _forget(work: asyncio.Future[Any]) -> None:
    """Let ``work`` end by itself; its failure is nobody's any more."""
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
    work.cancel()


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
