"""Alpaca's REST interface through alpaca-py: one request at a time, with attempts, and bars by pages.

Each page is asked for by itself (`RESTClient.get`), so that a failure costs a page and not the pages
before it. alpaca-py's own three retries after a fixed 3 s never begin, because `paced` raises before the
library sees a 429 or 504.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar, cast

from pydantic import SecretStr

from garch_platform.bars import Timeframe
from garch_platform.errors import SourceError
from garch_platform.rest.request_pace import (
    RequestFailed,
    RequestPace,
    RequestRefused,
    paced,
    with_attempts,
)

__all__ = ["ALPACA", "AlpacaAccess", "Server", "bar_pages", "bar_query"]

TIMEOUT: Final = 30.0

Bars = Mapping[str, Sequence[Mapping[str, Any]]]
Client = TypeVar("Client")
T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """Who answers, as messages say it.

    Attributes:
        name: of the server.
        variables: of the environment that hold key and secret.
        remedy: where it does not accept them, besides another look at the variables.
        feed_setting: that says which feed is asked for.
        url: scheme, host and port; None = Alpaca's own.
        tls: what checks its certificate; None = the usual check.
        is_remote: whether the environment's proxies are used.
    """

    name: str
    variables: tuple[str, str]
    remedy: str
    feed_setting: str = "alpaca.feed"
    url: str | None = None
    tls: ssl.SSLContext | None = None
    is_remote: bool = True


ALPACA: Final = Server(
    name="Alpaca",
    variables=("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"),
    remedy="and whether they belong to the account that alpaca.paper names",
)
"""Alpaca's own servers."""


class AlpacaAccess:
    """Credentials, pace and patience: what all requests of one account share.

    Args:
        key: of the account; None if it is not set, which is an error only when asking.
        secret: the same.
        server: that is asked.
        requests_per_minute: of the account (200 on the free plan); None = no limit but the server's.
        attempts: of a request that fails by network, 429 or 5xx.
        timeout: seconds that an answer may take.
        sleep: waits so many seconds; what it raises ends the request.
        now: the time, UTC.
    """

    def __init__(
        self,
        key: SecretStr | None,
        secret: SecretStr | None,
        *,
        server: Server = ALPACA,
        requests_per_minute: int | None = 200,
        attempts: int = 5,
        timeout: float = TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._key = key
        self._secret = secret
        self.server = server
        self.attempts = attempts
        self.timeout = timeout
        self.sleep = sleep
        self.now = now
        self.pace = RequestPace(requests_per_minute, sleep=sleep, now=now)

    def open(self, client: Callable[..., Client], **options: Any) -> Client:
        """One of alpaca-py's REST clients that gives raw data and keeps the pace.

        Raises:
            SourceError: the credentials are not set.
        """
        named = dict(zip(self.server.variables, (self._key, self._secret), strict=True))
        missing = [name for name, value in named.items() if not value]
        if self._key is None or self._secret is None or missing:
            raise SourceError(
                f"{self.server.name} needs {' and '.join(missing)}; set them in the environment or in .env"
            )
        opened = client(
            api_key=self._key.get_secret_value(),
            secret_key=self._secret.get_secret_value(),
            raw_data=True,
            url_override=self.server.url,
            **options,
        )
        session = opened._session  # type: ignore[attr-defined]  # noqa: SLF001  # alpaca-py has no other way in
        session.trust_env = self.server.is_remote
        if self.server.tls is not None:
            session.mount("https://", _checked_by(self.server.tls))
        session.request = paced(session.request, self.pace, timeout=self.timeout)
        return opened

    def ask(self, call: Callable[[], T], *, attempts: int | None = None) -> T:
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
                raise RequestFailed(
                    f"{self.server.name}'s answer cannot be read ({type(error).__name__})"
                ) from error

        made = self.attempts if attempts is None else attempts
        try:
            return with_attempts(once, attempts=made, sleep=self.sleep)
        except RequestFailed as error:
            raise RequestFailed(f"{error}, {made} attempts", status=error.status) from error

    def _refusal(self, status: int | None, body: str) -> SourceError:
        said = self._said(body)
        if status == 403 and "subscription" in said.lower():
            return SourceError(
                f"{self.server.name}: {said}; the account's plan lacks this feed for this time (sip within the last "
                f"15 minutes needs a paid plan); set {self.server.feed_setting}: iex, or ask for older bars"
            )
        if status in (401, 403):
            return SourceError(
                f"{self.server.name} does not accept the credentials (status {status}: {said}); "
                f"check {' and '.join(self.server.variables)}, {self.server.remedy}"
            )
        return RequestRefused(
            f"{self.server.name} refuses the request (status {status}: {said})", status=status
        )

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


def _checked_by(context: ssl.SSLContext) -> Any:
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **options)

    return Adapter()


