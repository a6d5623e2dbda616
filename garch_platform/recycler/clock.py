"""When a tick is due, and how it is stamped: pure, the present moment comes by argument.

A replay advances in whole minutes. Its place is the ``t`` of the tick sent last: the start of the minute
that had just ended on a *virtual* clock, which starts at the present and runs ``speed`` times as fast. So at
speed 1.0 bars are sent right after the full minute of the wall clock, and at 60 once a second. Due times
derive from an anchor (a pair of real and virtual moments), never from the sleep before, so delays do not add
up. At speed ``max`` nothing waits and every tick is one minute.

In the live clock a tick is stamped with its place, in the historical clock with its own source time; the
pace is the same. At speeds above 1 the live clock runs ahead of the present, and a server that is started
again begins at the present: stamps that were sent before come once more, with other bars. To a client they
are replacements of the bars that it has under these stamps.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from garch_platform.bars import Timeframe
from garch_platform.errors import StreamError

__all__ = ["MAX", "Gaps", "ReplayClock", "Speed", "Stamps"]

Speed = float | Literal["max"]
"""Minutes of the virtual clock a minute, or ``max``."""
Stamps = Literal["live", "historical"]
Gaps = Literal["skip", "keep"]

MAX: Final = "max"
MINUTE: Final = timedelta(minutes=1)
RESOLUTION: Final = 1e-6
"""Seconds; what a datetime can tell apart."""


class ReplayClock:
    """The schedule of one replay.

    Every method takes the present moment as ``now`` (UTC); it may stand still or jump forwards.

    Args:
        timeframe: of the bars. Longer ones than a minute are sent at one a minute too.
        speed: minutes of the virtual clock a minute, or ``max``.
        stamps: ``live`` stamps ticks as if they happened now, ``historical`` leaves their times.
        session_gaps: ``keep`` lets the time between two sessions elapse, ``skip`` begins the next one at once.
    """

    def __init__(
        self,
        timeframe: Timeframe,
        *,
        speed: Speed = 1.0,
        stamps: Stamps = "live",
        session_gaps: Gaps = "skip",
    ) -> None:
        self.timeframe = timeframe
        self.speed = checked_speed(speed)
        self.stamps = stamps
        self.session_gaps = session_gaps
        self._anchor: tuple[datetime, datetime] | None = None
        self._paused_at: datetime | None = None
        self._place: datetime | None = None
        self._earliest = datetime.min.replace(tzinfo=UTC)

    @property
    def is_started(self) -> bool:
        """Whether `start` was called."""
        return self._anchor is not None

    @property
    def is_paused(self) -> bool:
        """Whether the virtual clock stands still."""
        return self._paused_at is not None

    def start(self, now: datetime) -> None:
        """Set the virtual clock to the present; the first tick is due at once."""
        self._anchor_at(now, now)
        if self.is_paused:
            self._paused_at = now

    def pause(self, now: datetime) -> None:
        """Stop the virtual clock."""
        if not self.is_paused:
            self._paused_at = self.virtual(now) if self.is_started else now

    def resume(self, now: datetime) -> None:
        """Let the virtual clock run again from the present, or from where it was if that is ahead."""
        if self._paused_at is None:
            return
        stopped_at, self._paused_at = self._paused_at, None
        if self.is_started:
            self._anchor_at(now, max(now, stopped_at))

    def set_speed(self, speed: Speed, now: datetime) -> None:
        """Change the pace from ``now`` on; raise `StreamError` for a value that is none."""
        speed = checked_speed(speed)
        if not self.is_started:
            self.speed = speed
            return
        virtual, was = self.virtual(now), self.speed
        self.speed = speed
        if self.is_paused:
            self._paused_at = virtual
        elif was == MAX:
            self._anchor_at(now, max(now, virtual))
        else:
            self._anchor = (now, virtual)

    def virtual(self, now: datetime) -> datetime:
        """What the virtual clock shows; at ``max`` the end of the minute sent last."""
        if self._paused_at is not None:
            return self._paused_at
        real, virtual = self._require_anchor()
        if self.speed == MAX:
            return virtual if self._place is None else max(virtual, self._place + MINUTE)
        return _later(virtual, (now - real).total_seconds() * float(self.speed))

    def minutes(
        self, before: datetime | None, source: datetime, *, sessions: tuple[date, date] | None
    ) -> int:
        """Minutes from the tick sent last to the next one.

        Args:
            before: source time of the tick sent last, None at the start.
            source: source time of the next tick.
            sessions: of both; None where they are not neighbours (a new pass, a seek).

        A hole inside a session elapses as it is. A bar longer than a minute is one step, whatever its distance.
        """
        if before is None or sessions is None or source <= before or self.speed == MAX:
            return 1
        is_same = sessions[0] == sessions[1]
        if (is_same and self.timeframe.minutes > 1) or (not is_same and self.session_gaps == "skip"):
            return 1
        return max(1, round((source - before) / self.timeframe.duration))

    def wait(self, minutes: int, now: datetime) -> float:
        """Seconds until the tick ``minutes`` after the last is due; 0 if it is, infinite while paused."""
        if self.is_paused:
            return float("inf")
        if self.speed == MAX:
            return 0.0
        left = (self._next_place(minutes) + MINUTE - self.virtual(now)).total_seconds() / float(self.speed)
        return left if left >= RESOLUTION else 0.0

    def stamp(self, minutes: int, source: datetime) -> datetime:
        """Move on by ``minutes`` and return the time with which the tick is sent.

        Raises:
            StreamError: the live clock has run past the year 9999.
        """
        self._place = self._next_place(minutes)
        return self._place if self.stamps == "live" else source

    def _next_place(self, minutes: int) -> datetime:
        if self._place is None:
            return self._earliest
        return max(_later(self._place, 60.0 * minutes), self._earliest)

    def _anchor_at(self, now: datetime, virtual: datetime) -> None:
        self._anchor = (now, virtual)
        self._earliest = virtual.replace(second=0, microsecond=0) - MINUTE

    def _require_anchor(self) -> tuple[datetime, datetime]:
        if self._anchor is None:
            raise StreamError("the replay's clock has not started; call start first")
        return self._anchor


def checked_speed(speed: Speed) -> Speed:
    """Return ``speed``; raise `StreamError` unless it is ``max`` or a positive, finite number."""
    if speed == MAX:
        return MAX
    if isinstance(speed, int | float) and not isinstance(speed, bool) and 0.0 < speed < float("inf"):
        return float(speed)
    raise StreamError(
        f"replay speed {speed!r} is none; give a positive number (1.0 = one bar a minute) or max"
    )


def _later(moment: datetime, seconds: float) -> datetime:
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        raise StreamError(
            "the replay's live clock has run past the year 9999; start the recycler again, or slower"
        ) from None
