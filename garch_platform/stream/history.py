"""The REST interface beside the stream, through alpaca-py: bars that were missed, and a recycler's state.

alpaca-py repeats a refused request three times at fixed pauses and waits for an answer for ever; here its
own repetition is off, every request has a time limit, and `tenacity` repeats what may pass.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, cast
from urllib.parse import urlsplit

import tenacity

from garch_platform.errors import StreamError
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.pace import Pace
from garch_platform.stream.rows import BarRow, bar_row, instant, microseconds

__all__ = ["FOR_EVER", "BarHistory", "ReplayState", "is_recycler", "stamp_of"]

logger = logging.getLogger(__name__)

Page = dict[str, list[BarRow]]

TIMEOUT_SECONDS: Final = 20.0
PROBE_SECONDS: Final = 5.0
UNAUTHORIZED: Final = 401
LONGEST_WAIT: Final = 60.0
TOO_MANY_REQUESTS: Final = 429
REFUSED_SYMBOLS: Final = (400, 422)
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
        stopping: set it to cut the waits between attempts short.
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
        self.stopping = stopping or threading.Event()
        self._pace = Pace(requests_per_minute, self.stopping)

    @cached_property
    def _client(self) -> Any:
        return _rest_client(self.endpoint, self._pace)

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
            yield from self._chunk(
                list(symbols[first : first + self.symbols_per_request]), start, end, attempts or self.attempts
            )

    def _chunk(self, symbols: list[str], start: int | None, end: int | None, attempts: int) -> Iterator[Page]:
        fields = self._fields(symbols, start, end)
        while True:
            try:
                answer = self._ask(lambda: self._client.get("/stocks/bars", dict(fields)), attempts)
            except _SymbolsRefused as refusal:
                if len(symbols) == 1:
                    logger.warning("%s: no bars of %s over REST (%s)", self.place, symbols[0], refusal)
                    return
                for half in (symbols[: len(symbols) // 2], symbols[len(symbols) // 2 :]):
                    yield from self._chunk(half, start, end, attempts)
                return
            now = microseconds(datetime.now().astimezone())
            try:
                yield {
                    symbol: [bar_row("rest", symbol, bar, now) for bar in bars or []]
                    for symbol, bars in (answer.get("bars") or {}).items()
                }
                token = answer.get("next_page_token")
            except (AttributeError, ValueError) as error:
                raise StreamError(f"{self.place}: the answer is no page of bars ({error})") from error
            if token is None:
                return
            fields["page_token"] = token

    def _fields(self, symbols: list[str], start: int | None, end: int | None) -> dict[str, Any]:
        from alpaca.data.enums import Adjustment, DataFeed
        from alpaca.data.requests import StockBarsRequest
        from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

        length = self.endpoint.timeframe
        unit = next(unit for unit in TimeFrameUnit if length.name.endswith(unit.value))
        amount = int(length.name.removesuffix(unit.value))
        known = {feed.value for feed in DataFeed}
        request = StockBarsRequest(
            symbol_or_symbols=symbols,
            timeframe=TimeFrame(amount, unit),
            start=instant(EARLIEST if start is None else start),
            end=None if end is None else instant(end - 1),
            limit=self.page_limit,
            adjustment=Adjustment.RAW,
            feed=DataFeed(self.endpoint.feed) if self.endpoint.feed in known else None,
        )
        return cast("dict[str, Any]", request.to_request_fields())

    @property
    def place(self) -> str:
        """What messages call it."""
        return self.endpoint.rest_url or "Alpaca's market data over REST"

    def _ask(self, request: Callable[[], Any], attempts: int) -> Any:
        from alpaca.common.exceptions import APIError
        from requests import RequestException

        try:
            return tenacity.Retrying(
                retry=tenacity.retry_if_exception(_may_pass),
                wait=_pause,
                stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_when_event_set(self.stopping),
                sleep=tenacity.sleep_using_event(self.stopping),
                reraise=True,
            )(request)
        except APIError as error:
            status = error.status_code
            if status in REFUSED_SYMBOLS:
                raise _SymbolsRefused(str(error)) from error
            raise StreamError(f"{self.place} refused with {status}: {_first_line(error)}") from error
        except (RequestException, ValueError) as error:
            raise StreamError(f"{self.place} cannot be read: {_first_line(error)}") from error


class ReplayState:
    """What a recycler says of its replay: where it stands, and which bars were another symbol's."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.spans: Mapping[str, list[tuple[int, int]]] = {}
        """Per symbol the spans of stamped time in which its bars were proxied, as last told."""

    @cached_property
    def _client(self) -> Any:
        return _rest_client(self.endpoint)

    def status(self) -> dict[str, Any] | None:
        """Its status; null where it does not answer."""
        answer = self._get("/status")
        return answer if isinstance(answer, dict) else None

    def proxies(self) -> Mapping[str, list[tuple[int, int]]]:
        """`spans`, brought up to date where the recycler answers."""
        answer = self._get("/proxies")
        if isinstance(answer, dict):
            self.spans = {
                symbol: [(_moment(span["start"]), _moment(span["end"])) for span in spans]
                for symbol, spans in answer.items()
            }
        return self.spans

    def _get(self, path: str) -> Any:
        from alpaca.common.exceptions import APIError
        from requests import RequestException

        try:
            return self._client.get(path, api_version="recycler")
        except (APIError, RequestException, ValueError) as error:
            logger.debug("%s/recycler%s: %s", self.endpoint.rest_url, path, error)
            return None


