"""Stability verdicts and GARCH fits, one row a symbol and session."""

from datetime import date

import dagster as dg
import numpy as np
import polars as pl

from garch_platform.orchestration.metadata import mark_failed, plot
from garch_platform.quant.adequacy import model_adequacy
from garch_platform.quant.stability import StabilityGate, apply_gate, stability_tests
from garch_platform.quant.volatility import fit_garch_batch
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet
from garch_platform.workspace.windows import Window, read_window

__all__ = ["garch_models", "stability"]

NO_BARS = "no_bars"
"""Reason of a symbol that has no bar in the session."""


def stability(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.Output[pl.DataFrame]:
    """ARCH-LM, rolling-deviation variation and Ljung-Box of the formation window's returns, with a verdict and its reason under the configured gate.

    A symbol without a bar in the session is not stable, reason `no_bars`. ARCH-LM on returns says "there is something to model", not "a model would be unstable".
    """  # noqa: E501
    keys = KeySet.of(context.partition_keys)
    tables, version = [], None
    for day in keys.dates:
        window = read_window(workspace, keys.names, day, sessions=workspace.settings.formation.sessions)
        tables.append(_verdicts(workspace, window))
        version = window.version
    rows = pl.concat(tables)
    counts = rows.group_by(verdict=pl.col("filter_reason").fill_null("stable")).len().sort("verdict")
    chart = plot(lambda axes: axes.barh(counts["verdict"], counts["len"]), title="Verdicts")
    return dg.Output(
        rows,
        metadata={
            "verdicts": chart,
            "stable": int(rows["is_stable"].sum()),
            "lake_version_read": version or 0,
        },
    )


def _verdicts(workspace: Workspace, window: Window) -> pl.DataFrame:
    settings = workspace.settings.stability
    tests = stability_tests(
        window.returns,
        test_window=settings.test_window,
        arch_lags=settings.arch_lags,
        ljung_box_lags=settings.ljung_box_lags,
        min_observations=settings.min_observations,
    )
    verdicts = apply_gate(tests, StabilityGate(**settings.gates[settings.gate].model_dump()))
    silent = pl.col("symbol").is_in(window.silent)
    return (
        _stamp(window, verdicts, "test_date")
        .with_columns(
            filter_reason=pl.when(silent).then(pl.lit(NO_BARS)).otherwise("filter_reason"),
            gate=pl.lit(settings.gate),
            test_window=pl.lit(settings.test_window),
            arch_lags=pl.lit(settings.arch_lags),
            ljung_box_lags=pl.lit(settings.ljung_box_lags),
        )
        .drop("reason")
    )


def garch_models(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.Output[pl.DataFrame]:
    """GARCH(1,1) of every symbol by maximum likelihood, normal and Student-t, each with its health; the one of lower BIC is selected.

    `adequacy` judges the model on its standardised residuals (Ljung-Box of them and of their squares, ARCH-LM, Holm at 5 %); sign bias and breaks are reported beside it. A fit that fails is a row with its status, its reason and the forecast of a fallback; so is a symbol without a bar in the session.
    """  # noqa: E501
    keys = KeySet.of(context.partition_keys)
    tables, version = [], None
    for day in keys.dates:
        window = read_window(workspace, keys.names, day, sessions=workspace.settings.garch.sessions)
        tables.append(_fits(workspace, window))
        version = window.version
    rows = pl.concat(tables)
    nothing_fitted = (pl.col("status") == "failed").all().over("symbol", "fit_date")
    failed = rows.filter(nothing_fitted).select("symbol", "fit_date", "reason").unique(["symbol", "fit_date"])
    mark_failed(context, {keys.key(symbol, day): reason for symbol, day, reason in failed.iter_rows()})
    persistence = rows.filter("is_selected")["persistence"].drop_nulls()
    chart = plot(
        lambda axes: axes.hist(persistence, bins=20, range=(min(0.5, *persistence, 1.0), 1.0)),
        title="Persistence (alpha + beta)",
    )
    return dg.Output(
        rows,
        metadata={
            "persistence": chart,
            "lake_version_read": version or 0,
            "failed": len(failed),
        },
    )


def _fits(workspace: Workspace, window: Window) -> pl.DataFrame:
    settings = workspace.settings
    per_year = settings.calendar.bars_per_year(settings.formation_timeframe)
    tables = []
    for distribution in settings.garch.distributions:
        batch = fit_garch_batch(
            window.returns,
            dist=distribution,
            min_observations=settings.garch.min_observations,
            weak_observations=settings.garch.weak_observations,
        )
        errors = {name: f"se_{name.removesuffix('_se')}" for name in batch.standard_errors.columns}
        adequacy = model_adequacy(batch.standardised_residuals)
        table = batch.table.rename(errors).with_columns(
            adequacy=adequacy["verdict"],
            adequacy_failing=adequacy["failing"],
            joint_sign_bias_pvalue=adequacy["joint_sign_bias_pvalue"],
            cusum_squares_pvalue=adequacy["cusum_squares_pvalue"],
        )
        tables.append(_stamp(window, table, "fit_date").with_columns(distribution=pl.lit(distribution)))
    unconditional = pl.col("omega") / (1 - pl.col("persistence"))
    usable = pl.col("status").is_in(["ok", "weak"])
    best = pl.when(usable).then(pl.col("bic")).min().over("symbol")
    silent = pl.col("symbol").is_in(window.silent)
    return pl.concat(tables).with_columns(
        status=pl.when(silent).then(pl.lit("failed")).otherwise("status"),
        reason=pl.when(silent).then(pl.lit(NO_BARS)).otherwise("reason"),
        model=pl.lit("GARCH(1,1)"),
        timeframe=pl.lit(settings.formation_timeframe.name),
        volatility_annualized=pl.when(pl.col("persistence") < 1).then((unconditional * per_year).sqrt()),
        is_selected=(usable & (pl.col("bic") == best)).fill_null(False),
    )


def _stamp(window: Window, table: pl.DataFrame, date_column: str) -> pl.DataFrame:
    day: date = window.end
    return table.with_columns(
        pl.Series("symbol", window.symbols, dtype=pl.String),
        pl.Series("input_hash", [window.hashes[name] for name in window.symbols], dtype=pl.String),
        pl.lit(day).alias(date_column),
        window_start=pl.lit(window.start),
        window_end=pl.lit(window.end),
        lake_version=pl.lit(window.version, pl.Int64),
    ).with_columns(pl.selectors.float().replace(np.inf, None))
