"""The present moment and waiting, as the player asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Protocol

__all__ = ["LONGEST_WAIT", "Time", "WallTime"]

LONGEST_WAIT: Final = 3600.0
"""Seconds."""
EXACT_WAIT: Final = 0.25
MOST_OF: Final = 0.99


class Time(Protocol):
    """The present moment, and waiting; tests bring their own."""

    def now(self) -> datetime:
        """The present moment, UTC."""
        ...

    def wait(self, seconds: float, changed: asyncio.Event) -> Awaitable[None]:
        """Return after ``seconds`` (infinite: never) or when ``changed`` is set; sooner does no harm."""
        ...


class WallTime:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The present moment, UTC."""
        return datetime.now(UTC)

    async def wait(self, seconds: float, changed: asyncio.Event) -> None:
        """Sleep for most of ``seconds``, so that the rest can be waited for exactly; less if ``changed`` is set.

        Linux ends a wait up to a thousandth of its length late: 60 ms in a minute.
        """
        most = seconds if seconds < EXACT_WAIT else MOST_OF * seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(min(most, LONGEST_WAIT)):
                await changed.wait()
