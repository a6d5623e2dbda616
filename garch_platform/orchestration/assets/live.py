"""What the live edge delivered: a replay of stored bars, and a session of Alpaca's stream."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from garch_platform.orchestration.metadata import plot
from garch_platform.orchestration.supervision import STREAM_TAIL
from garch_platform.workspace import Workspace
from garch_platform.workspace.live import LiveRecord, record_replay, record_session

__all__ = ["ReplayConfig", "live_session", "replay_session"]

SHOWN_GAPS = 50


class ReplayConfig(dg.Config):
    """What `replay_session` replays; what is left out is the last stored session, in full."""

    start_date: str | None = None
    end_date: str | None = None
    symbols: list[str] = Field(default_factory=list)
    speed: str = "max"
    clock: str = "historical"
    attach: bool = False


def replay_session(
    context: dg.AssetExecutionContext, config: ReplayConfig, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[None]:
    """Stored bars, replayed by the recycler and received by the stream client.

    Starts a recycler for the sessions named in the run's config (or attaches to the one that listens on
    `websocket.recycler.server_url`), streams them through the client into `market_data` as `recycled`
    rows, and says what arrived against what was stored.
    """
    start, end = (date.fromisoformat(day) if day else None for day in (config.start_date, config.end_date))
    record = record_replay(
        workspace,
        context.run.run_id,
        start=start,
        end=end,
        symbols=config.symbols,
        speed=config.speed,
        clock=config.clock,
        attach=config.attach,
    )
    return _recorded(record)


def live_session(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[None]:
    """Alpaca's stream of today's session, from now until it has closed, into `market_data`.

    Running it again while the session lasts fills what was missed in between.
    """
    tail = STREAM_TAIL.total_seconds()
    return _recorded(record_session(workspace, context.run.run_id, datetime.now(UTC), tail_seconds=tail))


def _recorded(record: LiveRecord) -> dg.MaterializeResult[None]:
    latencies, gaps = record.latencies_ms, record.gaps
    shown: dict[str, Any] = {
        name: value for name, value in record.row.items() if isinstance(value, int | float | str)
    }
    if latencies:
        shown["latency"] = plot(lambda axes: axes.hist(latencies, bins=40), title="Delivery latency (ms)")
    lines = [" | ".join(str(value) for value in row) for row in gaps.head(SHOWN_GAPS).iter_rows()]
    head = [" | ".join(gaps.columns), "|".join("---" for _ in gaps.columns)]
    return dg.MaterializeResult(
        metadata={
            **shown,
            "symbols_behind": record.behind,
            "gaps_asked": dg.MetadataValue.md("\n".join([*head, *lines]) if lines else "none"),
        }
    )
