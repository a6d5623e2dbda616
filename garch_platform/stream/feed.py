"""One connection to the stream: alpaca-py's own client, with errors that are raised and a loop that ends.

alpaca-py's ``StockDataStream`` speaks the protocol. Its endless loop, which repeats a refused key for ever,
is not used: `BarFeed` opens one connection and follows it until it breaks, and the caller decides what
comes next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from garch_platform.errors import StreamError
from garch_platform.rest.recycler_run import RUN_HEADER
from garch_platform.rest.socket_log import socket_log
from garch_platform.stream.endpoint import Endpoint

__all__ = ["BarFeed", "FeedError", "MalformedFrame"]

logger = logging.getLogger(__name__)

Receive = Callable[[Mapping[str, Any]], Awaitable[None]]

HANDSHAKE_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 2.0
LARGEST_MESSAGE: Final = 16 * 2**20
FRAMES_AHEAD: Final = 64
CONNECTION_LIMIT: Final = 406
CODES: Final = {
    "not authenticated": 401,
    "auth failed": 402,
    "auth timeout": 404,
    "connection limit exceeded": CONNECTION_LIMIT,
    "insufficient subscription": 409,
}
"""Codes of the texts that alpaca-py makes its errors of while it authenticates."""
HANDSHAKE_CODES: Final = {401: 402, 403: 402, 429: CONNECTION_LIMIT}
"""Codes of the stream for a handshake that is refused over HTTP."""
REMEDIES: Final = {
    402: "set {variables} to the credentials that the server knows",
    405: "follow fewer symbols (websocket.symbols), or raise the limit of the account",
    409: "websocket.feed is {feed!r}, which the account's plan does not include; use iex",
    410: "websocket.feed {feed!r} does not serve bars; use iex or sip",
}


class FeedError(Exception):
    """The server refused, or the connection broke, in a way that may pass.

    Args:
        message: what happened.
        code: Alpaca's, where it gave one.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_connection_limit(self) -> bool:
        """Whether another client holds the account's connection."""
        return self.code == CONNECTION_LIMIT


class MalformedFrame(FeedError):
    """A frame that cannot be decoded; the connection itself stands."""


class BarFeed:
    """The bars, updated bars and daily bars of ``symbols`` over one WebSocket at a time.

    Args:
        endpoint: where to connect.
        symbols: that are subscribed to.
        receive: is given every message with a bar in it, as decoded.
    """

    def __init__(self, endpoint: Endpoint, symbols: Sequence[str], receive: Receive) -> None:
        self.endpoint = endpoint
        self.symbols = list(symbols)
        self.subscribed: list[str] = []
        """Symbols whose bars the server has acknowledged on this connection."""
        self.run: str | None = None
        """The run of a recycler that this connection leads to; null in mode alpaca."""
        self.heard: Callable[[], None] = lambda: None
        """Called with every message, whatever it is."""
        self._receive = receive
        self._stream = _stream(endpoint, self.symbols, self._dispatched)

    async def open(self) -> None:
        """Connect, authenticate and subscribe.

        Raises:
            StreamError: the server refused for good; the message names what to change.
            FeedError: it cannot be reached, or refused for now.
        """
        self.subscribed = []
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await self._stream.start()
                self.run = self._stream.header(RUN_HEADER)
        except self._stream.errors as error:
            raise self._refused(error, _handshake_status(error)) from error
        except (OSError, TimeoutError, EOFError) as error:
            raise FeedError(f"{self.endpoint.stream_url} cannot be reached: {_text(error)}") from error
        except (ValueError, TypeError, LookupError) as error:
            raise self._refused(error, CODES.get(str(error))) from error

    async def follow(self) -> None:
        """Give every message to ``receive`` until the connection breaks.

        Raises:
            StreamError: the server refused for good.
            FeedError: the connection broke, or the server said why it will.
        """
        try:
            await self._stream.consume()
        except (self._stream.errors, OSError, EOFError) as error:
            raise FeedError(f"{self.endpoint.stream_url} broke off: {_text(error)}") from error
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise MalformedFrame(
                f"a frame of {self.endpoint.stream_url} cannot be decoded: {error}"
            ) from error

    def pause(self, failures: int) -> float:
        """Seconds before the next connection after ``failures`` in a row: 1, 2, 4 … 30, with jitter."""
        return float(self._stream.pause(failures))

    async def close(self) -> None:
        """Close the connection; a peer that does not answer is not waited for."""
        self.subscribed = []
        await self._stream.shut(CLOSE_SECONDS)

    def _refused(self, error: Exception, code: int | None) -> Exception:
        if code is None:
            return FeedError(f"{self.endpoint.stream_url} does not greet: {_text(error)}")
        return self._error(code, _text(error))

    def _error(self, code: int, text: str) -> Exception:
        message = f"{self.endpoint.stream_url} says {code} {text}"
        remedy = REMEDIES.get(code)
        if remedy is None:
            return FeedError(message, code)
        variables = "GARCH_RECYCLER_KEY and GARCH_RECYCLER_SECRET"
        if not self.endpoint.is_recycler:
            variables = "APCA_API_KEY_ID and APCA_API_SECRET_KEY"
        return StreamError(f"{message}; {remedy.format(variables=variables, feed=self.endpoint.feed)}")

    async def _dispatched(self, message: Mapping[str, Any]) -> None:
        self.heard()
        match message.get("T"):
            case "subscription":
                self.subscribed = list(message.get("bars") or [])
            case "error":
                raise self._error(int(message.get("code") or 0), str(message.get("msg")))
            case "b" | "u" | "d":
                await self._receive(message)


