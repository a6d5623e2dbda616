"""Commands to a running recycler: status, pause, resume, seek and speed; both ends of them."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException

from garch_platform.errors import GarchPlatformError, StreamError
from garch_platform.recycler.replay import Replay
from garch_platform.recycler.session import KEY_HEADER, SECRET_HEADER
from garch_platform.recycler.wire import decode_request, rfc3339
from garch_platform.rest.socket_log import socket_log
from garch_platform.rest.tls import tls_context

__all__ = ["CONTROL_PATH", "RecyclerControl", "command", "moment_of", "speed_of"]

CONTROL_PATH: Final = "/recycler/control"
ANSWER_SECONDS: Final = 10.0
CERTIFICATE: Final = "websocket.recycler.tls_certificate"
UNAUTHORIZED: Final = 401

Answer = dict[str, Any]


def moment_of(text: str) -> datetime | date:
    """What to seek: a session's date, or a time of the stored bars (UTC unless it says otherwise)."""
    try:
        if len(text) == len("2018-03-01"):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise StreamError(
            f"{text!r} is no moment to seek; write a session as 2018-03-01 or a time as 2018-03-01T14:30:00Z"
        ) from None


def speed_of(value: object) -> float | Literal["max"]:
    """A speed from a command: a positive number of bars a minute, or ``max``."""
    if value == "max":
        return "max"
    try:
        speed = float(cast("str", value))
    except (TypeError, ValueError):
        speed = math.nan
    if isinstance(value, bool) or not 0 < speed < math.inf:
        raise StreamError(f"speed {value!r} is no positive number; write bars a minute, or max")
    return speed


def command(replay: Replay, data: str | bytes) -> str:
    """Carry out one command but ``status`` on ``replay``; an error as its text, else empty."""
    request = decode_request(data) or {}
    try:
        match request:
            case {"action": "status"}:
                pass
            case {"action": "pause"}:
                replay.pause()
            case {"action": "resume"}:
                replay.resume()
            case {"action": "seek", "to": str(to)}:
                replay.seek(moment_of(to))
            case {"action": "speed", "speed": speed}:
                replay.set_speed(speed_of(speed))
            case _:
                return (
                    f"action {request.get('action')!r} is not known or lacks its value; "
                    "send status, pause, resume, seek with to, or speed with speed"
                )
    except GarchPlatformError as refusal:
        return str(refusal)
    return ""


class RecyclerControl:
    """Commands to the recycler that listens at ``url``; each gives its status afterwards.

    Args:
        url: ``ws://host:port`` or ``wss://host:port``.
        key: that the recycler knows.
        secret: the same.
        certificate: PEM file that the server's certificate is checked against, besides the system's.

    Every method blocks until the answer is there, so it is not for an event loop's own thread, and raises
    `StreamError` where nothing listens, the credentials are wrong, the server's certificate is not trusted or the
    command is refused, and `ConfigurationError` where ``certificate`` cannot be read.
    """

    def __init__(
        self, url: str, key: SecretStr, secret: SecretStr, *, certificate: Path | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._secret = secret
        self._certificate = certificate

    def status(self) -> Answer:
        """Where the replay stands."""
        return self._ask({"action": "status"})

    def pause(self) -> Answer:
        """Stop the replay where it is; clients stay connected."""
        return self._ask({"action": "pause"})

    def resume(self) -> Answer:
        """Let it go on."""
        return self._ask({"action": "resume"})

    def seek(self, moment: datetime | date | str) -> Answer:
        """Go on at a time of the stored bars, or at the begin of a session."""
        if isinstance(moment, datetime):
            moment = rfc3339(moment)
        return self._ask({"action": "seek", "to": str(moment)})

    def speed(self, speed: float | Literal["max"]) -> Answer:
        """Bars a minute from now on, or ``max``."""
        return self._ask({"action": "speed", "speed": speed})

    @property
    def _is_secure(self) -> bool:
        return urlsplit(self.url).scheme == "wss"

    def _ask(self, request: Answer) -> Answer:
        try:
            answer = asyncio.run(self._asked(request))
        except InvalidStatus as refusal:
            raise self._refused(refusal.response.status_code) from None
        except InvalidHandshake as wrong:
            raise StreamError(
                f"{self.url} is no recycler ({wrong}); check websocket.recycler.server_url"
            ) from None
        except ssl.SSLError as wrong:
            raise self._untrusted(wrong) from None
        except (OSError, TimeoutError, WebSocketException) as absent:
            raise StreamError(
                f"no recycler answers at {self.url} ({str(absent) or type(absent).__name__}); "
                "start one with `garch recycle`, or correct websocket.recycler.server_url"
            ) from None
        if "error" in answer:
            raise StreamError(str(answer["error"]))
        return answer

    async def _asked(self, request: Answer) -> Answer:
        """One question on a connection of its own.

        Not by the library's threaded client: it reads and writes one TLS socket from two threads, which
        OpenSSL does not allow, and now and then hung.
        """
        headers = {
            KEY_HEADER: self._key.get_secret_value(),
            SECRET_HEADER: self._secret.get_secret_value(),
        }
        context = tls_context(self._certificate, CERTIFICATE) if self._is_secure else None
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            connect(
                f"{self.url}{CONTROL_PATH}",
                additional_headers=headers,
                ssl=context,
                proxy=None,
                logger=socket_log(__name__),
            ) as connection,
        ):
            await connection.send(json.dumps(request))
            answer: Answer = json.loads(await connection.recv())
            return answer

    def _refused(self, status: int) -> StreamError:
        if status == UNAUTHORIZED:
            return StreamError(
                f"the recycler at {self.url} refused the credentials; "
                "set GARCH_RECYCLER_KEY and GARCH_RECYCLER_SECRET to those that it was started with"
            )
        return StreamError(f"{self.url} is no recycler (HTTP {status}); check websocket.recycler.server_url")

    def _untrusted(self, error: ssl.SSLError) -> StreamError:
        if isinstance(error, ssl.SSLCertVerificationError):
            given = "" if self._certificate is None else f", which is {self._certificate}"
            return StreamError(
                f"the certificate of {self.url} is not trusted ({error.verify_message}); {CERTIFICATE}{given}: "
                "give the PEM file that the recycler has, for the host that the address names"
            )
        return StreamError(
            f"{self.url} speaks no TLS that is understood here ({error.reason or error}); "
            "correct websocket.recycler.server_url"
        )
