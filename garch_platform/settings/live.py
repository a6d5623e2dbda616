"""Settings of the live edge (vendors, stream client, recycler), and the secrets."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from garch_platform.bars import validate_symbol
from garch_platform.errors import ConfigurationError, SymbolError
from garch_platform.settings.sections import Section

__all__ = ["LOOPBACK", "Alpaca", "Faults", "Recycler", "Secrets", "Websocket", "Yahoo", "load_secrets"]

RECYCLER_CREDENTIAL = "recycler"
"""Key and secret of a recycler that nobody but this machine can reach."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Names of the interface that only this machine reaches."""


def _names(value: object) -> object:
    """A list as written in a variable: AAPL,MSFT or ["AAPL", "MSFT"]."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [name.strip() for name in value.split(",") if name.strip()]


def _well_formed(names: list[str]) -> list[str]:
    """Each a symbol; ``*`` alone is all of them, as the empty list."""
    return [] if names == ["*"] else [_symbol(name) for name in names]


def _symbol(name: str) -> str:
    try:
        return validate_symbol(name)
    except SymbolError as error:
        raise ValueError(str(error)) from None


Port = Annotated[int, Field(ge=1, le=65535)]
Symbol = Annotated[str, AfterValidator(_symbol)]
Names = Annotated[list[str], NoDecode, BeforeValidator(_names), AfterValidator(_well_formed)]


class Alpaca(Section):
    """How Alpaca's market data and asset list are asked."""

    feed: Literal["iex", "sip"]
    adjustment: Literal["raw", "split", "all"]
    minute_days: PositiveInt
    hourly_days: PositiveInt
    data_url: str | None
    trading_url: str | None
    paper: bool
    page_limit: int = Field(ge=1, le=10_000)
    symbols_per_request: PositiveInt
    requests_per_minute: PositiveInt
    attempts: PositiveInt


class Yahoo(Section):
    """How Yahoo Finance is asked."""

    daily_days: PositiveInt
    hourly_days: int = Field(ge=1, le=730)
    requests_per_minute: PositiveInt
    attempts: PositiveInt


class DateRange(Section):
    """First and last session of a replay, both included."""

    start_date: date | None
    end_date: date | None

    @model_validator(mode="after")
    def _ordered(self) -> DateRange:
        if self.start_date and self.end_date and self.end_date < self.start_date:
            raise ValueError(f"end_date {self.end_date} is before start_date {self.start_date}")
        return self


class Faults(Section):
    """Shares of bars or moments at which the recycler misbehaves on purpose; see `recycler.faults`."""

    seed: int
    drop: float = Field(ge=0, le=1)
    delay: float = Field(ge=0, le=1)
    delay_seconds: NonNegativeFloat
    duplicate: float = Field(ge=0, le=1)
    out_of_order: float = Field(ge=0, le=1)
    revise: float = Field(ge=0, le=1)
    malformed: float = Field(ge=0, le=1)
    disconnect_after: PositiveInt | None
    mute_after: PositiveInt | None
    slow_ack_seconds: NonNegativeFloat


