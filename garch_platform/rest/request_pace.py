"""How often a vendor is asked, and what is done when it does not answer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from garch_platform.errors import SourceError

__all__ = ["TRANSIENT", "RequestFailed", "RequestPace", "RequestRefused", "paced", "with_attempts"]

LOG = logging.getLogger(__name__)

TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""

WINDOW: Final = timedelta(minutes=1)
LONGEST_WAIT: Final = 300.0
"""Seconds; a server that asks for more is asked again after that."""

T = TypeVar("T")


class RequestFailed(SourceError, OSError):
    """A request got no usable answer this time: network, 429, 5xx, or an answer that is cut short.

    It is an `OSError`, too, because client libraries tell passing faults by that.

    Args:
        message: what was asked and what happened.
        status: the HTTP status; None if there was no answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RequestRefused(SourceError):
    """The server will not answer this request, however often it is made: an invalid symbol, say.

    Args:
        message: what was asked and what the server said.
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RequestPace:
    """Lets requests go out no faster than agreed, and no sooner than the server said.

    At most ``requests_per_minute`` go out in any 60 seconds. Where the server's headers say that none
    are left (``X-Ratelimit-Remaining: 0``), the next one waits for ``X-Ratelimit-Reset`` (seconds since
    1970), and after a refusal for ``Retry-After`` (seconds or a date). One thread at a time.

    Args:
        requests_per_minute: at most; None = no limit but the server's.
        sleep: waits so many seconds; what it raises ends the wait.
        now: the time, UTC.
    """

    def __init__(
        self, requests_per_minute: int | None, *, sleep: Callable[[float], None], now: Callable[[], datetime]
    ) -> None:
        self._sleep = sleep
        self._now = now
        self._limit = requests_per_minute
        self._sent: deque[datetime] = deque(maxlen=requests_per_minute or 0)
        self._resume_at: datetime | None = None
        self.last_status: int | None = None

    def wait(self) -> None:
        """Wait until the next request may go out, and count it."""
        now = self._now()
        due = max(now, self._resume_at or now)
        if self._limit is not None and len(self._sent) == self._limit:
            due = max(due, self._sent[0] + WINDOW)
        pause = min((due - now).total_seconds(), LONGEST_WAIT)
        if pause > 0:
            LOG.debug("waiting %.1f s for the rate limit", pause)
            self._sleep(pause)
        self._resume_at = self.last_status = None
        self._sent.append(now + timedelta(seconds=pause))

    def heed(self, status: int, headers: Mapping[str, str]) -> None:
        """Take notice of what an answer says about the limit; its status is `last_status` until the next."""
        self.last_status = status
        asked = _retry_after(headers.get("Retry-After"), self._now()) if status in TRANSIENT else None
        if asked is None and (status == 429 or headers.get("X-Ratelimit-Remaining") == "0"):
            asked = _moment(headers.get("X-Ratelimit-Reset"))
        if asked is not None:
            self._resume_at = asked


def _retry_after(value: str | None, now: datetime) -> datetime | None:
    if value is None:
        return None
    if value.strip().isdecimal():
        return now + timedelta(seconds=min(float(value), LONGEST_WAIT))
    try:
        asked = parsedate_to_datetime(value)
    except ValueError:
        return None
    return asked if asked.tzinfo else asked.replace(tzinfo=UTC)


def _moment(seconds: str | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def paced(
    request: Callable[..., Any],
    pace: RequestPace,
    *,
    timeout: float,
    passed_on: Collection[int] = (),
    hosts: Collection[str] | None = None,
    is_usable: Callable[[Any], bool] = lambda _: True,
) -> Callable[..., Any]:
    """A session's ``request`` method that keeps ``pace`` and raises where the answer is no answer.

    Args:
        request: ``requests.Session().request`` or its like: method, url, options.
        pace: shared by all requests of the account.
        timeout: seconds, where the caller gives none (alpaca-py would wait for ever).
        passed_on: statuses of `TRANSIENT` that the library above deals with itself.
        hosts: those that are the vendor's data servers; requests to others pass through. None = all.
        is_usable: tells an answer of status 200 from a page that only looks like one.

    The result raises `RequestFailed`, which names host and path, and no query or header.
    """

    def send(method: str, url: str, **options: Any) -> Any:
        address = urlsplit(url)
        if hosts is not None and address.hostname not in hosts:
            return request(method, url, **options)
        asked = f"{method} {address.scheme}://{address.netloc}{address.path}"
        options.setdefault("timeout", timeout)
        pace.wait()
        try:
            answer = request(method, url, **options)
        except OSError as error:
            raise RequestFailed(f"{asked}: {type(error).__name__}") from error
        pace.heed(answer.status_code, answer.headers)
        if answer.status_code in TRANSIENT and answer.status_code not in passed_on:
            raise RequestFailed(f"{asked}: status {answer.status_code}", status=answer.status_code)
        if answer.status_code == 200 and not is_usable(answer):
            raise RequestFailed(f"{asked}: the answer is not what was asked for", status=200)
        return answer

    return send


def with_attempts(
    call: Callable[[], T],
    *,
    attempts: int,
    sleep: Callable[[float], None],
    again_after: tuple[type[Exception], ...] = (RequestFailed,),
) -> T:
    """The result of ``call``, made up to ``attempts`` times with growing random pauses (0.5 s to 60 s).

    What the last attempt raised is raised in the end.
    """
    from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt
    from tenacity import wait_exponential_jitter as growing

    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=growing(multiplier=0.5, max=60, jitter=0.5),
        retry=retry_if_exception_type(again_after),
        before_sleep=before_sleep_log(LOG, logging.INFO),
        sleep=sleep,
        reraise=True,
    )
    return retrying(call)
