"""The stream client: live bars, from Alpaca or from the recycler, into the table ``market_data``."""

from __future__ import annotations

from garch_platform.stream.client import StreamClient, StreamOptions
from garch_platform.stream.counts import Counts, StreamSummary
from garch_platform.stream.service import build, run
from garch_platform.stream.status import StreamStatus, read_status

__all__ = [
    "Counts",
    "StreamClient",
    "StreamOptions",
    "StreamStatus",
    "StreamSummary",
    "build",
    "read_status",
    "run",
]
