"""The jobs. A job holds one partitions definition, so the day's chain is daily -> ranking.

The daily job is kept short: the workspace's own bars, preprocessing and training. Hourly history, Yahoo's
data and the maintenance of symbols are jobs of their own.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from garch_platform.bars import Timeframe

__all__ = [
    "DAILY_JOB",
    "HISTORY_JOB",
    "HOURLY_JOB",
    "MAINTENANCE_JOB",
    "RANKING_JOB",
    "RECYCLER_JOB",
    "STREAM_JOB",
    "YAHOO_JOB",
    "build_jobs",
]

HISTORY_JOB = "history_job"
DAILY_JOB = "daily_pair_identification_job"
RANKING_JOB = "ranking_job"
HOURLY_JOB = "hourly_history_job"
YAHOO_JOB = "yahoo_job"
MAINTENANCE_JOB = "symbol_maintenance_job"
RECYCLER_JOB = "recycler_job"
STREAM_JOB = "stream_job"


def build_jobs(timeframe: Timeframe) -> list[Any]:
    """Research jobs by symbol, symbol x date and sector x date; vendors' jobs; the live edge's jobs.

    Yahoo's daily bars are left out where ``timeframe``, the workspace's own, is daily: `raw_bars` loads those.
    """
    beside = ["company_info"] if timeframe.is_daily else ["yahoo_bars", "company_info"]
    return [
        dg.define_asset_job(
            HISTORY_JOB,
            selection=dg.AssetSelection.assets("bar_history", "feature_history"),
            description="Load a symbol's bulk past and compute its features.",
        ),
        dg.define_asset_job(
            DAILY_JOB,
            selection=dg.AssetSelection.assets("raw_bars", "features", "stability", "garch_models"),
            description="One session of all symbols: bars, features, stability verdicts, GARCH fits.",
        ),
        dg.define_asset_job(
            RANKING_JOB,
            selection=dg.AssetSelection.assets("pair_rankings", "scan_ledger"),
            description="All pairs of a sector on one session, ranked, beside what chance alone would pass.",
        ),
        dg.define_asset_job(
            HOURLY_JOB,
            selection=dg.AssetSelection.assets("hourly_bars"),
            description="Alpaca's hourly bars since the last stored one.",
        ),
        dg.define_asset_job(
            YAHOO_JOB,
            selection=dg.AssetSelection.assets(*beside),
            description="Yahoo's company information, and its daily bars beside those of another length.",
        ),
        dg.define_asset_job(
            MAINTENANCE_JOB,
            selection=dg.AssetSelection.assets("broker_assets", "corporate_actions"),
            description="What is tradable, delistings and renames, splits and dividends.",
        ),
        dg.define_asset_job(
            RECYCLER_JOB,
            selection=dg.AssetSelection.assets("replay_session"),
            description="Replay stored bars as a live feed through the stream client, and record what arrived.",
        ),
        dg.define_asset_job(
            STREAM_JOB,
            selection=dg.AssetSelection.assets("live_session"),
            description="Run the stream client until the session has closed, and record what arrived.",
        ),
    ]
