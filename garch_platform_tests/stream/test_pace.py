"""Requests go out no faster than agreed, and no sooner than the server said."""

from __future__ import annotations

import threading

from garch_platform.stream.pace import Pace


class Clock(threading.Event):
    """A clock that waiting turns."""

    def __init__(self) -> None:
        super().__init__()
        self.moment = 1000.0

    def wait(self, timeout: float | None = None) -> bool:
        self.moment += timeout or 0.0
        return False


def sent(pace: Pace, clock: Clock, count: int) -> list[float]:
    moments = []
    for _ in range(count):
        pace.wait()
        moments.append(clock.moment)
    return moments


def test_no_minute_has_more_than_agreed() -> None:
    clock = Clock()
    moments = sent(Pace(3, clock, now=lambda: clock.moment), clock, 8)
    assert moments == [1000.0] * 3 + [1060.0] * 3 + [1120.0] * 2


def test_without_a_limit_nothing_waits() -> None:
    clock = Clock()
    assert sent(Pace(None, clock, now=lambda: clock.moment), clock, 50) == [1000.0] * 50


def test_the_server_says_when_to_go_on() -> None:
    clock = Clock()
    pace = Pace(100, clock, now=lambda: clock.moment)
    pace.heed({"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "1007"})
    assert sent(pace, clock, 2) == [1007.0, 1007.0]
    pace.heed({"X-Ratelimit-Remaining": "5", "X-Ratelimit-Reset": "1050"})
    pace.heed({"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "soon"})
    assert sent(pace, clock, 1) == [1007.0]
    pace.heed({"X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": "99999"})
    assert sent(pace, clock, 1) == [1067.0]
