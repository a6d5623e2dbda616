"""Pair rankings and their ledger, for each sector and session."""

from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from garch_platform.orchestration.metadata import plot
from garch_platform.quant.pairs.floor import selection_floor
from garch_platform.quant.pairs.power import with_detectable_half_life
from garch_platform.quant.pairs.selection import scan_ledger as count_stages
from garch_platform.quant.pairs.selection import select_pairs
from garch_platform.quant.pairs.spread import spread
from garch_platform.scanning.file_scan import FLOOR_SEED
from garch_platform.scanning.rules import selection_rules
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet
from garch_platform.workspace.pair_windows import PairWindow

__all__ = ["pair_rankings", "scan_ledger"]


def pair_rankings(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.Output[pl.DataFrame]:
    """Every pair of a sector with its evidence and two verdicts: correlation, Engle-Granger both ways, Johansen, KSS, hedge ratio, half-life, confirmation on later bars, composite score, rank or the gate at which it fell.

    Formation, confirmation and performance bars do not overlap. `honest` controls the false discovery rate over the pairs that reach the confirmation; `classic` holds the original documents' thresholds, under which symbols of unstable variance are left out.
    """  # noqa: E501
    keys = KeySet.of(context.partition_keys)
    tables: list[pl.DataFrame] = []
    metadata: dict[str, Any] = {}
    for day in keys.dates:
        for sector in keys.names:
            window = PairWindow.read(workspace, workspace.sector_symbols(sector, day), day)
            ranked = _rank(workspace, window, sector, day)
            tables.append(ranked)
            passed = ranked.filter("passed")
            if context.has_partition_key or not passed.is_empty() or not metadata:
                metadata = _shown(window, ranked)
            shown = {"pairs": len(ranked), "passed": len(passed), "status": "ok"}
            context.add_asset_metadata(shown, partition_key=keys.key(sector, day))
    return dg.Output(pl.concat(tables), metadata=metadata)


def scan_ledger(
    context: dg.AssetExecutionContext,
    workspace: dg.ResourceParam[Workspace],
    pair_rankings: pl.DataFrame,
) -> dg.Output[pl.DataFrame]:
    """How many pairs each stage of a ranking left, how many the same selection passes on markets like this one without any cointegration (wild bootstrap), and the longest half-life that it could find."""  # noqa: E501
    keys = KeySet.of(context.partition_keys)
    tables = []
    for day in keys.dates:
        for sector in keys.names:
            ranked = pair_rankings.filter(pl.col("sector") == sector, pl.col("ranking_date") == day)
            window = PairWindow.read(workspace, workspace.sector_symbols(sector, day), day)
            tables.append(_ledger(workspace, window, ranked, sector, day))
    rows = pl.concat(tables)
    records = [
        dg.TableRecord({name: _shown_value(value) for name, value in row.items()})
        for row in rows.tail(2).drop("ranking_date", "input_hash").iter_rows(named=True)
    ]
    return dg.Output(rows, metadata={"last_ranking": dg.MetadataValue.table(records)})


def _rank(workspace: Workspace, window: PairWindow, sector: str, day: date) -> pl.DataFrame:
    settings = workspace.settings
    selection = select_pairs(
        window.panel,
        rules=selection_rules(settings),
        bars_per_year=settings.calendar.bars_per_year(settings.formation_timeframe),
        excluded=window.excluded,
        unstable=window.unstable,
        silent=window.silent,
        min_observations=settings.garch.min_observations,
    )
    return selection.table.with_columns(
        sector=pl.lit(sector),
        ranking_date=pl.lit(day),
        **{name: pl.lit(value) for name, value in window.dates.items()},
        lake_version=pl.lit(window.bars.version, pl.Int64),
        input_hash=pl.lit(window.bars.panel_hash),
    )


def _ledger(
    workspace: Workspace, window: PairWindow, ranked: pl.DataFrame, sector: str, day: date
) -> pl.DataFrame:
    rules, panel = selection_rules(workspace.settings), window.panel.without(window.excluded)
    floor = selection_floor(
        panel,
        rules=rules,
        draws=workspace.settings.pairs.floor_draws,
        seed=FLOOR_SEED,
        unstable=window.unstable,
        silent=window.silent,
        min_observations=workspace.settings.garch.min_observations,
    )
    stages = count_stages(ranked, rules=rules)
    return with_detectable_half_life(
        stages.join(floor.summary, on="profile", maintain_order="left"), panel, rules=rules
    ).with_columns(
        sector=pl.lit(sector),
        ranking_date=pl.lit(day),
        lake_version=pl.lit(window.bars.version, pl.Int64),
        input_hash=pl.lit(window.bars.panel_hash),
    )


def _shown(window: PairWindow, ranked: pl.DataFrame) -> dict[str, Any]:
    """The best pairs and the spread of the first; where none passes every gate, the nearest ones."""
    metadata: dict[str, Any] = {"lake_version_read": window.bars.version or 0}
    order = {"rank": False, "score": True, "symbol_1": False, "symbol_2": False}
    best_pairs = ranked.drop_nulls("score").sort(
        list(order), descending=list(order.values()), nulls_last=True
    )
    if best_pairs.is_empty():
        return metadata
    best = best_pairs.row(0, named=True)
    closes = window.bars.log_closes.select("timestamp", y=best["symbol_y"], x=best["symbol_x"]).drop_nulls()
    values = spread(
        closes["y"].to_numpy(),
        closes["x"].to_numpy(),
        hedge_ratio=best["hedge_ratio"],
        intercept=best["intercept"],
    )

    def draw(axes: Any) -> None:
        axes.plot(closes["timestamp"], values, lw=0.7)
        for width in (-2, 0, 2):
            axes.axhline(best["spread_mean"] + width * best["spread_std"], lw=0.6, ls="--", color="grey")

    verdict = "" if best["passed"] else " (not passed)"
    title = (
        f"{best['symbol_y']} - {best['hedge_ratio']:.3f} {best['symbol_x']}{verdict}, bands at 2 deviations"
    )
    shown = (
        "rank",
        "symbol_1",
        "symbol_2",
        "score",
        "coint_pvalue",
        "confirmation_qvalue",
        "half_life",
        "gate",
    )
    records = [
        dg.TableRecord({name: _shown_value(value) for name, value in row.items()})
        for row in best_pairs.head(10).select(shown).iter_rows(named=True)
    ]
    return metadata | {"best_spread": plot(draw, title=title), "top_pairs": dg.MetadataValue.table(records)}


def _shown_value(value: str | float | None) -> str | float:
    return "" if value is None else round(value, 4) if isinstance(value, float) else value
