"""The protocol of one connection without its socket: what came in, what to answer.

A connection is greeted, authenticates by headers of the handshake or by a message, and subscribes. After
a wrong key (402) or a full house (406) it may try again until its time is up (404). Corrections and
cancel errors follow the subscription to trades, as on Alpaca's feed.

Bars and daily bars are the channels that a replay fills; the others of the stock feed are acknowledged and stay
empty. Updated bars carry trades that came late, and a stored bar has none to come: they are there where the
fault ``revise`` sends a bar with other values first.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import SecretStr
from websockets.datastructures import MultipleValuesError

from garch_platform.recycler.wire import Message, decode_request, error, success

__all__ = ["ACKNOWLEDGED", "ALL", "KEY_HEADER", "SECRET_HEADER", "Credentials", "Session", "Subscriptions"]

ALL: Final = "*"
KEY_HEADER: Final = "APCA-API-KEY-ID"
SECRET_HEADER: Final = "APCA-API-SECRET-KEY"  # noqa: S105 - the name of a header

ACKNOWLEDGED: Final = (
    "trades",
    "quotes",
    "bars",
    "updatedBars",
    "dailyBars",
    "statuses",
    "lulds",
    "corrections",
    "cancelErrors",
)
"""Channels that every acknowledgement lists."""
FOLLOWING_TRADES: Final = ("corrections", "cancelErrors")
SUBSCRIBABLE: Final = frozenset(ACKNOWLEDGED).difference(FOLLOWING_TRADES) | {"imbalances"}
SYMBOL: Final = re.compile(r"\*|\^?[A-Z][A-Z0-9./\-]{0,14}")
MOST_SYMBOLS: Final = 20_000
"""Of all channels of a connection together: a bound against clients that subscribe without end."""


def _bytes(text: str) -> bytes:
    """``text`` in bytes that no other text has; JSON may hold half a surrogate pair."""
    return text.encode(errors="surrogatepass")


@dataclass(frozen=True)
class Credentials:
    """Key and secret that clients must know."""

    key: SecretStr
    secret: SecretStr

    def match(self, key: object, secret: object) -> bool:
        """Whether both are right, in a time that does not tell how much of them is."""
        given = [_bytes(value) if isinstance(value, str) else b"" for value in (key, secret)]
        known = [_bytes(value.get_secret_value()) for value in (self.key, self.secret)]
        key_is_right = hmac.compare_digest(given[0], known[0])
        secret_is_right = hmac.compare_digest(given[1], known[1])
        return key_is_right and secret_is_right

    def match_headers(self, headers: Mapping[str, str]) -> bool | None:
        """Whether the headers of a request are right; None where it has none."""
        try:
            key, secret = headers.get(KEY_HEADER), headers.get(SECRET_HEADER)
        except MultipleValuesError:
            return False
        return None if key is None and secret is None else self.match(key, secret)


@dataclass(frozen=True)
class Subscriptions:
    """The symbols of every channel, in the order in which they were asked for."""

    channels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, channel: str) -> tuple[str, ...]:
        """Symbols of ``channel``; ``*`` stands for all."""
        return self.channels.get(channel, ())

    def count(self) -> int:
        """Symbols of all channels together."""
        return sum(map(len, self.channels.values()))

    def changed(self, action: str, request: Mapping[str, Sequence[str]]) -> Subscriptions:
        """With ``request`` added (``subscribe``) or taken away."""
        channels = dict(self.channels)
        for channel, symbols in request.items():
            if action == "subscribe":
                channels[channel] = tuple(dict.fromkeys((*self.of(channel), *symbols)))
            else:
                gone = set(symbols)
                channels[channel] = tuple(symbol for symbol in self.of(channel) if symbol not in gone)
        return Subscriptions(channels)

    def message(self) -> Message:
        """The acknowledgement: the whole list, whatever was changed."""
        listed: dict[str, Any] = {"T": "subscription"}
        for channel in ACKNOWLEDGED:
            listed[channel] = list(self.of("trades" if channel in FOLLOWING_TRADES else channel))
        if self.of("imbalances"):
            listed["imbalances"] = list(self.of("imbalances"))
        return listed


class Session:
    """The state of one connection.

    Args:
        credentials: that the client must know.
        is_served: whether the feed of the path may be used (else 409).
        claim: takes one of the places for clients and says whether there was one (else 406).
        symbols: those that ``*`` stands for.
        symbol_limit: symbols of the bar subscription (else 405); None for any number.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        is_served: bool = True,
        claim: Callable[[], bool] = lambda: True,
        symbols: Callable[[], Sequence[str]] = list,
        symbol_limit: int | None = None,
    ) -> None:
        self._credentials = credentials
        self._is_served = is_served
        self._claim = claim
        self._symbols = symbols
        self._symbol_limit = symbol_limit
        self.is_authenticated = False
        self.was_refused_a_place = False
        self.subscriptions = Subscriptions()

    def open(self, headers: Mapping[str, str]) -> list[Message]:
        """The greeting, and the answer to credentials in the headers of the handshake."""
        matched = self._credentials.match_headers(headers)
        greeting: list[Message] = [success("connected")]
        return greeting if matched is None else [*greeting, self._authenticated(matched)]

    def receive(self, data: str | bytes) -> Message:
        """The answer to one message of the client."""
        request = decode_request(data) or {}
        match request.get("action"):
            case "auth" if self.is_authenticated:
                return error(403)
            case "auth":
                return self._authenticated(self._credentials.match(request.get("key"), request.get("secret")))
            case "subscribe" | "unsubscribe" as action:
                return self._subscribe(action, request) if self.is_authenticated else error(401)
        return error(400)

    def _authenticated(self, is_right: bool) -> Message:
        if not is_right:
            return error(402)
        if not self._is_served:
            return error(409)
        self.was_refused_a_place = not self._claim()
        if self.was_refused_a_place:
            return error(406)
        self.is_authenticated = True
        return success("authenticated")

    def _subscribe(self, action: str, request: Mapping[str, Any]) -> Message:
        asked = {channel: symbols for channel, symbols in request.items() if channel != "action"}
        for symbols in asked.values():
            if not isinstance(symbols, list) or not all(isinstance(name, str) for name in symbols):
                return error(400)
        asked = {channel: symbols for channel, symbols in asked.items() if symbols}
        if not SUBSCRIBABLE.issuperset(asked):
            return error(410)
        if not all(SYMBOL.fullmatch(name) for symbols in asked.values() for name in symbols):
            return error(400)
        changed = self.subscriptions.changed(action, asked)
        if action == "subscribe" and self._is_too_much(changed):
            return error(405)
        self.subscriptions = changed
        return changed.message()

    def _is_too_much(self, subscriptions: Subscriptions) -> bool:
        if subscriptions.count() > MOST_SYMBOLS:
            return True
        bars = subscriptions.of("bars")
        limit = self._symbol_limit
        return limit is not None and len(self._symbols() if ALL in bars else bars) > limit
