"""A stand-in for Alpaca's stream that says exactly what a test wants: control messages, bars, updated bars."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

import msgpack
from websockets.asyncio.server import Server, ServerConnection, serve


def wire_bar(kind: str, symbol: str, moment: datetime, close: float, volume: int = 100) -> dict[str, Any]:
    """A bar as Alpaca sends it."""
    prices = {"o": 1.0, "h": 200.0, "l": 0.5, "c": close, "v": volume, "n": 3, "vw": 1.25}
    return {"T": kind, "S": symbol, **prices, "t": msgpack.Timestamp.from_datetime(moment)}


class AlpacaStream:
    """Greets, takes any credentials, acknowledges, then sends what `say` is given.

    Args:
        refusals: answers to the first connections' authentication: an error code each.
        after_subscribe: an error code that follows the acknowledgement.
    """

    def __init__(self, refusals: Sequence[int] = (), after_subscribe: int | None = None) -> None:
        self.refusals = list(refusals)
        self.after_subscribe = after_subscribe
        self.subscriptions: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.connections = 0
        self._open: set[ServerConnection] = set()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(self._converse, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where clients connect."""
        assert self._server is not None
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/v2/iex"

    async def say(self, *messages: dict[str, Any]) -> None:
        """Send one frame to every subscribed client; wait for the first."""
        while not self._open:  # noqa: ASYNC110 - the client knows that it is subscribed before this side does
            await asyncio.sleep(0.005)
        for connection in self._open:
            await connection.send(msgpack.packb(list(messages)))

    async def cut(self) -> None:
        """Break every connection."""
        for connection in list(self._open):
            connection.transport.abort()
        self._open.clear()

    async def _converse(self, connection: ServerConnection) -> None:
        self.connections += 1

        async def send(**message: Any) -> None:
            await connection.send(msgpack.packb([message]))

        await send(T="success", msg="connected")
        self.keys.append(msgpack.unpackb(await connection.recv())["key"])
        if self.refusals:
            code = self.refusals.pop(0)
            await send(T="error", code=code, msg=TEXTS[code])
            await connection.wait_closed()
            return
        await send(T="success", msg="authenticated")
        asked = msgpack.unpackb(await connection.recv())
        self.subscriptions.append(asked)
        await send(
            T="subscription", **{key: asked.get(key, []) for key in ("bars", "updatedBars", "dailyBars")}
        )
        if self.after_subscribe is not None:
            await send(T="error", code=self.after_subscribe, msg=TEXTS[self.after_subscribe])
        self._open.add(connection)
        try:
            await connection.wait_closed()
        finally:
            self._open.discard(connection)


TEXTS = {
    402: "auth failed",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
}
