"""What a server sent, read back: by the tests alone, the package only writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgpack

from garch_platform.recycler.tick import Bar


def decode_messages(data: str | bytes) -> list[dict[str, Any]]:
    """The messages of one frame of the server; times of MessagePack stay `msgpack.Timestamp`."""
    messages: list[dict[str, Any]] = json.loads(data) if isinstance(data, str) else msgpack.unpackb(data)
    return messages


def read_bar(message: Mapping[str, Any]) -> tuple[datetime, Bar]:
    """Time and bar of a message ``b``, ``u`` or ``d`` in either codec."""
    moment = message["t"]
    timestamp = datetime.fromisoformat(moment) if isinstance(moment, str) else moment.to_datetime()
    open_, high, low, close = (float(message[key]) for key in ("o", "h", "l", "c"))
    volume = float(message["v"])
    return timestamp, Bar(message["S"], open_, high, low, close, volume, message["n"], message["vw"])
