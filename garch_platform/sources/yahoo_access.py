"""Yahoo Finance through yfinance: one question at a time, with attempts, and faults told from absence.

yfinance swallows its errors and gives an empty frame for a symbol that Yahoo does not have and for a
server that is down alike; it remembers answers, failed ones too, for as long as the process lives. Here
errors are raised and nothing is remembered. Cookies and crumbs are left to yfinance, and so is a first
429, which it answers by fetching new ones.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, TypeVar

from garch_platform.rest.request_pace import RequestFailed, RequestPace, paced, with_attempts

__all__ = ["YAHOO", "YahooAccess", "yahoo_symbol"]

YAHOO: Final = "yahoo"
"""Value of ``data_source`` and ``feed``."""

HOSTS: Final = ("query1.finance.yahoo.com", "query2.finance.yahoo.com")
CHART: Final = "/v8/finance/chart/"
TIMEOUT: Final = 30.0
ANSWERS: Final = frozenset({200, 400, 404, 422})
"""Statuses of an answer about the symbol or the range; any other is about the request."""

T = TypeVar("T")


def yahoo_symbol(symbol: str) -> str:
    """Yahoo's name of a US symbol: share classes are written with a hyphen (``BRK-B``)."""
    return re.sub(r"^([A-Z]+)\.([A-Z]{1,2})$", r"\1-\2", symbol)


class YahooAccess:
    """Session, pace and patience: what all questions share.

    Args:
        requests_per_minute: at most.
        attempts: of a question that fails by network, 429 or 5xx.
        session: a ``requests`` or ``curl_cffi`` session; None = yfinance's own, which looks like a browser.
        sleep: waits so many seconds.
        now: the time, UTC.
    """

    def __init__(
        self,
        *,
        requests_per_minute: int = 60,
        attempts: int = 3,
        session: Any = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.attempts = attempts
        self.sleep = sleep
        self.now = now
        self.pace = RequestPace(requests_per_minute, sleep=sleep, now=now)
        self._given = session

    @cached_property
    def _session(self) -> Any:
        session = self._given or _library().data.new_session()
        session.request = paced(
            session.request,
            self.pace,
            timeout=TIMEOUT,
            passed_on=(429,),
            hosts=HOSTS,
            is_usable=lambda answer: CHART not in answer.url or '"chart"' in answer.text,
        )
        return session

    def ask(self, symbol: str, question: Callable[[Any], T]) -> T | None:
        """What ``question`` gets from the yfinance ticker of ``symbol``; None where Yahoo has nothing.

        Raises:
            RequestFailed: no attempt got an answer.
        """

        def once() -> T | None:
            with _raising():
                return question(_library().Ticker(yahoo_symbol(symbol), session=self._session))

        try:
            return with_attempts(lambda: self._answer(symbol, once), attempts=self.attempts, sleep=self.sleep)
        except RequestFailed as error:
            raise RequestFailed(f"{error}, {self.attempts} attempts", status=error.status) from error

    def _answer(self, symbol: str, once: Callable[[], T]) -> T | None:
        """The answer to one attempt; raises `RequestFailed` where there is none."""
        known = _library().exceptions
        try:
            return once()
        except RequestFailed:
            raise
        except known.YFRateLimitError as error:
            raise RequestFailed(f"Yahoo on {symbol}: too many requests", status=429) from error
        except known.YFTickerMissingError as error:
            if self.pace.last_status in ANSWERS:
                return None
            reason: Exception = error
        except OSError as error:
            if getattr(getattr(error, "response", None), "status_code", None) == 404:
                return None
            reason = error
        except (known.YFException, LookupError, ValueError, TypeError, AttributeError) as error:
            reason = error
        status = self.pace.last_status
        raise RequestFailed(
            f"Yahoo on {symbol}: {type(reason).__name__}, status {status or 'unknown'}", status=status
        ) from reason


def _library() -> Any:
    import yfinance

    return yfinance


@contextmanager
def _raising() -> Iterator[None]:
    """Let yfinance raise its errors and forget its answers."""
    library = _library()
    library.data.YfData.cache_get.cache_clear()
    debug = library.config.debug
    hidden = debug.hide_exceptions
    debug.hide_exceptions = False
    try:
        yield
    finally:
        debug.hide_exceptions = hidden
