"""Checks of features, fits and rankings."""

import dagster as dg
import polars as pl

from garch_platform.orchestration.assets.features import compute
from garch_platform.orchestration.checks.evidence import evidence, flag_keys
from garch_platform.quant.features import FEATURE_SCHEMA, FeatureWindows
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet
from garch_platform.workspace.revisions import stale_results
from garch_platform.workspace.windows import previous_features

__all__ = ["feature_keys", "fit_health", "inputs_current", "no_look_ahead", "no_self_pairs"]

SAMPLE = 5
PROBLEM_SHARE = 0.2
COLLINEAR = 0.99999
"""Return correlation from which two legs are taken for one series under two names."""


def feature_keys(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace], features: pl.DataFrame
) -> dg.AssetCheckResult:
    """Feature rows are unique by (symbol, timeframe, timestamp) and each symbol is in `symbols` (blocks)."""
    twice = features.filter(pl.struct("symbol", "timeframe", "timestamp").is_duplicated())
    unknown = sorted(set(features["symbol"]) - set(workspace.symbols()["symbol"]))
    return dg.AssetCheckResult(
        passed=twice.is_empty() and not unknown,
        metadata={
            "unknown_symbols": ", ".join(unknown) or "none",
            **evidence(twice.select("symbol", "timeframe", "timestamp")),
        },
    )


def no_look_ahead(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace], features: pl.DataFrame
) -> dg.AssetCheckResult:
    """Computed again with the later bars that are stored, these features keep their bits (first 5 symbols)."""
    keys = KeySet.of(context.partition_keys)
    names = list(keys.names[:SAMPLE])
    timeframe = workspace.settings.timeframe.name
    later = workspace.calendar.window_start(workspace.calendar.next(keys.end), 1)
    bars = workspace.lake.scan(
        "bars", timeframe=timeframe, symbols=names, start=keys.start, end=later
    ).collect()
    tail = FeatureWindows(**workspace.settings.features.model_dump()).tail
    again = compute(workspace, bars, previous=previous_features(workspace, names, keys.start, rows=tail))
    columns = list(FEATURE_SCHEMA)
    stored = features.filter(pl.col("symbol").is_in(names)).select(columns).sort("symbol", "timestamp")
    again = again.filter(pl.col("session_date").is_in(keys.dates)).select(columns).sort("symbol", "timestamp")
    changed = stored.join(again, on=columns, how="anti", nulls_equal=True)
    return dg.AssetCheckResult(
        passed=changed.is_empty() and len(stored) == len(again),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "compared_rows": len(stored),
            "later_bars": bars.filter(pl.col("session_date") > keys.end).height,
            **evidence(changed),
        },
    )


def fit_health(context: dg.AssetCheckExecutionContext, garch_models: pl.DataFrame) -> dg.AssetCheckResult:
    """At most a fifth of the fits has a problem; the keys without a usable fit are named (warns).

    A parameter at its bound is a problem of the fit that was selected: Student-t degrees of freedom at
    their upper bound only say that the normal fit, which is then selected, is right.
    """
    keys = KeySet.of(context.partition_keys)
    unusable = pl.col("status").is_in(["failed", "insufficient"])
    problems = garch_models.filter(unusable | (pl.col("is_selected") & pl.col("at_boundary")))
    share = len(problems) / len(garch_models) if len(garch_models) else 1.0
    usable = garch_models.filter(~unusable).select("symbol", "fit_date")
    without = garch_models.join(usable, on=["symbol", "fit_date"], how="anti").unique(["symbol", "fit_date"])
    detail = without.with_columns(
        detail=pl.concat_str(["status", "reason"], separator=": ", ignore_nulls=True)
    )
    flag_keys(context, keys, detail, "fit_date")
    return dg.AssetCheckResult(
        passed=share <= PROBLEM_SHARE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "fits": len(garch_models),
            "problem_share": share,
            "allowed_share": PROBLEM_SHARE,
            **evidence(problems.select("symbol", "fit_date", "distribution", "status", "reason", "boundary")),
        },
    )


def no_self_pairs(context: dg.AssetCheckExecutionContext, pair_rankings: pl.DataFrame) -> dg.AssetCheckResult:
    """No pair of a symbol with itself or with a series that is the same under another name has passed (blocks)."""
    same = pl.col("symbol_1") == pl.col("symbol_2")
    proxy = (pl.col("return_correlation").abs() > COLLINEAR) | (pl.col("coint_pvalue") == 0.0)
    bad = pair_rankings.filter(same | (pl.col("passed") & proxy))
    columns = ["sector", "ranking_date", "symbol_1", "symbol_2", "return_correlation", "coint_pvalue"]
    return dg.AssetCheckResult(passed=bad.is_empty(), metadata=evidence(bad.select(columns)))


def inputs_current(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.AssetCheckResult:
    """No stored result rests on bars that were revised since (warns); `garch stale` lists the same rows."""
    stale = stale_results(workspace)
    return dg.AssetCheckResult(
        passed=stale.is_empty(), severity=dg.AssetCheckSeverity.WARN, metadata=evidence(stale)
    )
