"""Requests go out no faster than agreed, and no sooner than the server said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from garch_platform.rest.request_pace import RequestPace

START = datetime.fromtimestamp(1000, UTC)


class Clock:
    """A clock that sleeping turns."""

    def __init__(self) -> None:
        self.moment = START

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def pace_of(limit: int | None, clock: Clock) -> RequestPace:
    return RequestPace(limit, sleep=clock.sleep, now=clock.now)


def sent(pace: RequestPace, clock: Clock, count: int) -> list[float]:
    """Seconds since 1970 at which ``count`` requests went out."""
    moments = []
    for _ in range(count):
        pace.wait()
        moments.append(clock.moment.timestamp())
    return moments


def test_no_minute_has_more_than_agreed() -> None:
    clock = Clock()
    assert sent(pace_of(3, clock), clock, 8) == [1000.0] * 3 + [1060.0] * 3 + [1120.0] * 2


def test_without_a_limit_nothing_waits() -> None:
    clock = Clock()
    assert sent(pace_of(None, clock), clock, 50) == [1000.0] * 50


def test_the_server_says_when_to_go_on() -> None:
    clock = Clock()
    pace = pace_of(100, clock)
    pace.heed(200, {"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "1007"})
    assert sent(pace, clock, 2) == [1007.0, 1007.0]
    pace.heed(200, {"X-Ratelimit-Remaining": "5", "X-Ratelimit-Reset": "1050"})
    pace.heed(200, {"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "soon"})
    assert sent(pace, clock, 1) == [1007.0]
    pace.heed(429, {"Retry-After": "20"})
    assert sent(pace, clock, 1) == [1027.0]
    pace.heed(200, {"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "99999"})
    assert sent(pace, clock, 1) == [1327.0]
