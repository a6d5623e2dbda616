"""One client of the stream: its session, its outbox and its faults on a socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from garch_platform.recycler.fanout import Fanout, Interest
from garch_platform.recycler.faults import FaultInjector
from garch_platform.recycler.outbox import Outbox, StreamConnection
from garch_platform.recycler.session import Session
from garch_platform.recycler.wire import Message, error

__all__ = ["Client"]

logger = logging.getLogger(__name__)

LONG_MESSAGE: Final = 0.001
"""Seconds of work for one message after which its sender has to wait."""
REST_FACTOR: Final = 9
"""How many times as long it waits: nobody takes more than a tenth of the server with messages."""


class Client:
    """What the server holds of one connection to the stream.

    Args:
        connection: open, on one of the feeds' paths.
        session: that answers.
        outbox: that sends.
        fanout: that fills the outbox.
        served: gives the replay's symbols where the client shall get bars under any symbol, else None.
        injector: of the connection's faults, or None.
        slow_ack_seconds: before every answer.
        auth_seconds: to authenticate in.
    """

    def __init__(
        self,
        connection: StreamConnection,
        session: Session,
        outbox: Outbox,
        fanout: Fanout,
        *,
        served: Callable[[], Sequence[str]] | None = None,
        injector: FaultInjector | None = None,
        slow_ack_seconds: float = 0.0,
        auth_seconds: float = 10.0,
    ) -> None:
        self.session = session
        self.outbox = outbox
        self.connection = connection
        self._fanout = fanout
        self._served = served
        self._injector = injector
        self._slow_ack_seconds = slow_ack_seconds
        self._auth_seconds = auth_seconds
        self._clock: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Converse until the connection ends."""
        request = self.connection.request
        self._answer(self.session.open(request.headers if request else {}))
        self._restart_clock()
        loop = asyncio.get_running_loop()
        try:
            async for data in self.connection:
                if self._slow_ack_seconds:
                    await asyncio.sleep(self._slow_ack_seconds)
                began = loop.time()
                self._receive(data)
                spent = loop.time() - began
                await asyncio.sleep(REST_FACTOR * spent if spent > LONG_MESSAGE else 0)
        except ConnectionClosed as closed:
            logger.debug("a client is gone: %s", closed)
        finally:
            self._stop_clock()
            self._fanout.remove(self.outbox)
            self.outbox.discard()

    def _receive(self, data: str | bytes) -> None:
        before = self.session.subscriptions
        reply = self.session.receive(data)
        if self.session.is_authenticated:
            self._stop_clock()
        elif self.session.was_refused_a_place:
            self._restart_clock()
        if self.session.subscriptions is before:
            self._answer([reply])
            return
        self._fanout.flush()
        self._answer([reply])
        served = self._served() if self._served is not None else None
        interest = Interest.of(self.session.subscriptions, self.outbox.codec, served)
        cut = self.outbox.transport.close
        self._fanout.place(self.outbox, interest, (self._injector, cut) if self._injector else None)

    def _answer(self, messages: Iterable[Message]) -> None:
        if self._injector is None or not self._injector.is_mute:
            self.outbox.write(self.outbox.codec.control(messages))

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _restart_clock(self) -> None:
        self._stop_clock()
        if not self.session.is_authenticated:
            self._clock = asyncio.get_running_loop().call_later(self._auth_seconds, self._expire)

    def _expire(self) -> None:
        self._answer([error(404)])
        closing = self.connection.close(CloseCode.POLICY_VIOLATION, "auth timeout")
        self._closing = asyncio.get_running_loop().create_task(closing)
