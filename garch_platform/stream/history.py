"""The REST interface beside the stream: bars that were missed, and a recycler's state."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from garch_platform.errors import SourceError, StreamError
from garch_platform.rest.alpaca import ALPACA, AlpacaAccess, Server, bar_pages, bar_query
from garch_platform.rest.recycler_run import RUN_HEADER
from garch_platform.rest.request_pace import RequestFailed, RequestRefused
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.rows import REST, BarRow, Proxied, bar_row, instant, microseconds

__all__ = ["FOR_EVER", "BarHistory", "ReplayState", "is_recycler", "stamp_of"]

logger = logging.getLogger(__name__)

Page = dict[str, list[BarRow]]

TIMEOUT_SECONDS: Final = 20.0
PROBE_SECONDS: Final = 5.0
UNAUTHORIZED: Final = 401
SYMBOLS_REFUSED: Final = (400, 422)
"""Statuses of a request of which a symbol is not known; nothing is said of the others."""
FEEDS: Final = ("iex", "sip")
EARLIEST: Final = 0
FOR_EVER: Final = 2**62
"""Later than any bar, in microseconds since 1970."""


class BarHistory:
    """Bars by REST, a page at a time.

    Args:
        endpoint: whose interface is asked.
        attempts: of a request that fails by network, with 429 or 5xx.
        page_limit: bars a page, all symbols together.
        symbols_per_request: symbols in one URL.
        requests_per_minute: at most; null = as many as there are.
        stopping: set it to end the waits between attempts.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        attempts: int,
        page_limit: int = 10_000,
        symbols_per_request: int = 100,
        requests_per_minute: int | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.attempts = attempts
        self.page_limit = page_limit
        self.symbols_per_request = symbols_per_request
        self.requests_per_minute = requests_per_minute
        self.stopping = stopping or threading.Event()
        self._run: str | None = None

    @property
    def place(self) -> str:
        """What messages call it."""
        return self._access.server.name

    @cached_property
    def _access(self) -> AlpacaAccess:
        return AlpacaAccess(
            self.endpoint.key,
            self.endpoint.secret,
            server=_server(self.endpoint),
            requests_per_minute=self.requests_per_minute,
            attempts=self.attempts,
            timeout=TIMEOUT_SECONDS,
            sleep=self._sleep,
        )

    @cached_property
    def _client(self) -> Any:
        return _data_client(self._access, self._answered)

    def _answered(self, run: str | None) -> None:
        self._run = run

    def _sleep(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise StreamError(f"{self.place} was not asked again: the client stops")

    def pages(
        self, symbols: Sequence[str], start: int | None, end: int | None, *, attempts: int | None = None
    ) -> Iterator[Page]:
        """Bars of ``symbols`` with start <= timestamp < end, symbol → rows, page after page.

        Args:
            symbols: any number.
            start: microseconds since 1970; null = as early as there are any.
            end: microseconds since 1970; null = what the server has by now.
            attempts: fewer than usual, at a stop.

        Raises:
            StreamError: the server could not be reached, or refused; pages given before are right.
        """
        for first in range(0, len(symbols), self.symbols_per_request):
            chunk = list(symbols[first : first + self.symbols_per_request])
            try:
                yield from self._chunk(chunk, start, end, attempts)
            except SourceError as error:
                raise StreamError(str(error)) from error

    def _chunk(
        self, symbols: list[str], start: int | None, end: int | None, attempts: int | None
    ) -> Iterator[Page]:
        query = bar_query(
            symbols,
            self.endpoint.timeframe,
            instant(EARLIEST if start is None else start),
            None if end is None else instant(end - 1),
            limit=self.page_limit,
            feed=self.endpoint.feed if self.endpoint.feed in FEEDS else None,
        )
        try:
            for bars in bar_pages(self._access, self._client.get, query, attempts=attempts):
                yield self._rows(bars)
        except RequestRefused as refusal:
            if refusal.status not in SYMBOLS_REFUSED:
                raise
            if len(symbols) == 1:
                logger.warning("no bars of %s over REST: %s", symbols[0], refusal)
                return
            for half in (symbols[: len(symbols) // 2], symbols[len(symbols) // 2 :]):
                yield from self._chunk(half, start, end, attempts)

    def _rows(self, bars: Mapping[str, Sequence[Mapping[str, Any]]]) -> Page:
        now = microseconds(datetime.now(UTC))
        try:
            return {
                symbol: [bar_row(REST, symbol, bar, now, self._run) for bar in rows]
                for symbol, rows in bars.items()
            }
        except ValueError as error:
            raise StreamError(f"{self.place}: the answer is no page of bars ({error})") from error


class ReplayState:
    """What a recycler says of its replay: where it stands, and which bars were another symbol's."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._run: str | None = None

    @cached_property
    def _client(self) -> Any:
        return _data_client(_asked_once(self.endpoint, TIMEOUT_SECONDS))

    @cached_property
    def _proxy_client(self) -> Any:
        """Asked for `proxied` alone, by one thread: an answer belongs to the run that gave it."""
        return _data_client(_asked_once(self.endpoint, PROBE_SECONDS), self._answered)

    def _answered(self, run: str | None) -> None:
        self._run = run

    def status(self) -> dict[str, Any] | None:
        """Its status; null where it does not answer."""
        answer = self._get(self._client, "/status")
        return answer if isinstance(answer, dict) else None

    def proxied(self) -> Proxied | None:
        """Which of the bars that it has sent by now were another symbol's; null where it does not answer."""
        answer = self._get(self._proxy_client, "/proxies")
        if not isinstance(answer, dict) or self._run is None:
            return None
        spans = {
            symbol: [(_moment(span["start"]), _moment(span["end"])) for span in spans]
            for symbol, spans in answer.items()
        }
        return Proxied(self._run, spans)

    def _get(self, client: Any, path: str) -> Any:
        from alpaca.common.exceptions import APIError

        try:
            return client.get(path, api_version="recycler")
        except (APIError, RequestFailed, ValueError) as error:
            logger.debug("%s/recycler%s: %s", self.endpoint.rest_url, path, error)
            return None


def is_recycler(endpoint: Endpoint) -> bool:
    """Whether a recycler listens where the stream of ``endpoint`` is said to be Alpaca's."""
    from alpaca.common.exceptions import APIError

    parts = urlsplit(endpoint.stream_url)
    beside = parts._replace(scheme="https" if parts.scheme == "wss" else "http", path="", query="").geturl()
    client = _data_client(_asked_once(replace(endpoint, mode="recycler", rest_url=beside), PROBE_SECONDS))
    try:
        answer = client.get("/status", api_version="recycler")
    except APIError as refusal:
        return refusal.status_code == UNAUTHORIZED and _is_json(str(refusal))
    except (RequestFailed, ValueError):
        return False
    return isinstance(answer, dict) and "clock" in answer


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def stamp_of(status: Mapping[str, Any] | None) -> int | None:
    """Time of the latest bars that a recycler has sent, from its status; null before the first."""
    stamp = None if status is None else status.get("stamp")
    return None if stamp is None else microseconds(datetime.fromisoformat(stamp))


def _moment(text: str | None) -> int:
    return FOR_EVER if text is None else microseconds(datetime.fromisoformat(text))


def _server(endpoint: Endpoint) -> Server:
    if not endpoint.is_recycler:
        return replace(ALPACA, url=endpoint.rest_url, feed_setting="websocket.feed")
    return Server(
        name=f"the recycler at {endpoint.rest_url}",
        variables=("GARCH_RECYCLER_KEY", "GARCH_RECYCLER_SECRET"),
        remedy="which are to be those that it was started with",
        url=endpoint.rest_url,
        tls=endpoint.tls_context(),
        is_remote=False,
    )


def _asked_once(endpoint: Endpoint, timeout: float) -> AlpacaAccess:
    server = _server(endpoint)
    return AlpacaAccess(
        endpoint.key, endpoint.secret, server=server, requests_per_minute=None, timeout=timeout
    )


def _data_client(access: AlpacaAccess, answered: Callable[[str | None], None] | None = None) -> Any:
    """alpaca-py's client; ``answered`` is told which run of a recycler gave each answer."""
    from alpaca.data.historical.stock import StockHistoricalDataClient

    client: Any = access.open(StockHistoricalDataClient)
    if answered is not None:
        session = client._session  # noqa: SLF001 - alpaca-py has no other way in
        session.hooks["response"].append(lambda answer, **_: answered(answer.headers.get(RUN_HEADER)))
    return client
