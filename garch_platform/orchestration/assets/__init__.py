"""The asset graph in one place: what each asset is partitioned by, depends on, and writes to.

::

    bar_history ──> feature_history          symbol (bulk past)
                          │
    raw_bars ────────> features ──> stability ──> garch_models     symbol x trading day
                                                       │
                                   pair_rankings ──> scan_ledger   sector x trading day

    hourly_bars, yahoo_bars, company_info                          symbol (vendors)
    broker_assets, corporate_actions                               unpartitioned (vendors)
    replay_session, live_session                                   unpartitioned (the live edge)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from garch_platform.bars import BAR_SCHEMA
from garch_platform.orchestration.assets.bars import bar_history, raw_bars
from garch_platform.orchestration.assets.features import LAKE_COLUMNS, feature_history, features
from garch_platform.orchestration.assets.live import live_session, replay_session
from garch_platform.orchestration.assets.models import garch_models, stability
from garch_platform.orchestration.assets.pairs import pair_rankings, scan_ledger
from garch_platform.orchestration.assets.reference import (
    broker_assets,
    company_info,
    corporate_actions,
    hourly_bars,
    yahoo_bars,
)
from garch_platform.orchestration.metadata import database_schema, frame_schema
from garch_platform.orchestration.partitions import DATE, SYMBOL, Partitions
from garch_platform.quant.features import FEATURE_SCHEMA
from garch_platform.store.schema import METADATA

__all__ = ["build_assets"]

OWNERS = ["team:research"]
SINGLE_RUN = dg.BackfillPolicy.single_run()


def build_assets(partitions: Partitions) -> list[dg.AssetsDefinition]:
    """Bind the asset bodies to the partitions of one workspace."""
    of_symbol = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name=SYMBOL)
    same_day = dg.MultiPartitionMapping(
        {DATE: dg.DimensionPartitionMapping(DATE, dg.IdentityPartitionMapping())}
    )
    return [
        _lake_asset(bar_history, partitions.symbols, "bars", "bars", BAR_SCHEMA),
        _lake_asset(
            feature_history, partitions.symbols, "features", "features", FEATURE_SCHEMA | LAKE_COLUMNS
        ),
        _lake_asset(raw_bars, partitions.symbol_days, "bars", "bars", BAR_SCHEMA),
        _lake_asset(
            features,
            partitions.symbol_days,
            "features",
            "features",
            FEATURE_SCHEMA | LAKE_COLUMNS,
            deps=[dg.AssetDep("feature_history", partition_mapping=of_symbol)],
        ),
        _database_asset(
            stability,
            partitions.symbol_days,
            "models",
            "variance_stability_tracking",
            ("symbol", "test_date"),
            kinds={"numba"},
            deps=["features"],
        ),
        _database_asset(
            garch_models,
            partitions.symbol_days,
            "models",
            "garch_models",
            ("symbol", "fit_date"),
            kinds={"numba"},
            deps=["features", "stability"],
        ),
        _database_asset(
            pair_rankings,
            partitions.sector_days,
            "pairs",
            "pair_rankings",
            ("sector", "ranking_date"),
            kinds={"numba"},
            deps=[
                dg.AssetDep(name, partition_mapping=same_day)
                for name in ("features", "stability", "garch_models")
            ],
        ),
        _database_asset(
            scan_ledger,
            partitions.sector_days,
            "pairs",
            "scan_ledger",
            ("sector", "ranking_date"),
            kinds={"numba"},
            deps=[dg.AssetDep(name, partition_mapping=same_day) for name in ("features", "stability")],
        ),
        _table_asset(hourly_bars, "vendors", "bars", BAR_SCHEMA, partitions.symbols),
        _table_asset(yahoo_bars, "vendors", "bars", BAR_SCHEMA, partitions.symbols),
        _table_asset(company_info, "vendors", "company_info", None, partitions.symbols),
        _table_asset(broker_assets, "vendors", "broker_assets", None),
        _table_asset(corporate_actions, "vendors", "corporate_actions", None),
        _table_asset(replay_session, "live", "replay_sessions", None, deps=["bar_history", "raw_bars"]),
        _table_asset(live_session, "live", "replay_sessions", None),
    ]


def _table_asset(
    body: Callable[..., Any],
    group: str,
    table: str,
    schema: Mapping[str, Any] | None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    *,
    deps: list[str] | None = None,
) -> dg.AssetsDefinition:
    """An asset that writes its rows itself: to the lake if ``schema`` is given, else to the database."""
    columns = frame_schema(schema) if schema else database_schema(METADATA.tables[table])
    return dg.asset(
        partitions_def=partitions_def,
        group_name=group,
        kinds={"polars", "deltalake" if schema else "sql"},
        owners=OWNERS,
        deps=deps,
        backfill_policy=SINGLE_RUN if partitions_def else None,
        metadata={"table": table, "dagster/column_schema": columns},
    )(body)


def _lake_asset(
    body: Callable[..., Any],
    partitions_def: dg.PartitionsDefinition[str],
    group: str,
    table: str,
    schema: Mapping[str, Any],
    *,
    deps: list[Any] | None = None,
) -> dg.AssetsDefinition:
    return dg.asset(
        partitions_def=partitions_def,
        group_name=group,
        kinds={"polars", "deltalake"},
        owners=OWNERS,
        deps=deps,
        io_manager_key="lake_io",
        backfill_policy=SINGLE_RUN,
        metadata={"table": table, "dagster/column_schema": frame_schema(schema)},
    )(body)


def _database_asset(
    body: Callable[..., Any],
    partitions_def: dg.PartitionsDefinition[str],
    group: str,
    table: str,
    key_columns: tuple[str, str],
    *,
    kinds: set[str],
    deps: list[Any],
) -> dg.AssetsDefinition:
    name_column, date_column = key_columns
    return dg.asset(
        partitions_def=partitions_def,
        group_name=group,
        kinds={"polars", "sql", *kinds},
        owners=OWNERS,
        deps=deps,
        io_manager_key="database_io",
        backfill_policy=SINGLE_RUN,
        metadata={
            "table": table,
            "name_column": name_column,
            "date_column": date_column,
            "dagster/column_schema": database_schema(METADATA.tables[table]),
        },
    )(body)
