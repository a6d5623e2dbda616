"""Runs of the live edge inside Dagster: bounded, and recorded in ``replay_sessions``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import polars as pl

from garch_platform.orchestration.workspace import Workspace

__all__ = ["LiveRecord", "record_replay", "record_session"]


@dataclass(frozen=True)
class LiveRecord:
    """What a run of the stream client delivered."""

    row: dict[str, Any]
    """The row of ``replay_sessions``."""
    latencies_ms: list[float]
    """A sample of delivery latencies, milliseconds."""
    gaps: pl.DataFrame
    """Rows of ``stream_gaps`` that this run wrote."""
    behind: dict[str, int] = field(default_factory=dict)
    """Symbols of which bars are missing, and how many."""

    def gaps_text(self) -> str:
        """The gaps as a Markdown table."""
        return "none"


def record_replay(
    workspace: Workspace,
    session_id: str,
    *,
    start: date | None,
    end: date | None,
    symbols: Sequence[str],
    speed: str,
    clock: str,
    attach: bool,
) -> LiveRecord:
    """Replay stored sessions through the stream client."""
    raise NotImplementedError


def record_session(workspace: Workspace, session_id: str, now: datetime) -> LiveRecord:
    """Run the client until today's session has closed."""
    raise NotImplementedError
