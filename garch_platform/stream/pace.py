"""How often the REST interface is asked: no faster than agreed, no sooner than the server says."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["Pace"]

WINDOW_SECONDS: Final = 60.0
LONGEST_WAIT: Final = 60.0


class Pace:
    """A limit on the requests of any 60 seconds; several threads may share it.

    Args:
        requests_per_minute: at most; null = no limit but the server's.
        stopping: set it to cut a wait short.
        now: seconds since 1970, as the server's headers count them.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        stopping: threading.Event,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._limit = requests_per_minute
        self._stopping = stopping
        self._now = now
        self._sent: deque[float] = deque(maxlen=requests_per_minute)
        self._resume_at = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the next request may go out, and count it."""
        with self._lock:
            now = self._now()
            due = max(now, self._resume_at)
            if self._limit is not None and len(self._sent) == self._limit:
                due = max(due, self._sent[0] + WINDOW_SECONDS)
            due = min(due, now + LONGEST_WAIT)
            if self._limit is not None:
                self._sent.append(due)
        if due > now:
            self._stopping.wait(due - now)

    def heed(self, headers: Mapping[str, str]) -> None:
        """Take notice of an answer: none left (``X-Ratelimit-Remaining``) until ``X-Ratelimit-Reset``."""
        if headers.get("X-Ratelimit-Remaining") != "0":
            return
        try:
            self._resume_at = float(headers.get("X-Ratelimit-Reset") or 0.0)
        except ValueError:
            return
