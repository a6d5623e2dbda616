"""A connection that is kept: opened again whenever it breaks or falls silent, later after each failure."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from garch_platform.errors import StreamError
from garch_platform.stream.counts import Counts
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.feed import BarFeed, FeedError, MalformedFrame
from garch_platform.stream.gaps import Gaps
from garch_platform.stream.history import ReplayState, is_recycler, stamp_of
from garch_platform.stream.hours import MarketHours
from garch_platform.stream.rows import microseconds
from garch_platform.stream.tasks import cancelled

__all__ = ["KeptConnection"]

logger = logging.getLogger(__name__)

LIMIT_JITTER: Final = 0.25
CHECKS_PER_SILENCE: Final = 4
MOST_PATIENCE: Final = 40
"""Of thin symbols, in silences of the usual length."""
END_POLL_SECONDS: Final = 0.25
REAL_TIME: Final = 1.0


class FellSilent(FeedError):
    """Nothing came for longer than the connection is trusted."""


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
        before_first: awaited before the first connection; it is not to take long.
        connected: called after every connection.
        is_ahead: whether a replay has sent a later bar of the symbols than a time (null = any); in a thread.
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
        is_ahead: Callable[[int | None], bool],
    ) -> None:
        self.endpoint: Endpoint = feed.endpoint
        self.is_connected = False
        self.count = 0
        """Connections so far."""
        self.error: str | None = None
        """Why it is not connected."""
        self.has_ended = False
        """Whether a replay was seen to have sent its last bar."""
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
        self._is_ahead = is_ahead
        self._patience = mute_seconds
        self._may_be_recycler = not self.endpoint.is_recycler and not self.endpoint.is_alpacas_own
        feed.heard = self._heard
        self._heard_at = 0.0
        self._is_receiving = False

    @property
    def first_of_new(self) -> int | None:
        """Where a symbol without stored bars begins; null = as early as the server answers."""
        if self._replay is None:
            return self._hours.last_open(datetime.now(UTC))
        return None if self.latest is None else self.latest - self._history

    @property
    def silence(self) -> float:
        """Seconds since the last message was done with; 0 while one waits for the writer."""
        return 0.0 if self._is_receiving else asyncio.get_running_loop().time() - self._heard_at

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Around the work on a message."""
        self._is_receiving = True
        try:
            yield
        finally:
            self._is_receiving = False
            self._patience = self._mute_seconds
            self._heard()

    def _heard(self) -> None:
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
                self._gaps.interrupted("reconnect")
                is_fruitful = self._counts.received > before
                failures = 1 if is_fruitful else failures + 1
                if isinstance(error, FellSilent) and not is_fruitful:
                    self._patience = min(2 * self._patience, MOST_PATIENCE * self._mute_seconds)
                pause = self._pause(error, failures)
                logger.warning("%s; next try in %.1f s", error, pause)
                await asyncio.sleep(pause)

    async def replay_ended(self) -> None:
        """Return when the recycler has sent its last bar and nothing more comes."""
        while True:
            await asyncio.sleep(END_POLL_SECONDS)
            status = await self._status()
            is_over = status is not None and status.get("ended")
            if is_over and self.silence >= END_POLL_SECONDS:
                self.has_ended = True
                return

    async def close(self) -> None:
        """Close the connection that there is."""
        self.is_connected = False
        await self._feed.close()

    async def _once(self) -> None:
        """Connect and follow, until the connection breaks."""
        await self._look_at_replay()
        await self._require_no_recycler()
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

    async def _follow(self) -> None:
        self._heard()
        following = asyncio.create_task(self._feed.follow())
        try:
            while True:
                await asyncio.wait([following], timeout=self._patience / CHECKS_PER_SILENCE)
                if following.done():
                    following = self._followed_on(following)
                elif await self._is_mute():
                    raise FellSilent(f"{self.endpoint.stream_url} fell silent")
        finally:
            await cancelled(following)

    def _followed_on(self, ended: asyncio.Task[None]) -> asyncio.Task[None]:
        error = ended.exception()
        if error is not None and not isinstance(error, MalformedFrame):
            raise error
        if error is not None:
            self._heard()
            self._counts.malformed += 1
            logger.warning("%s", error)
            self._gaps.interrupted("malformed")
        return asyncio.create_task(self._feed.follow())

    async def _is_mute(self) -> bool:
        """A symbol without bars is no dead socket: a recycler is asked whether it has sent any."""
        if self.silence < self._patience:
            return False
        if self._replay is None:
            now = datetime.now(UTC)
            earlier = now - timedelta(seconds=self._patience)
            return self._hours.is_open(now) and self._hours.is_open(earlier)
        try:
            is_ahead = await asyncio.to_thread(self._is_ahead, self._gaps.newest)
        except StreamError:
            return True
        return is_ahead and self.silence >= self._patience

    async def _require_no_recycler(self) -> None:
        """A replay must not be stored as what Alpaca sent.

        Raises:
            StreamError: it is one.
        """
        if not self._may_be_recycler:
            return
        if await asyncio.to_thread(is_recycler, self.endpoint):
            raise StreamError(
                f"{self.endpoint.stream_url} (websocket.url) is a recycler, and its bars are no bars of Alpaca's: "
                "set websocket.mode=recycler and websocket.recycler.server_url"
            )

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
        stamp, newest = stamp_of(status), self._gaps.newest
        if clock == "historical":
            if newest is not None and (stamp is None or stamp < newest):
                self._gaps.stepped_back()
            return
        self.latest = microseconds(datetime.now(UTC)) if stamp is None else stamp
        if newest is not None and newest > self.latest:
            self._gaps.rewound(self.first_of_new)

    async def _status(self) -> dict[str, Any] | None:
        return None if self._replay is None else await asyncio.to_thread(self._replay.status)

    def _pause(self, error: FeedError, failures: int) -> float:
        if error.is_connection_limit:
            return self._limit_seconds * (1 + LIMIT_JITTER * random.random())  # noqa: S311 - jitter is no secret
        return self._feed.pause(failures)