class Recycler(Section):
    """What the recycler serves, where, how fast and how faultily."""

    server_url: str
    symbols: Names
    replay_mode: Literal["loop", "date_range", "single_pass"]
    replay_speed: PositiveFloat | Literal["max"]
    loop_count: int = Field(ge=-1)
    date_range: DateRange
    clock: Literal["live", "historical"]
    session_gaps: Literal["skip", "keep"]
    default_proxy: Symbol | None
    proxies: dict[Symbol, Symbol]
    connection_limit: PositiveInt | None
    symbol_limit: PositiveInt | None
    queue_megabytes: PositiveFloat
    stall_seconds: PositiveFloat
    tls_certificate: Path | None
    tls_key: Path | None
    faults: Faults

    @field_validator("replay_speed", mode="before")
    @classmethod
    def _is_speed(cls, value: object) -> object:
        try:
            known = value == "max" or 0.0 < float(value) < float("inf")  # type: ignore[arg-type]
        except (TypeError, ValueError):
            known = False
        if not known or isinstance(value, bool):
            raise ValueError("use a positive number (1.0 = one bar a minute) or max")
        return value

    @field_validator("server_url")
    @classmethod
    def _is_websocket(cls, value: str) -> str:
        parts = urlsplit(value)
        try:
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"{error}; write ws://host:port") from None
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError("write ws://host:port or wss://host:port, without a path")
        return value.rstrip("/")

    @field_validator("loop_count")
    @classmethod
    def _counts(cls, value: int) -> int:
        if value == 0:
            raise ValueError("0 replays nothing; give a number of passes, or -1 for ever")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Recycler:
        if self.replay_mode == "date_range" and not (self.date_range.start_date and self.date_range.end_date):
            raise ValueError("replay_mode date_range needs date_range.start_date and date_range.end_date")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together; give both or neither")
        secure = urlsplit(self.server_url).scheme == "wss"
        if secure != (self.tls_certificate is not None):
            raise ValueError("a wss:// server_url needs tls_certificate and tls_key, a ws:// one neither")
        return self

    @property
    def host(self) -> str:
        """Host of `server_url`."""
        return str(urlsplit(self.server_url).hostname)

    @property
    def port(self) -> int:
        """Port of `server_url` (8765 if it names none)."""
        return urlsplit(self.server_url).port or 8765

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach `server_url`."""
        return self.host in LOOPBACK


class Websocket(Section):
    """Where the stream client connects, what it follows and how it writes."""

    mode: Literal["alpaca", "recycler"]
    symbols: Names
    testing_symbols: Names
    feed: Literal["iex", "sip", "test"]
    url: str | None
    flush_seconds: PositiveFloat
    flush_rows: PositiveInt
    mute_seconds: PositiveFloat
    health_seconds: PositiveFloat
    spool_megabytes: PositiveFloat
    metrics_port: Port | None
    recycler: Recycler

    @model_validator(mode="after")
    def _url_names_the_feed(self) -> Websocket:
        """Rows bear ``feed``, and gaps are filled from it: the stream must be of the same."""
        if self.url is None:
            return self
        parts, wanted = urlsplit(self.url), f"/v2/{self.feed}"
        is_safe = parts.scheme == "wss" or (parts.scheme == "ws" and parts.hostname in LOOPBACK)
        if not is_safe or not parts.hostname or parts.path != wanted:
            raise ValueError(
                f"url {self.url!r} is no stream of feed {self.feed}; write wss://host{wanted} "
                "(ws:// on the loopback interface only), or set feed alike"
            )
        return self


class Secrets(BaseSettings):
    """Credentials, from the environment or ``.env`` and nowhere else; printing them shows asterisks."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    apca_api_key_id: SecretStr | None = None
    apca_api_secret_key: SecretStr | None = None
    garch_recycler_key: SecretStr = SecretStr(RECYCLER_CREDENTIAL)
    garch_recycler_secret: SecretStr = SecretStr(RECYCLER_CREDENTIAL)

    @property
    def has_alpaca(self) -> bool:
        """Whether both parts of Alpaca's credentials are there."""
        return bool(self.apca_api_key_id and self.apca_api_secret_key)

    @property
    def recycler_is_default(self) -> bool:
        """Whether the recycler's key and secret are those that everybody knows."""
        values = (self.garch_recycler_key, self.garch_recycler_secret)
        return any(value.get_secret_value() == RECYCLER_CREDENTIAL for value in values)

    def missing(self) -> list[str]:
        """Names of the variables for Alpaca that are not set."""
        named = {"APCA_API_KEY_ID": self.apca_api_key_id, "APCA_API_SECRET_KEY": self.apca_api_secret_key}
        return [name for name, value in named.items() if not value]


def load_secrets() -> Secrets:
    """Read the credentials from the environment and ``.env``.

    Raises:
        ConfigurationError: a variable of the recycler is set and empty.
    """
    secrets = Secrets()
    for name in ("garch_recycler_key", "garch_recycler_secret"):
        if not getattr(secrets, name).get_secret_value():
            raise ConfigurationError(f"{name.upper()} is set and empty; give it a value, or unset it")
    return secrets
