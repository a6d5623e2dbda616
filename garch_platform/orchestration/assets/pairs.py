"""Pair rankings, one row a pair of the sector and session."""

from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from garch_platform.orchestration.metadata import plot
from garch_platform.orchestration.partitions import KeySet
from garch_platform.orchestration.windows import Window, read_window
from garch_platform.orchestration.workspace import Workspace
from garch_platform.quant.pairs import PairGates, rank_pairs, spread

__all__ = ["pair_rankings", "read_pair_window"]


def pair_rankings(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.Output[pl.DataFrame]:
    """Every pair of a sector with its evidence: correlation, Engle-Granger both ways, hedge ratio, half-life, composite score, rank or the gate at which it fell.

    Formation and out-of-sample bars do not overlap. Which legs are left out is decided by the session's own stability verdicts, whose window ends with the session. The `classic` gates are the original documents';
    they pass pairs by chance, so a rank is a place in a list and no claim of cointegration.
    """  # noqa: E501
    keys = KeySet.of(context.partition_keys)
    tables: list[pl.DataFrame] = []
    metadata: dict[str, Any] = {}
    for day in keys.dates:
        for sector in keys.names:
            window = read_pair_window(workspace, workspace.sector_symbols(sector, day), day)
            ranked = _rank(workspace, window, sector, day)
            tables.append(ranked)
            passed = ranked.filter("passed")
            if context.has_partition_key or not passed.is_empty() or not metadata:
                metadata = _shown(window, ranked)
            shown = {"pairs": len(ranked), "passed": len(passed), "status": "ok"}
            context.add_asset_metadata(shown, partition_key=keys.key(sector, day))
    return dg.Output(pl.concat(tables), metadata=metadata)


def read_pair_window(workspace: Workspace, symbols: list[str], day: date) -> Window:
    """Formation and out-of-sample sessions up to ``day``."""
    formation = workspace.settings.formation
    return read_window(
        workspace, symbols, day, sessions=formation.sessions + formation.out_of_sample_sessions
    )


def _rank(workspace: Workspace, window: Window, sector: str, day: date) -> pl.DataFrame:
    settings = workspace.settings
    judged_from = settings.calendar.window_start(day, settings.formation.out_of_sample_sessions)
    ranked = rank_pairs(
        window.log_closes.drop("session_date"),
        out_of_sample_start=window.first_bar(judged_from),
        gates=PairGates(**settings.pairs.model_dump(exclude={"profile"})),
        bars_per_year=settings.calendar.bars_per_year(settings.formation_timeframe),
        excluded=_excluded(workspace, window, day),
        session_ids=window.log_closes["session_date"] if window.intraday else None,
        min_observations=settings.garch.min_observations,
    )
    return ranked.with_columns(
        sector=pl.lit(sector),
        ranking_date=pl.lit(day),
        profile=pl.lit(settings.pairs.profile),
        formation_start=pl.lit(window.start),
        formation_end=pl.lit(settings.calendar.previous(judged_from)),
        out_of_sample_start=pl.lit(judged_from),
        out_of_sample_end=pl.lit(day),
        lake_version=pl.lit(window.version, pl.Int64),
        input_hash=pl.lit(window.panel_hash),
    )


def _excluded(workspace: Workspace, window: Window, day: date) -> dict[str, str]:
    verdicts = workspace.database.read_table(
        "variance_stability_tracking", symbol=list(window.symbols), test_date=[day]
    )
    reasons = {
        symbol: f"unstable variance: {reason}"
        for symbol, stable, reason in verdicts.select("symbol", "is_stable", "filter_reason").iter_rows()
        if not stable
    }
    tested = set(verdicts["symbol"])
    return reasons | {
        symbol: "no stability verdict for this session" for symbol in window.symbols if symbol not in tested
    }


def _shown(window: Window, ranked: pl.DataFrame) -> dict[str, Any]:
    """The best pairs and the spread of the first; where none passes every gate, the nearest ones."""
    metadata: dict[str, Any] = {"lake_version_read": window.version or 0}
    order = {"rank": False, "score": True, "symbol_1": False, "symbol_2": False}
    best_pairs = ranked.drop_nulls("score").sort(
        list(order), descending=list(order.values()), nulls_last=True
    )
    if best_pairs.is_empty():
        return metadata
    best = best_pairs.row(0, named=True)
    panel = window.log_closes.select("timestamp", y=best["symbol_y"], x=best["symbol_x"]).drop_nulls()
    values = spread(
        panel["y"].to_numpy(),
        panel["x"].to_numpy(),
        hedge_ratio=best["hedge_ratio"],
        intercept=best["intercept"],
    )

    def draw(axes: Any) -> None:
        axes.plot(panel["timestamp"], values, lw=0.7)
        for width in (-2, 0, 2):
            axes.axhline(best["spread_mean"] + width * best["spread_std"], lw=0.6, ls="--", color="grey")

    verdict = "" if best["passed"] else " (not passed)"
    title = (
        f"{best['symbol_y']} - {best['hedge_ratio']:.3f} {best['symbol_x']}{verdict}, bands at 2 deviations"
    )
    shown = ("rank", "symbol_1", "symbol_2", "score", "coint_pvalue", "half_life")
    top = best_pairs.head(10).select(shown)
    records = [
        dg.TableRecord({name: _shown_value(value) for name, value in row.items()})
        for row in top.iter_rows(named=True)
    ]
    return metadata | {"best_spread": plot(draw, title=title), "top_pairs": dg.MetadataValue.table(records)}


def _shown_value(value: str | float | None) -> str | float:
    return "" if value is None else round(value, 4) if isinstance(value, float) else value
