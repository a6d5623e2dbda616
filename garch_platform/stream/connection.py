"""A connection that is kept: opened again whenever it breaks or falls silent, later after each failure."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from garch_platform.errors import StreamError
from garch_platform.stream.counts import Counts
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.feed import BarFeed, FeedError, MalformedFrame
from garch_platform.stream.gaps import Gaps
from garch_platform.stream.history import ReplayState, stamp_of
from garch_platform.stream.hours import MarketHours
from garch_platform.stream.rows import microseconds

__all__ = ["KeptConnection", "cancelled"]

logger = logging.getLogger(__name__)

LIMIT_JITTER: Final = 0.25
CHECKS_PER_SILENCE: Final = 4
END_POLL_SECONDS: Final = 0.25
REAL_TIME: Final = 1.0


class KeptConnection:
    """Keeps a feed open.

    Args:
        feed: that is opened, followed and closed.
        gaps: told of every interruption.
        counts: reconnects and malformed frames are counted.
        replay: what the recycler says of itself; null in mode alpaca.
        hours: silence outside of the session is none.
        mute_seconds: without any message, after which the connection is taken for dead.
        connection_limit_seconds: before another try after 406.
        history: of a live replay that is looked back at where nothing is stored.
        before_first: awaited before the first connection.
        connected: called after every connection.
    """

    def __init__(
        self,
        feed: BarFeed,
        gaps: Gaps,
        counts: Counts,
        *,
        replay: ReplayState | None,
        hours: MarketHours,
        mute_seconds: float,
        connection_limit_seconds: float,
        history: timedelta,
        before_first: Callable[[], Awaitable[None]],
        connected: Callable[[], None],
    ) -> None:
        self.endpoint: Endpoint = feed.endpoint
        self.is_connected = False
        self.count = 0
        """Connections so far."""
        self.error: str | None = None
        """Why it is not connected."""
        self.is_timely = not self.endpoint.is_recycler
        """Whether bars are sent as they happen, so that lateness can be measured."""
        self.latest: int | None = None
        """Nothing later than this has been sent by a live replay; null where that is not known."""
        self._feed = feed
        self._gaps = gaps
        self._counts = counts
        self._replay = replay
        self._hours = hours
        self._mute_seconds = mute_seconds
        self._limit_seconds = connection_limit_seconds
        self._history = history // timedelta(microseconds=1)
        self._before_first = before_first
        self._connected = connected
        self._heard_at = 0.0

    @property
    def first_of_new(self) -> int | None:
        """Where a symbol without stored bars begins; null = as early as the server answers."""
        if self._replay is None:
            return self._hours.last_open(datetime.now(UTC))
        return None if self.latest is None else self.latest - self._history

    def heard(self) -> None:
        """A message came."""
        self._heard_at = asyncio.get_running_loop().time()

    async def keep(self) -> None:
        """Stay connected for ever.

        Raises:
            StreamError: the server refuses for good; the message names what to change.
        """
        failures = 0
        while True:
            before = self._counts.received
            try:
                await self._once()
            except FeedError as error:
                self.error = str(error)
                failures = 1 if self._counts.received > before else failures + 1
                pause = self._pause(error, failures)
                logger.warning("%s; next try in %.1f s", error, pause)
                await asyncio.sleep(pause)

    async def replay_ended(self) -> None:
        """Return when the recycler has sent its last bar and nothing more comes."""
        while True:
            await asyncio.sleep(END_POLL_SECONDS)
            status = await self._status()
            silence = asyncio.get_running_loop().time() - self._heard_at
            if status is not None and status.get("ended") and silence >= END_POLL_SECONDS:
                return

    async def close(self) -> None:
        """Close the connection that there is."""
        self.is_connected = False
        await self._feed.close()

    async def _once(self) -> None:
        """Connect and follow, until the connection breaks."""
        await self._look_at_replay()
        if self.count == 0:
            await self._before_first()
        try:
            await self._feed.open()
            self.is_connected, self.error = True, None
            self.count += 1
            self._counts.reconnects = self.count - 1
            logger.info("connected to %s, %d symbols", self.endpoint.stream_url, len(self._feed.symbols))
            self._connected()
            await self._follow()
        finally:
            await self.close()
            self._gaps.interrupted("reconnect")

    async def _follow(self) -> None:
        self.heard()
        following = asyncio.create_task(self._feed.follow())
        try:
            while True:
                await asyncio.wait([following], timeout=self._mute_seconds / CHECKS_PER_SILENCE)
                if following.done():
                    following = self._followed_on(following)
                elif await self._is_mute():
                    raise FeedError(f"{self.endpoint.stream_url} fell silent")
        finally:
            await cancelled(following)

    def _followed_on(self, ended: asyncio.Task[None]) -> asyncio.Task[None]:
        error = ended.exception()
        if error is not None and not isinstance(error, MalformedFrame):
            raise error
        if error is not None:
            self._counts.malformed += 1
            logger.warning("%s", error)
            self._gaps.interrupted("malformed")
        return asyncio.create_task(self._feed.follow())

    async def _is_mute(self) -> bool:
        silence = asyncio.get_running_loop().time() - self._heard_at
        if silence < self._mute_seconds:
            return False
        if self._replay is None:
            now = datetime.now(UTC)
            earlier = now - timedelta(seconds=self._mute_seconds)
            return self._hours.is_open(now) and self._hours.is_open(earlier)
        status = await self._status()
        if status is None:
            return True
        stamp, newest = stamp_of(status), self._gaps.newest
        return stamp is not None and (newest is None or stamp > newest)

    async def _look_at_replay(self) -> None:
        """Learn the replay's clock; a live one that was started anew begins earlier than the last one ended."""
        status = await self._status()
        if status is None:
            return
        clock = "historical" if self.endpoint.is_historical else "live"
        if status.get("clock", clock) != clock:
            raise StreamError(
                f"the recycler at {self.endpoint.stream_url} replays in the {status['clock']} clock, "
                f"the client expects {clock}; set websocket.recycler.clock alike for both"
            )
        self.is_timely = clock == "live" and status.get("speed") == REAL_TIME
        if clock == "live":
            stamp = stamp_of(status)
            self.latest = microseconds(datetime.now(UTC)) if stamp is None else stamp
            newest = self._gaps.newest
            if newest is not None and newest > self.latest:
                self._gaps.rewound(self.first_of_new)

    async def _status(self) -> dict[str, Any] | None:
        return None if self._replay is None else await asyncio.to_thread(self._replay.status)

    def _pause(self, error: FeedError, failures: int) -> float:
        if error.is_connection_limit:
            return self._limit_seconds * (1 + LIMIT_JITTER * random.random())  # noqa: S311 - jitter is no secret
        return self._feed.pause(failures)


async def cancelled(task: asyncio.Future[Any]) -> None:
    """End ``task``; a cancellation that a library swallows is repeated."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.2)
    if not task.cancelled():
        task.exception()