def _handshake_status(error: Exception) -> int | None:
    status = getattr(error, "status_code", None)
    return HANDSHAKE_CODES.get(status) if isinstance(status, int) else None


def _text(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _parameters(endpoint: Endpoint) -> dict[str, Any]:
    """Of the library's connection."""
    context = endpoint.tls_context()
    return {
        "ping_interval": 20,
        "ping_timeout": 20,
        "close_timeout": CLOSE_SECONDS,
        "max_size": LARGEST_MESSAGE,
        "max_queue": FRAMES_AHEAD,
        "logger": socket_log(__name__),
        **({} if context is None else {"ssl": context}),
    }


def _stream(endpoint: Endpoint, symbols: Sequence[str], dispatched: Receive) -> Any:
    """alpaca-py's client whose messages all come to ``dispatched``."""
    from alpaca.data.live import StockDataStream
    from alpaca.data.live import websocket as transport

    library: Any = transport

    class Stream(StockDataStream):
        errors = library.websockets.WebSocketException

        async def start(self) -> None:
            await self._start_ws()
            await self._send_subscribe_msg()

        def header(self, name: str) -> str | None:
            socket: Any = self._ws
            value: str | None = socket.response_headers.get(name)
            return value

        async def consume(self) -> None:
            await self._consume()

        def pause(self, failures: int) -> float:
            return self._reconnect_delay(failures)

        async def shut(self, seconds: float) -> None:
            socket: Any = self._ws
            if socket is None:
                return
            try:
                async with asyncio.timeout(seconds):
                    await self.close()
            except (OSError, TimeoutError):
                logger.debug("%s did not close; its socket is abandoned", endpoint.stream_url)
            finally:
                if socket.transport is not None:
                    socket.transport.abort()
                self._ws = None

        async def _dispatch(self, msg: Any) -> None:
            await dispatched(msg)

    stream = Stream(
        endpoint.key.get_secret_value(),
        endpoint.secret.get_secret_value(),
        raw_data=True,
        websocket_params=_parameters(endpoint),
        url_override=endpoint.stream_url,
    )
    subscriptions: list[Any] = [stream.subscribe_bars, stream.subscribe_updated_bars]
    if endpoint.has_daily_bars:
        subscriptions.append(stream.subscribe_daily_bars)
    for subscribe in subscriptions:
        subscribe(dispatched, *symbols)
    return stream
