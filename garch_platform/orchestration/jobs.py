"""The three jobs. A job holds one partitions definition, so the day's chain is daily -> ranking."""

from __future__ import annotations

from typing import Any

import dagster as dg

__all__ = ["DAILY_JOB", "HISTORY_JOB", "RANKING_JOB", "build_jobs"]

HISTORY_JOB = "history_job"
DAILY_JOB = "daily_pair_identification_job"
RANKING_JOB = "ranking_job"


def build_jobs() -> list[Any]:
    """History (symbol), daily pair identification (symbol x date), ranking (sector x date)."""
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
    ]
