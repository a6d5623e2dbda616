"""Alpaca's REST servers on the loopback interface: market data, corporate actions, assets, and their faults.

They page, limit and refuse as the real ones do: all symbols of a page count together, symbols come in
alphabetical order, times are RFC 3339, an absent symbol is simply missing.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

from garch_platform.rest.alpaca import ALPACA, AlpacaAccess

__all__ = ["KEY", "SECRET", "AlpacaServer", "Answer", "Clock", "access_to", "raw_bar", "serving"]

KEY, SECRET = SecretStr("PKTESTKEY0123456789"), SecretStr("s3cr3t-that-nobody-may-see")

Parameters = dict[str, str]


class Clock:
    """A time that passes only while somebody sleeps."""

    def __init__(self, now: datetime = datetime(2024, 4, 2, 12, tzinfo=UTC)) -> None:
        self.time = now
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += timedelta(seconds=seconds)


@dataclass
class Answer:
    """What is sent instead of the true answer; ``cut`` closes the connection in the middle of the body."""

    status: int = 200
    body: bytes = b'{"message": "internal server error"}'
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def raw_bar(at: str, close: float, **changes: Any) -> dict[str, Any]:
    """One bar as Alpaca writes it."""
    bar = {
        "t": at,
        "o": close - 0.5,
        "h": close + 1,
        "l": close - 1,
        "c": close,
        "v": 1200,
        "n": 9,
        "vw": close,
    }
    return {name: value for name, value in (bar | changes).items() if value is not ...}


@dataclass
class AlpacaServer:
    """What the servers hold, whom they refuse, and what they were asked."""

    bars: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    """By symbol and timeframe."""
    actions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    assets: list[dict[str, Any]] = field(default_factory=list)
    now: Callable[[], datetime] = lambda: datetime(2024, 4, 2, 12, tzinfo=UTC)
    invalid: set[str] = field(default_factory=set)
    """Symbols that Alpaca will not hear of."""
    broken: set[str] = field(default_factory=set)
    """Symbols whose requests end in status 500."""
    has_recent_sip: bool = True
    per_minute: int | None = None
    next: deque[Answer | None] = field(default_factory=deque)
    """Answers to the coming requests; None and afterwards the true ones."""
    always: Answer | None = None
    asked: list[tuple[str, Parameters]] = field(default_factory=list)
    refused: int = 0
    url: str = ""
    _window: tuple[int, int] = (0, 0)

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def answer(self, path: str, asked: Parameters, headers: dict[str, str]) -> Answer:
        self.asked.append((path, asked))
        limits = self._limits()
        if limits.get("X-Ratelimit-Remaining") == "-1":
            self.refused += 1
            limits["X-Ratelimit-Remaining"] = "0"
            return Answer(429, b'{"message": "too many requests."}', limits)
        scripted = self.next.popleft() if self.next else self.always
        if scripted is not None:
            return scripted
        given = (headers.get("APCA-API-KEY-ID"), headers.get("APCA-API-SECRET-KEY"))
        if given != (KEY.get_secret_value(), SECRET.get_secret_value()):
            return Answer(403, b'{"message": "forbidden."}', limits)
        routes = {
            "/v2/stocks/bars": self._bars,
            "/v1/corporate-actions": self._actions,
            "/v2/assets": self._assets,
        }
        status, body = routes[path](asked)
        return Answer(status, json.dumps(body).encode(), limits)

    def _limits(self) -> dict[str, str]:
        """The account's headers; a window of the limit is a minute of the clock."""
        if self.per_minute is None:
            return {}
        minute = int(self.now().timestamp()) // 60
        used = self._window[1] + 1 if self._window[0] == minute else 1
        self._window = (minute, used)
        return {
            "X-Ratelimit-Limit": str(self.per_minute),
            "X-Ratelimit-Remaining": str(max(self.per_minute - used, -1)),
            "X-Ratelimit-Reset": str((minute + 1) * 60),
        }

    def _bars(self, asked: Parameters) -> tuple[int, Any]:
        symbols = sorted(set(asked["symbols"].split(",")))
        if wrong := sorted(self.invalid & set(symbols)):
            return 400, {"message": f"invalid symbol: {wrong[0]}"}
        if self.broken & set(symbols):
            return 500, {"message": "internal server error"}
        start, end = (datetime.fromisoformat(asked[name]) for name in ("start", "end"))
        recent = self.now() - end < timedelta(minutes=15)
        if asked["feed"] == "sip" and recent and not self.has_recent_sip:
            return 403, {"message": "subscription does not permit querying recent SIP data"}
        rows = [
            (symbol, bar)
            for symbol in symbols
            for bar in self.bars.get((symbol, asked["timeframe"]), [])
            if start <= datetime.fromisoformat(bar["t"]) <= end
        ]
        page, token = self._page(rows, asked)
        grouped = groupby(page, key=lambda row: row[0])
        return 200, {"bars": {name: [bar for _, bar in of] for name, of in grouped}, "next_page_token": token}

    def _actions(self, asked: Parameters) -> tuple[int, Any]:
        symbols, kinds = asked["symbols"].split(","), asked["types"].split(",")
        rows = [
            (kind, row)
            for kind, listed in sorted(self.actions.items())
            for row in listed
            if kind.removesuffix("s") in kinds
            and row["symbol"] in symbols
            and asked["start"] <= row["ex_date"] <= asked["end"]
        ]
        page, token = self._page(rows, asked)
        grouped = groupby(page, key=lambda row: row[0])
        found = {kind: [row for _, row in of] for kind, of in grouped}
        return 200, {"corporate_actions": found, "next_page_token": token}

    def _assets(self, asked: Parameters) -> tuple[int, Any]:
        return 200, [row for row in self.assets if row["class"] == asked["asset_class"]]

    @staticmethod
    def _page(rows: list[Any], asked: Parameters) -> tuple[list[Any], str | None]:
        first = int(base64.b64decode(asked.get("page_token", "MA==")))
        last = first + int(asked["limit"])
        token = base64.b64encode(str(last).encode()).decode() if last < len(rows) else None
        return rows[first:last], token


@contextmanager
def serving(server: AlpacaServer) -> Iterator[AlpacaServer]:
    """Serve ``server`` on a free port of the loopback interface; its ``url`` is set."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            answer = server.answer(address.path, dict(parse_qsl(address.query)), dict(self.headers))
            self.send_response(answer.status)
            for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
            self.close_connection = answer.cut

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = Thread(target=lambda: listener.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


def access_to(
    server: AlpacaServer,
    clock: Clock,
    *,
    url: str | None = None,
    key: SecretStr | None = KEY,
    secret: SecretStr | None = SECRET,
    **options: Any,
) -> AlpacaAccess:
    """Access to ``server`` (or to ``url``) in the time of ``clock``."""
    asked = replace(ALPACA, url=url or server.url)
    return AlpacaAccess(key, secret, server=asked, sleep=clock.sleep, now=clock.now, **options)
