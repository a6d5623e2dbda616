"""Alpaca's REST servers through alpaca-py: one request at a time, with attempts, and pages as Polars frames.

Each page is asked for by itself (`RESTClient.get`), so that a failure costs a page and not the pages
before it. alpaca-py's own three retries after a fixed 3 s never begin, because `paced` raises before the
library sees a 429 or 504.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

import polars as pl
from pydantic import SecretStr

from garch_platform.bars import UTC_TIMESTAMP
from garch_platform.errors import SourceError
from garch_platform.sources.request_pace import RequestFailed, RequestPace, paced, with_attempts
from garch_platform.sources.symbol_chunks import RequestRefused

__all__ = ["ALPACA", "AlpacaAccess", "bar_pages", "bar_rows"]

ALPACA: Final = "alpaca"
"""Value of ``data_source``."""

TIMEOUT: Final = 30.0
FIELDS: Final[dict[str, tuple[str, type[pl.DataType]]]] = {
    "open": ("o", pl.Float64),
    "high": ("h", pl.Float64),
    "low": ("l", pl.Float64),
    "close": ("c", pl.Float64),
    "volume": ("v", pl.Float64),
    "vwap": ("vw", pl.Float64),
    "trade_count": ("n", pl.Int64),
}
"""Fields of a bar with Alpaca's names for them."""

Client = TypeVar("Client")
T = TypeVar("T")


class AlpacaAccess:
    """Credentials, pace and patience: what all requests of one account share.

    Args:
        key: value of APCA_API_KEY_ID; None if it is not set, which is an error only when asking.
        secret: value of APCA_API_SECRET_KEY.
        requests_per_minute: of the account (200 on the free plan).
        attempts: of a request that fails by network, 429 or 5xx.
        sleep: waits so many seconds.
        now: the time, UTC.
    """

    def __init__(
        self,
        key: SecretStr | None,
        secret: SecretStr | None,
        *,
        requests_per_minute: int = 200,
        attempts: int = 5,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._key = key
        self._secret = secret
        self.attempts = attempts
        self.sleep = sleep
        self.now = now
        self.pace = RequestPace(requests_per_minute, sleep=sleep, now=now)

    def open(self, client: Callable[..., Client], **options: Any) -> Client:
        """One of alpaca-py's REST clients that gives raw data and keeps the pace.

        Raises:
            SourceError: the credentials are not set.
        """
        named = {"APCA_API_KEY_ID": self._key, "APCA_API_SECRET_KEY": self._secret}
        missing = [name for name, value in named.items() if not value]
        if self._key is None or self._secret is None or missing:
            raise SourceError(f"Alpaca needs {' and '.join(missing)}; set them in the environment or in .env")
        opened = client(
            api_key=self._key.get_secret_value(),
            secret_key=self._secret.get_secret_value(),
            raw_data=True,
            **options,
        )
        session = opened._session  # type: ignore[attr-defined]  # noqa: SLF001  # alpaca-py has no other way in
        session.request = paced(session.request, self.pace, timeout=TIMEOUT)
        return opened

    def ask(self, call: Callable[[], T]) -> T:
        """The result of ``call`` (one request through a client of `open`), attempted as often as agreed.

        Raises:
            RequestFailed: no attempt got an answer.
            RequestRefused: the request is at fault.
            SourceError: the credentials are not accepted, or the plan does not allow it.
        """
        from alpaca.common.exceptions import APIError

        def once() -> T:
            try:
                return call()
            except RequestFailed:
                raise
            except APIError as error:
                raise self._refusal(error.status_code, str(error)) from error
            except (ValueError, TypeError) as error:
                raise RequestFailed(f"Alpaca's answer cannot be read ({type(error).__name__})") from error

        try:
            return with_attempts(once, attempts=self.attempts, sleep=self.sleep)
        except RequestFailed as error:
            raise RequestFailed(f"{error}, {self.attempts} attempts", status=error.status) from error

    def _refusal(self, status: int | None, body: str) -> SourceError:
        said = self._said(body)
        if status == 403 and "subscription" in said.lower():
            return SourceError(
                f"Alpaca: {said}; the account's plan lacks this feed for this time (alpaca.feed: sip within the "
                "last 15 minutes needs a paid plan); set alpaca.feed: iex, or ask for older bars"
            )
        if status in (401, 403):
            return SourceError(
                f"Alpaca does not accept the credentials (status {status}: {said}); check APCA_API_KEY_ID and "
                "APCA_API_SECRET_KEY, and whether they belong to the account that alpaca.paper names"
            )
        return RequestRefused(f"Alpaca refuses the request (status {status}: {said})")

    def _said(self, body: str) -> str:
        """The server's message in short, without the credentials should it repeat them."""
        try:
            said = str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError):
            said = body
        for value in (self._key, self._secret):
            if value:
                said = said.replace(value.get_secret_value(), "***")
        return " ".join(said.split())[:200] or "no message"


def bar_pages(
    access: AlpacaAccess,
    get: Callable[..., Any],
    params: Mapping[str, Any],
) -> Iterator[pl.DataFrame]:
    """Bars page by page, until the server names no further page.

    Args:
        access: makes the attempts.
        get: ``get`` of a `StockHistoricalDataClient`.
        params: of the request, without ``page_token``.

    Yields:
        ``symbol``, ``timestamp`` (UTC, null where unreadable), `FIELDS`; null where a bar lacks one.

    Raises:
        RequestFailed: a page could not be read after all attempts. Others as in `AlpacaAccess.ask`.
    """
    token: str | None = None
    seen: set[str] = set()
    while True:
        wanted = {**params} if token is None else {**params, "page_token": token}
        frame, token = access.ask(partial(_page, get, wanted))
        yield frame
        if token is None:
            return
        if token in seen:
            raise RequestFailed("Alpaca's pages of bars do not end: a page_token came twice")
        seen.add(token)


def _page(get: Callable[..., Any], params: Mapping[str, Any]) -> tuple[pl.DataFrame, str | None]:
    """One page as rows, with the token of the next one; where there are no bars, they may be null."""
    answer = get("/stocks/bars", dict(params))
    if not isinstance(answer, dict) or not {"bars", "next_page_token"} <= set(answer):
        raise ValueError("no page of bars")
    return bar_rows(answer["bars"] or {}), answer["next_page_token"] or None


def bar_rows(bars: Mapping[str, Sequence[Mapping[str, Any]] | None]) -> pl.DataFrame:
    """Raw bars by symbol as ``symbol``, ``timestamp`` (UTC, null where unreadable) and `FIELDS`."""
    names = [symbol for symbol, rows in bars.items() for _ in rows or ()]
    flat = [row for rows in bars.values() for row in rows or ()]
    columns = [pl.Series("symbol", names, dtype=pl.String), _stamps([row.get("t") for row in flat])]
    for name, (key, dtype) in FIELDS.items():
        columns.append(pl.Series(name, [row.get(key) for row in flat], dtype=dtype, strict=False))
    return pl.DataFrame(columns)


def _stamps(values: list[str | None]) -> pl.Series:
    text = pl.Series("timestamp", values, dtype=pl.String).str.replace(r"[Zz]$", "+00:00")
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False).cast(UTC_TIMESTAMP)
