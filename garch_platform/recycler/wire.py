"""Alpaca's market-data stream v2 in bytes: JSON text or MessagePack, and the frames that carry it.

Every message of the server is an array. Control messages come alone in theirs, bars in any number. The
client chooses the codec with the ``Content-Type`` of its handshake, ``application/msgpack`` or JSON.

Three things that clients depend on: in MessagePack the key ``T`` comes first and times are the extension
type −1; ``v`` and ``n`` are integers (``v`` is a float only where the volume has a fraction); and ``n``
and ``vw`` are always there. Where the store has none they are null: alpaca-py refuses a bar without the
keys and takes null for none, as does Alpaca's client for Node.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgpack
from websockets.frames import Frame, Opcode

from garch_platform.recycler.tick import Bar

__all__ = [
    "ERRORS",
    "JSON",
    "MSGPACK",
    "Codec",
    "Message",
    "bar_fields",
    "codec_for",
    "decode_request",
    "error",
    "rfc3339",
    "success",
]

Kind = Literal["b", "u", "d"]
Message = Mapping[str, Any]

ERRORS: Final[dict[int, str]] = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    500: "internal error",
}
"""Alpaca's codes and their texts."""

EXACT_INTEGERS: Final = 2.0**53
FRAME_ELEMENTS: Final = 2_000
"""Bars a frame, about 300 kB: Alpaca's Python client closes the socket at a message over 1 MiB."""


def success(text: Literal["connected", "authenticated"]) -> Message:
    """The control message of a step that went well."""
    return {"T": "success", "msg": text}


def error(code: int) -> Message:
    """The control message of one of `ERRORS`."""
    return {"T": "error", "code": code, "msg": ERRORS[code]}


def rfc3339(moment: datetime) -> str:
    """``moment`` as Alpaca writes it: UTC, a Z at the end, fractions only where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _volume(value: float) -> float:
    return int(value) if abs(value) < EXACT_INTEGERS and value == int(value) else value


def bar_fields(bar: Bar, moment: object) -> dict[str, Any]:
    """The keys of a bar that stream and REST share; ``moment`` is its time in the codec's type."""
    return {
        "o": bar.open,
        "h": bar.high,
        "l": bar.low,
        "c": bar.close,
        "v": _volume(bar.volume),
        "t": moment,
        "n": bar.trade_count,
        "vw": bar.vwap,
    }


class Codec(ABC):
    """How messages become bytes on the wire."""

    name: str
    opcode: Opcode

    @abstractmethod
    def moment(self, timestamp: datetime) -> object:
        """``timestamp`` in the codec's own type, to be encoded once a tick."""

    @abstractmethod
    def element(self, kind: Kind, bar: Bar, moment: object) -> bytes:
        """One bar, as an element of the array that `frames` makes."""

    @abstractmethod
    def payload(self, elements: Sequence[bytes]) -> bytes:
        """The array of ``elements``."""

    @abstractmethod
    def encode(self, message: Message) -> bytes:
        """``message`` alone, as an element."""

    @property
    @abstractmethod
    def undecodable(self) -> bytes:
        """A payload that no client can read."""

    def frame(self, payload: bytes) -> bytes:
        """A complete WebSocket frame of the server."""
        return Frame(self.opcode, payload).serialize(mask=False)

    def frames(self, elements: Sequence[bytes]) -> bytes:
        """The frames that carry ``elements``, one after the other."""
        if len(elements) <= FRAME_ELEMENTS:
            return self.frame(self.payload(elements))
        starts = range(0, len(elements), FRAME_ELEMENTS)
        return b"".join(self.frame(self.payload(elements[at : at + FRAME_ELEMENTS])) for at in starts)

    def control(self, messages: Iterable[Message]) -> bytes:
        """Frames of control messages, each alone in its array."""
        return b"".join(self.frame(self.payload([self.encode(message)])) for message in messages)


class _Json(Codec):
    name = "json"
    opcode = Opcode.TEXT
    _encode = staticmethod(json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode)

    def moment(self, timestamp: datetime) -> object:
        return rfc3339(timestamp)

    def element(self, kind: Kind, bar: Bar, moment: object) -> bytes:
        return self._encode({"T": kind, "S": bar.symbol, **bar_fields(bar, moment)}).encode()

    def payload(self, elements: Sequence[bytes]) -> bytes:
        return b"[" + b",".join(elements) + b"]"

    def encode(self, message: Message) -> bytes:
        return self._encode(message).encode()

    @property
    def undecodable(self) -> bytes:
        return b'[{"T":"b","S":'


class _Msgpack(Codec):
    name = "msgpack"
    opcode = Opcode.BINARY

    def __init__(self) -> None:
        self._packer = msgpack.Packer()

    def moment(self, timestamp: datetime) -> object:
        return msgpack.Timestamp.from_datetime(timestamp)

    def element(self, kind: Kind, bar: Bar, moment: object) -> bytes:
        return self._packer.pack({"T": kind, "S": bar.symbol, **bar_fields(bar, moment)})

    def payload(self, elements: Sequence[bytes]) -> bytes:
        return self._packer.pack_array_header(len(elements)) + b"".join(elements)

    def encode(self, message: Message) -> bytes:
        return self._packer.pack(message)

    @property
    def undecodable(self) -> bytes:
        return b"\x91\xc1"


JSON: Final[Codec] = _Json()
MSGPACK: Final[Codec] = _Msgpack()


def codec_for(content_type: str | None) -> Codec:
    """The codec that a handshake's ``Content-Type`` asks for; JSON without one."""
    named = (content_type or "").partition(";")[0].strip().lower()
    return MSGPACK if named == "application/msgpack" else JSON


def decode_request(data: str | bytes) -> dict[str, Any] | None:
    """The map that a client sent, in either codec whatever it announced; None where it is not one."""
    try:
        if isinstance(data, str) or data[:1].lstrip() in (b"{", b"["):
            message = json.loads(data)
        else:
            message = msgpack.unpackb(data)
    except (ValueError, RecursionError, msgpack.UnpackException):
        return None
    return message if isinstance(message, dict) else None
