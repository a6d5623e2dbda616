"""What waits for one client: its socket first, then a bounded queue.

Frames go straight to the transport while it takes them. Once its buffer is above the high-water mark they
queue, and follow when the client has read down to the low-water mark. Frames of one group of clients are
the same object in all queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from garch_platform.recycler.wire import Codec, error

__all__ = ["HANDSHAKE_SECONDS", "WRITE_LIMITS", "Backlog", "Outbox", "StreamConnection"]

HANDSHAKE_SECONDS: Final = 10.0
"""From the connection to the end of its request; the answer of bars may take longer."""
WRITE_LIMITS: Final = (256 * 1024, 64 * 1024)
"""High- and low-water mark of a transport's buffer, in bytes."""
SEND_BUFFER: Final = 256 * 1024
"""Bytes that the kernel may hold for one client: by default it would take many megabytes of a stalled one."""
FAREWELL_SECONDS: Final = 0.5
"""For each of the attempts to tell a slow client that it is one."""


class StreamConnection(ServerConnection):
    """A connection whose outbox goes on when its socket does."""

    outbox: Outbox | None = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what the kernel holds for this client, and the time for its request."""
        raw = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HANDSHAKE_SECONDS, self.transport.abort)

    def request_has_come(self) -> None:
        """The client has sent its request whole; from here on it waits for the server."""
        if self._deadline is not None:
            self._deadline.cancel()

    def pause_writing(self) -> None:
        """The transport's buffer is above its high-water mark."""
        super().pause_writing()
        if self.outbox is not None:
            self.outbox.paused()

    def resume_writing(self) -> None:
        """The transport's buffer is below its low-water mark."""
        super().resume_writing()
        if self.outbox is not None:
            self.outbox.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing waits for a client that is gone."""
        self.request_has_come()
        if self.outbox is not None:
            self.outbox.discard()
        super().connection_lost(exc)


class Backlog:
    """The outboxes that clients have not read down."""

    def __init__(self) -> None:
        self._outboxes: set[Outbox] = set()
        self._stirred = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._outboxes)

    def add(self, outbox: Outbox) -> None:
        """The client of ``outbox`` has to read first."""
        self._outboxes.add(outbox)

    def discard(self, outbox: Outbox) -> None:
        """It has, or is gone."""
        self._outboxes.discard(outbox)
        self.stir()

    def stir(self) -> None:
        """End a `wait`: something has changed."""
        self._stirred.set()

    async def wait(self, seconds: float) -> None:
        """Until something changes, at most ``seconds``."""
        self._stirred.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()


class Outbox:
    """The way to one client.

    Args:
        connection: of the client, open.
        codec: that it asked for.
        limit: bytes that may wait before the client counts as slow.
        backlog: that it stands in while the client has not read down.
        on_full: called with the outbox when more waits than the limit allows.
    """

    def __init__(
        self,
        connection: StreamConnection,
        codec: Codec,
        *,
        limit: int,
        backlog: Backlog,
        on_full: Callable[[Outbox], None],
    ) -> None:
        self.connection = connection
        self.codec = codec
        self.limit = limit
        self.is_closing = False
        self._backlog = backlog
        self._on_full = on_full
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._written = 0
        self._taken = 0
        self._taken_at = asyncio.get_running_loop().time()
        self._behind_since: float | None = None
        connection.outbox = self

    @property
    def transport(self) -> Any:
        """Of the socket."""
        return self.connection.transport

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._queued + int(self.transport.get_write_buffer_size())

    @property
    def is_full(self) -> bool:
        """Whether more waits than the limit allows."""
        return self.pending > self.limit

    def write(self, frames: bytes) -> None:
        """Send complete frames, now or when the client has read those before."""
        connection = self.connection
        if self.is_closing or connection.protocol.state is not State.OPEN:
            return
        if self._queue or connection.paused:
            self._queue.append(frames)
            self._queued += len(frames)
            if self._queued > self.limit:
                self._on_full(self)
            return
        self._written += len(frames)
        connection.transport.write(frames)

    def paused(self) -> None:
        """The socket takes no more for now."""
        if not self.is_closing:
            self._backlog.add(self)
            if self._behind_since is None:
                self._behind_since = asyncio.get_running_loop().time()

    def resumed(self) -> None:
        """The socket takes frames again: send those that wait."""
        while self._queue and not self.connection.paused:
            frames = self._queue.popleft()
            self._queued -= len(frames)
            self._written += len(frames)
            self.connection.transport.write(frames)
        if not self.connection.paused:
            self._behind_since = None
            self._backlog.discard(self)

    def discard(self) -> None:
        """Forget what waits."""
        self.is_closing = True
        self._queue.clear()
        self._queued = 0
        self._backlog.discard(self)

    def stalled_for(self, now: float) -> float:
        """Seconds since the client last took a byte of those that wait for it."""
        taken = self._written - int(self.transport.get_write_buffer_size())
        if taken > self._taken or not self.pending:
            self._taken, self._taken_at = taken, now
        return now - self._taken_at

    def behind_for(self, now: float) -> float:
        """Seconds since the client last had read down to the low-water mark, 0 if it has."""
        return 0.0 if self._behind_since is None else now - self._behind_since

    async def cut_off(self) -> None:
        """Tell a slow client so with error 407 and a close frame, briefly, and end the connection.

        Closing in the orderly way alone would wait for a peer that does not read.
        """
        self.discard()
        farewell = self.codec.payload([self.codec.encode(error(407))])
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.connection.send(farewell, text=self.codec.name == "json")
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.connection.close(CloseCode.POLICY_VIOLATION, "slow client")
        self.transport.abort()
