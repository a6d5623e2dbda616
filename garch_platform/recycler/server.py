"""The recycler's server: one port for the stream, the REST bars behind it, and its control.

========================  =======================================================================
``/v2/iex`` ``/v2/sip``   the stream; both carry the same bars
``/v2/test``              the stream; any symbol gets bars, ``FAKEPACA`` as well
``/v2/stocks/bars``       HTTP: bars that were replayed (also ``/v2/stocks/SYMBOL/bars``)
``/recycler/status``      HTTP: the replay and its clients
``/recycler/proxies``     HTTP: when which symbol stood in for another
``/recycler/control``     WebSocket: status, pause, resume, seek, speed
========================  =======================================================================

Every answer, that of a handshake too, names the run of the server in ``Recycler-Run``: of another run neither
stamps nor proxies are known.

At a set speed a tick goes out when it is due, whoever is slow. At speed ``max`` the next one is drawn when
somebody is subscribed and every client has read down to the low-water mark. A client that takes nothing for
``stall_seconds``, or lets the others wait for as long, or for which more than ``queue_megabytes`` wait, is cut
off with error 407.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets as randomness
import ssl
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, Self
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from garch_platform.errors import ConfigurationError, StreamError
from garch_platform.recycler.answers import ANSWER_SECONDS, Answers, json_text
from garch_platform.recycler.client import Client
from garch_platform.recycler.clock import MAX
from garch_platform.recycler.control import CONTROL_PATH, command
from garch_platform.recycler.fanout import Fanout
from garch_platform.recycler.faults import FaultInjector, are_on
from garch_platform.recycler.outbox import (
    HANDSHAKE_SECONDS,
    WRITE_LIMITS,
    Backlog,
    Outbox,
    StreamConnection,
)
from garch_platform.recycler.replay import Replay
from garch_platform.recycler.session import Credentials, Session
from garch_platform.recycler.wire import codec_for, error
from garch_platform.rest.recycler_run import RUN_HEADER
from garch_platform.rest.socket_log import socket_log
from garch_platform.settings.live import LOOPBACK, Recycler, Secrets

__all__ = ["FEEDS", "RecyclerServer"]

logger = logging.getLogger(__name__)

FEEDS: Final = ("iex", "sip", "test")
TEST_FEED: Final = "test"
MEBIBYTE: Final = 1024 * 1024
MESSAGE_BYTES: Final = MEBIBYTE
MESSAGE_FRAGMENTS: Final = 64
KEEPALIVE_SECONDS: Final = 20.0
CLOSE_SECONDS: Final = 1.0
BACKLOG: Final = 1024
CHECKS_PER_STALL: Final = 4
POLL_SECONDS: Final = 0.05
HALF_A_MINUTE: Final = 30.0


def _tls(settings: Recycler) -> ssl.SSLContext | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as fault:
        raise ConfigurationError(
            f"tls_certificate {settings.tls_certificate} and tls_key {settings.tls_key} cannot be used ({fault}); "
            "give a PEM certificate and its unencrypted PEM key"
        ) from None
    return context


def _cannot_listen(host: str, port: int, refusal: OSError) -> StreamError:
    if refusal.errno == errno.EADDRINUSE:
        remedy = "another program listens there; stop it, or change websocket.recycler.server_url"
    else:
        remedy = f"{refusal.strerror}; change websocket.recycler.server_url"
    return StreamError(f"the recycler cannot listen at {host}:{port}: {remedy}")


class RecyclerServer:
    """Serves a replay to any number of clients.

    Args:
        replay: that gives the ticks.
        settings: ``websocket.recycler``.
        secrets: with the recycler's key and secret.
        feeds: that clients may use; another of Alpaca's feeds gives error 409.
        port: in place of the settings'; 0 takes a free one.
        auth_seconds: that a client has to authenticate in.

    Raises:
        ConfigurationError: other machines could reach it with the credentials that everybody knows, or
            the certificate cannot be read.
    """

    def __init__(
        self,
        replay: Replay,
        settings: Recycler,
        secrets: Secrets,
        *,
        feeds: tuple[str, ...] = FEEDS,
        port: int | None = None,
        auth_seconds: float = 10.0,
    ) -> None:
        if secrets.recycler_is_default and not settings.is_loopback:
            raise ConfigurationError(
                f"{settings.server_url} can be reached by other machines, and key or secret are the default; "
                "set GARCH_RECYCLER_KEY and GARCH_RECYCLER_SECRET, or listen at ws://127.0.0.1"
            )
        self.replay = replay
        self.host = settings.host
        self.port = settings.port if port is None else port
        self._settings = settings
        self._credentials = Credentials(secrets.garch_recycler_key, secrets.garch_recycler_secret)
        self._feeds = feeds
        self._auth_seconds = auth_seconds
        self._tls = _tls(settings)
        self._run = randomness.token_hex(8)
        self._fanout = Fanout()
        self._backlog = Backlog()
        self._clients: set[Client] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._numbers = 0
        self._places = 0
        self._cut_off = 0
        self._server: Server | None = None
        self._playing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        hosts = LOOPBACK if settings.is_loopback else None
        self._answers = Answers(replay, self._credentials, self.status, hosts=hosts)

    @property
    def url(self) -> str:
        """Where clients connect, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self._tls else 'ws'}://{host}:{self.port}"

    async def start(self) -> None:
        """Listen, and let the replay run.

        Raises:
            StreamError: the address cannot be listened at.
        """
        try:
            self._server = await serve(
                self._converse,
                self.host,
                self.port,
                process_request=self._request,
                process_response=self._name_run,
                create_connection=StreamConnection,
                compression=None,
                ssl=self._tls,
                open_timeout=HANDSHAKE_SECONDS + ANSWER_SECONDS,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
                ping_interval=KEEPALIVE_SECONDS,
                ping_timeout=KEEPALIVE_SECONDS,
                close_timeout=CLOSE_SECONDS,
                max_size=MESSAGE_BYTES,
                max_queue=MESSAGE_FRAGMENTS,
                write_limit=WRITE_LIMITS,
                server_header=None,
                backlog=BACKLOG,
                logger=socket_log(__name__),
            )
        except OSError as refusal:
            raise _cannot_listen(self.host, self.port, refusal) from None
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self._playing = asyncio.create_task(self._play())
        self._playing.add_done_callback(self._played)
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Close all connections and the port; clients that do not read are dropped."""
        self._answers.stop()
        tasks = [task for task in (self._playing, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fanout.settle()
        await asyncio.gather(*(self._dismiss(client) for client in list(self._clients)))
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def finished(self) -> None:
        """Wait for the end of the replay; raises what made it fail. The server goes on without it."""
        if self._playing is not None:
            await asyncio.shield(self._playing)

    def status(self) -> dict[str, Any]:
        """The replay's status, and the server's: address, clients, deliveries."""
        playing = self._playing
        return {
            **self.replay.status(),
            "url": self.url,
            "ended": playing is not None and playing.done(),
            "clients": self._places,
            "delivered": self._fanout.delivered,
            "cut_off": self._cut_off,
        }

    async def _play(self) -> None:
        ticks = self.replay.ticks()
        try:
            await self._hold_back()
            async for tick in ticks:
                if self._fanout.send(tick, self._half_a_bar()):
                    await asyncio.sleep(0)
                await self._hold_back()
        finally:
            if isinstance(ticks, AsyncGenerator):
                await ticks.aclose()
        self._fanout.finish()
        logger.info("the replay has ended; the server stays until it is stopped")

    def _played(self, playing: asyncio.Task[None]) -> None:
        """Tell the clients if the replay has failed; `finished` tells the owner."""
        failure = None if playing.cancelled() else playing.exception()
        if failure is not None:
            logger.error("the replay has failed: %s", failure)
            for client in self._clients:
                client.outbox.write(client.outbox.codec.control([error(500)]))

    async def _hold_back(self) -> None:
        """At speed max, wait for somebody to listen and for everybody to have read."""
        while (self._backlog or not self._fanout.has_listeners) and self._is_max():
            await self._backlog.wait(POLL_SECONDS)

    def _is_max(self) -> bool:
        return self.replay.speed == MAX

    def _half_a_bar(self) -> float:
        """Seconds; at speed max none."""
        speed = self.replay.speed
        return 0.0 if speed == MAX else HALF_A_MINUTE / float(speed)

    async def _watch(self) -> None:
        """Find the clients that do not read."""
        loop = asyncio.get_running_loop()
        stall_seconds = self._settings.stall_seconds
        while True:
            await asyncio.sleep(stall_seconds / CHECKS_PER_STALL)
            now, is_waited_for = loop.time(), bool(self._backlog) and self._is_max()
            for client in self._clients:
                outbox = client.outbox
                slow_for = outbox.behind_for(now) if is_waited_for else 0.0
                if outbox.is_full or max(outbox.stalled_for(now), slow_for) > stall_seconds:
                    self._cut(outbox)

    def _cut(self, outbox: Outbox) -> None:
        if outbox.is_closing:
            return
        outbox.discard()
        self._cut_off += 1
        logger.warning("a client at %s does not read: cut off (407)", outbox.connection.remote_address)
        self._spawn(outbox.cut_off())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _claim(self) -> bool:
        limit = self._settings.connection_limit
        if limit is not None and self._places >= limit:
            return False
        self._places += 1
        return True

    async def _converse(self, connection: ServerConnection) -> None:
        if not isinstance(connection, StreamConnection) or connection.request is None:
            return
        path = urlsplit(connection.request.path).path
        if path == CONTROL_PATH:
            await self._obey(connection)
            return
        client = self._client(connection, path.rpartition("/")[2])
        self._clients.add(client)
        try:
            await client.run()
        finally:
            self._clients.discard(client)
            self._places -= client.session.is_authenticated

    def _client(self, connection: StreamConnection, feed: str) -> Client:
        settings = self._settings
        request = connection.request
        content_types = request.headers.get_all("Content-Type") if request else []
        codec = codec_for(next(iter(content_types), None))
        session = Session(
            self._credentials,
            is_served=feed in self._feeds,
            claim=self._claim,
            symbols=self.replay.symbols,
            symbol_limit=settings.symbol_limit,
        )
        limit = int(settings.queue_megabytes * MEBIBYTE)
        outbox = Outbox(connection, codec, limit=limit, backlog=self._backlog, on_full=self._cut)
        number, self._numbers = self._numbers, self._numbers + 1
        return Client(
            connection,
            session,
            outbox,
            self._fanout,
            served=self.replay.symbols if feed == TEST_FEED else None,
            injector=FaultInjector(settings.faults, number) if are_on(settings.faults) else None,
            slow_ack_seconds=settings.faults.slow_ack_seconds,
            auth_seconds=self._auth_seconds,
        )

    async def _obey(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for data in connection:
                refusal = command(self.replay, data)
                answer = {"error": refusal} if refusal else self.status()
                await connection.send(json_text(answer))

    @staticmethod
    async def _dismiss(client: Client) -> None:
        client.outbox.discard()
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.connection.close(CloseCode.GOING_AWAY)
        client.outbox.transport.abort()

    def _name_run(self, _: ServerConnection, __: Request, response: Response) -> None:
        response.headers[RUN_HEADER] = self._run

    async def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        if isinstance(connection, StreamConnection):
            connection.request_has_come()
        return await self._answers.answer(request)