def bar_query(
    symbols: Sequence[str],
    timeframe: Timeframe,
    start: datetime,
    end: datetime | None,
    *,
    limit: int,
    adjustment: str = "raw",
    feed: str | None,
) -> dict[str, Any]:
    """Parameters of a request for bars.

    Args:
        symbols: as many as one URL takes.
        timeframe: length of the bars.
        start: of the first bar, aware.
        end: of the last bar, included; None = what the server has by now.
        limit: bars a page, all symbols together.
        adjustment: ``raw``, ``split`` or ``all``.
        feed: ``iex``, ``sip`` and so on; None where the server is asked for what it has.
    """
    from alpaca.data.enums import Adjustment, DataFeed
    from alpaca.data.requests import StockBarsRequest
    from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

    if timeframe.is_daily:
        length = TimeFrame(1, TimeFrameUnit.Day)
    elif timeframe.minutes % 60:
        length = TimeFrame(timeframe.minutes, TimeFrameUnit.Minute)
    else:
        length = TimeFrame(timeframe.minutes // 60, TimeFrameUnit.Hour)
    request = StockBarsRequest(
        symbol_or_symbols=list(symbols),
        timeframe=length,
        start=start,
        end=end,
        limit=limit,
        adjustment=Adjustment(adjustment),
        feed=None if feed is None else DataFeed(feed),
    )
    return cast("dict[str, Any]", request.to_request_fields())


def bar_pages(
    access: AlpacaAccess, get: Callable[..., Any], params: Mapping[str, Any], *, attempts: int | None = None
) -> Iterator[Bars]:
    """Bars page by page, until the server names no further page.

    Args:
        access: makes the attempts.
        get: ``get`` of a `StockHistoricalDataClient`.
        params: of the request (`bar_query`), without ``page_token``.
        attempts: of each page, in place of the usual number.

    Yields:
        Raw bars by symbol, as the server sent them.

    Raises:
        RequestFailed: a page could not be read after all attempts. Others as in `AlpacaAccess.ask`.
    """
    token: str | None = None
    seen: set[str] = set()
    while True:
        wanted = {**params} if token is None else {**params, "page_token": token}
        bars, token = access.ask(partial(_page, get, wanted), attempts=attempts)
        yield bars
        if token is None:
            return
        if token in seen:
            raise RequestFailed(f"{access.server.name}'s pages of bars do not end: a page_token came twice")
        seen.add(token)


def _page(get: Callable[..., Any], params: Mapping[str, Any]) -> tuple[Bars, str | None]:
    """One page, with the token of the next one; where there are no bars, the server may send null."""
    answer = get("/stocks/bars", dict(params))
    if not isinstance(answer, dict) or not {"bars", "next_page_token"} <= set(answer):
        raise ValueError("no page of bars")
    bars = answer["bars"] or {}
    if not isinstance(bars, dict):
        raise ValueError("bars are not given by symbol")
    return {symbol: rows or [] for symbol, rows in bars.items()}, answer["next_page_token"] or None
