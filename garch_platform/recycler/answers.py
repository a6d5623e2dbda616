"""Answers to plain HTTP: status, proxies and bars; and who may go on to a WebSocket.

A web page in a browser may reach the loopback interface as well as its user. Its requests are refused: they
carry an ``Origin``, or, where its own name was made to point here, a ``Host`` that is not the server's.
Alpaca's own clients send neither.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from garch_platform.errors import GarchPlatformError
from garch_platform.recycler.control import CONTROL_PATH
from garch_platform.recycler.replay import Replay
from garch_platform.recycler.rest import BadRequest, bars_page
from garch_platform.recycler.session import Credentials
from garch_platform.recycler.wire import rfc3339

__all__ = ["ANSWER_SECONDS", "KNOWN_FEEDS", "Answers", "json_text"]

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 60.0
"""That a page of bars may take, the wait for its turn included."""
READERS: Final = 2
"""Pages of bars that are read at a time."""
KNOWN_FEEDS: Final = ("iex", "sip", "test", "delayed_sip")
STREAM_PATHS: Final = frozenset(f"/v2/{feed}" for feed in KNOWN_FEEDS)
STATUS_PATH: Final = "/recycler/status"
PROXIES_PATH: Final = "/recycler/proxies"
BARS_PATH: Final = re.compile(r"/v2/stocks/(?:(?P<symbol>[^/]+)/)?bars")


def json_text(content: object) -> str:
    """``content`` as JSON, its times in RFC 3339."""
    return json.dumps(content, default=rfc3339, separators=(",", ":"))


class Answers:
    """What the server says to a request before, or instead of, a WebSocket.

    Args:
        replay: that gives bars and proxies.
        credentials: that a request must bring, but for the stream, which asks for them itself.
        status: of the server.
        hosts: names by which the server may be called; None = any.
    """

    def __init__(
        self,
        replay: Replay,
        credentials: Credentials,
        status: Callable[[], dict[str, Any]],
        *,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._replay = replay
        self._credentials = credentials
        self._status = status
        self._hosts = hosts
        self._readers = asyncio.Semaphore(READERS)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Keep no client waiting any more."""
        self._stopping.set()

    async def answer(self, request: Request) -> Response | None:
        """The response to ``request``; None lets the WebSocket handshake go on."""
        path, query = urlsplit(request.path).path, urlsplit(request.path).query
        if "Origin" in request.headers:
            return _json(HTTPStatus.FORBIDDEN, {"message": "requests of web pages (Origin) are not served"})
        if self._hosts is not None and _called(request.headers) not in self._hosts:
            text = f"the server is not called so (Host); use {' or '.join(sorted(self._hosts))}"
            return _json(HTTPStatus.FORBIDDEN, {"message": text})
        if path in STREAM_PATHS:
            return None
        bars = BARS_PATH.fullmatch(path)
        if not (bars or path in (CONTROL_PATH, STATUS_PATH, PROXIES_PATH)):
            return _json(HTTPStatus.NOT_FOUND, {"message": f"{path} is not served"})
        if not self._credentials.match_headers(request.headers):
            return _json(HTTPStatus.UNAUTHORIZED, {"message": "unauthorized."})
        if path == CONTROL_PATH:
            return None
        if request.method != "GET":
            return _json(HTTPStatus.METHOD_NOT_ALLOWED, {"message": "only GET is served"})
        if path == STATUS_PATH:
            return _json(HTTPStatus.OK, self._status())
        if path == PROXIES_PATH:
            return _json(HTTPStatus.OK, self._replay.proxies())
        return await self._bars(query, bars["symbol"] if bars else None)

    async def _bars(self, query: str, symbol: str | None) -> Response:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                page = await self._read(lambda: json_text(bars_page(self._replay, query, symbol=symbol)))
        except BadRequest as refusal:
            return _json(HTTPStatus.BAD_REQUEST, {"code": 40010000, "message": str(refusal)})
        except GarchPlatformError as fault:
            logger.error("bars that were replayed cannot be read again: %s", fault)
            return _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"code": 50010000, "message": str(fault)})
        except TimeoutError:
            text = f"no answer within {ANSWER_SECONDS:g} s; ask for fewer symbols or a shorter time"
            return _json(HTTPStatus.GATEWAY_TIMEOUT, {"code": 50410000, "message": text})
        if page is None:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"code": 50310000, "message": "the recycler stops"})
        return _json(HTTPStatus.OK, page)

    async def _read(self, read: Callable[[], str]) -> str | None:
        """``read`` in a thread, whose place is free again when it has ended; None when the server stops."""
        await self._readers.acquire()
        if self._stopping.is_set():
            self._readers.release()
            return None
        reading = asyncio.get_running_loop().run_in_executor(None, read)
        reading.add_done_callback(self._ended)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        return reading.result() if reading.done() else None

    def _ended(self, reading: asyncio.Future[str]) -> None:
        self._readers.release()
        if not reading.cancelled():
            reading.exception()


def _called(headers: Headers) -> str | None:
    """The name of ``Host``, without its port."""
    try:
        return urlsplit(f"//{','.join(headers.get_all('Host'))}").hostname
    except ValueError:
        return None


def _json(status: HTTPStatus, content: object) -> Response:
    """A response with ``content`` as JSON, or as it is where it is JSON already."""
    body = (content if isinstance(content, str) else json_text(content)).encode()
    headers = Headers()
    headers["Content-Type"] = "application/json; charset=UTF-8"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)
