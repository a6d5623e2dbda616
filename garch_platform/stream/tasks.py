"""Tasks of the event loop that have to end."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["cancelled"]


async def cancelled(task: asyncio.Future[Any]) -> None:
    """End ``task``; a cancellation that a library swallows is repeated."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.2)
