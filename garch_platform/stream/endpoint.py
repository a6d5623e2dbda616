"""Where the client connects, and what its rows are called: Alpaca's servers or the recycler."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from garch_platform.bars import Timeframe
from garch_platform.errors import ConfigurationError
from garch_platform.rest.tls import tls_context
from garch_platform.settings import Secrets, Settings

__all__ = ["Endpoint", "endpoint_of"]

ALPACA_STREAM: Final = "wss://stream.data.alpaca.markets"
ALPACA_DOMAIN: Final = ".alpaca.markets"
MINUTE: Final = Timeframe.parse("1Min")
TEST_FEED: Final = "test"
CERTIFICATE: Final = "websocket.recycler.tls_certificate"


@dataclass(frozen=True)
class Endpoint:
    """One stream server with the REST interface beside it.

    Attributes:
        mode: whose server it is.
        stream_url: WebSocket address with its path, ``wss://host/v2/iex``.
        rest_url: scheme, host and port of the REST interface; null for Alpaca's own, whose address the
            library knows.
        feed: column ``feed`` of the rows.
        data_source: column ``data_source`` of the rows, ``alpaca`` or ``recycled``.
        timeframe: length of the bars that come as `b` and `u`.
        is_historical: whether a replay keeps the bars' own times, so that they repeat from pass to pass.
        certificate: PEM file of a server certificate that no public authority has signed.
    """

    mode: Literal["alpaca", "recycler"]
    stream_url: str
    rest_url: str | None
    key: SecretStr
    secret: SecretStr
    feed: str
    data_source: str
    timeframe: Timeframe
    is_historical: bool = False
    certificate: Path | None = None

    @property
    def name(self) -> str:
        """Identity of the rows, ``recycled/iex/1Min``."""
        return f"{self.data_source}/{self.feed}/{self.timeframe}"

    @property
    def is_recycler(self) -> bool:
        """Whether the bars are a replay."""
        return self.mode == "recycler"

    @property
    def is_alpacas_own(self) -> bool:
        """Whether the stream comes from a host of Alpaca's."""
        host = urlsplit(self.stream_url).hostname or ""
        return f".{host}".endswith(ALPACA_DOMAIN)

    @property
    def has_history(self) -> bool:
        """Whether missed bars can be asked for over REST (Alpaca's test feed has none)."""
        return self.is_recycler or self.feed != TEST_FEED

    @property
    def has_daily_bars(self) -> bool:
        """Whether daily bars are followed: not where the bars of the stream are daily themselves."""
        return not self.timeframe.is_daily

    def tls_context(self) -> ssl.SSLContext | None:
        """What checks the server: ``certificate`` too, itself or as its signer; null for the usual check.

        Raises:
            ConfigurationError: the certificate cannot be read.
        """
        return None if self.certificate is None else tls_context(self.certificate, CERTIFICATE)

    @property
    def step(self) -> timedelta:
        """Time between two bars of a symbol."""
        return self.timeframe.duration


def endpoint_of(settings: Settings, secrets: Secrets) -> Endpoint:
    """The server that ``websocket.mode`` names.

    Raises:
        ConfigurationError: mode alpaca without credentials; the message names the variables.
    """
    websocket = settings.websocket
    if websocket.mode == "recycler":
        return _recycler(settings, secrets)
    if secrets.apca_api_key_id is None or secrets.apca_api_secret_key is None or not secrets.has_alpaca:
        raise ConfigurationError(
            f"websocket.mode is alpaca, but {' and '.join(secrets.missing())} "
            "is not set in the environment or .env; set both, or use websocket.mode=recycler"
        )
    return Endpoint(
        mode="alpaca",
        stream_url=websocket.url or f"{ALPACA_STREAM}/v2/{websocket.feed}",
        rest_url=settings.alpaca.data_url,
        key=secrets.apca_api_key_id,
        secret=secrets.apca_api_secret_key,
        feed=websocket.feed,
        data_source="alpaca",
        timeframe=MINUTE,
    )


def _recycler(settings: Settings, secrets: Secrets) -> Endpoint:
    recycler = settings.websocket.recycler
    parts = urlsplit(recycler.server_url)
    rest = parts._replace(scheme="https" if parts.scheme == "wss" else "http", netloc=parts.netloc)
    is_historical = recycler.clock == "historical"
    return Endpoint(
        mode="recycler",
        stream_url=f"{recycler.server_url}/v2/{settings.websocket.feed}",
        rest_url=rest.geturl(),
        key=secrets.garch_recycler_key,
        secret=secrets.garch_recycler_secret,
        feed=settings.websocket.feed,
        data_source="recycled",
        timeframe=settings.timeframe if is_historical else MINUTE,
        is_historical=is_historical,
        certificate=recycler.tls_certificate,
    )