def is_recycler(endpoint: Endpoint) -> bool:
    """Whether a recycler listens where the stream of ``endpoint`` is said to be Alpaca's."""
    from alpaca.common.exceptions import APIError
    from requests import RequestException

    parts = urlsplit(endpoint.stream_url)
    beside = parts._replace(scheme="https" if parts.scheme == "wss" else "http", path="", query="").geturl()
    client = _rest_client(replace(endpoint, mode="recycler", rest_url=beside), timeout=PROBE_SECONDS)
    try:
        answer = client.get("/status", api_version="recycler")
    except APIError as refusal:
        return refusal.status_code == UNAUTHORIZED and _is_json(str(refusal))
    except (RequestException, ValueError):
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


class _SymbolsRefused(Exception):
    """The server does not know one of the symbols, and says nothing of the others."""


def _moment(text: str | None) -> int:
    return FOR_EVER if text is None else microseconds(datetime.fromisoformat(text))


def _may_pass(error: BaseException) -> bool:
    from alpaca.common.exceptions import APIError
    from requests import RequestException

    if isinstance(error, APIError):
        return error.status_code is None or error.status_code == TOO_MANY_REQUESTS or error.status_code >= 500
    return isinstance(error, RequestException | ValueError)


def _pause(state: tenacity.RetryCallState) -> float:
    """Exponential with jitter; after 429 as long as the server asks for."""
    error = state.outcome.exception() if state.outcome else None
    response = getattr(error, "response", None)
    wait = tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT / 2)(state)
    asked = response.headers.get("Retry-After") if response is not None else None
    return min(max(wait, float(asked)), LONGEST_WAIT) if asked and asked.isdecimal() else wait


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _rest_client(endpoint: Endpoint, pace: Pace | None = None, *, timeout: float = TIMEOUT_SECONDS) -> Any:
    from alpaca.data.historical import StockHistoricalDataClient
    from requests.adapters import HTTPAdapter

    context = endpoint.tls_context()

    class Impatient(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            if context is not None:
                kwargs["ssl_context"] = context
            super().init_poolmanager(*args, **kwargs)

        def send(self, *args: Any, **kwargs: Any) -> Any:
            if pace is not None:
                pace.wait()
            answer = super().send(*args, **{**kwargs, "timeout": kwargs.get("timeout") or timeout})
            if pace is not None:
                pace.heed(answer.headers)
            return answer

    class Client(StockHistoricalDataClient):
        def __init__(self) -> None:
            super().__init__(
                endpoint.key.get_secret_value(),
                endpoint.secret.get_secret_value(),
                raw_data=True,
                url_override=endpoint.rest_url,
            )
            self._retry_codes = []
            for scheme in ("http://", "https://"):
                self._session.mount(scheme, Impatient())
            self._session.trust_env = not endpoint.is_recycler

    return Client()
