"""The self-contained HTML report: ranked pairs, rejections, verdicts, plots; no outside resource."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from garch_platform.quant.pairs.rules import PROFILES
from garch_platform.quant.pairs.spread import spread
from garch_platform.quant.stability import StabilityGate, apply_gate
from garch_platform.reporting.page import BLUE, GREY, RED, Grid, Plot, draw_plot, headed, write_page
from garch_platform.reporting.selection import CHANCE_NOTE, PAIR_DECIMALS, PAIR_HEADINGS, verdict_text
from garch_platform.workspace import Workspace
from garch_platform.workspace.demo import found_against_planted
from garch_platform.workspace.outcomes import RankingOutcome, last_ranking_date
from garch_platform.workspace.pair_windows import PairWindow

__all__ = ["write_report"]

PLOTTED_PAIRS = 4
PLANTED_HEADINGS: dict[str, str] = {
    "symbol_1": "leg",
    "symbol_2": "leg ",
    "half_life_bars": "half-life planted",
    "half_life_found": "half-life found",
    "breaks_at": "breaks",
    "coint_pvalue": "EG p",
    "confirmation_qvalue": "conf. q",
    **{profile: profile for profile in PROFILES},
}
PLANTED_DECIMALS = {"half-life planted": 0, "half-life found": 0}


def write_report(workspaces: Sequence[Workspace], path: Path) -> Path:
    """Render the last ranking of each workspace to ``path`` and return its absolute path.

    The page holds its style and plots itself; the same stores give the same bytes.
    """
    return write_page("report.html.j2", path, note=CHANCE_NOTE, parts=[_part(one) for one in workspaces])


def _part(workspace: Workspace) -> dict[str, Any]:
    settings, name = workspace.settings, workspace.settings.workspace.name
    if last_ranking_date(workspace) is None:
        return {"name": name, "day": None}
    outcome = RankingOutcome.of(workspace)
    formation = settings.formation
    planted = found_against_planted(workspace) if settings.universe.source == "simulated" else None
    reasons = outcome.excluded().group_by("reason", maintain_order=True).agg("symbol")
    return {
        "name": name,
        "day": outcome.day,
        "facts": {
            "pairs tested": f"{len(outcome.rankings):,}",
            **{f"selected ({profile})": f"{outcome.view.selected(profile):,}" for profile in PROFILES},
            "bars": f"{settings.formation_timeframe}",
            "form and confirm": f"{formation.sessions} sessions",
            "third window": f"{formation.out_of_sample_sessions} sessions",
        },
        "simulated": settings.universe.source == "simulated",
        "passed": outcome.view.passed,
        "top": _pairs(outcome),
        "gates": Grid.of(outcome.view.gates()),
        "excluded": [f"{reason}: {', '.join(symbols)}" for reason, symbols in reasons.iter_rows()],
        "stages": list(outcome.view.stages()),
        "stability": Grid.of(_both_gates(workspace, outcome.day)),
        "planted": None
        if planted is None
        else Grid.of(headed(_judged(planted), PLANTED_HEADINGS), PLANTED_DECIMALS),
        "planted_hits": 0 if planted is None else planted[f"{settings.pairs.profile}_rank"].count(),
        "plots": _plots(workspace, outcome),
    }


def _pairs(outcome: RankingOutcome) -> Grid:
    best = outcome.view.best()
    if best["sector"].n_unique() < 2:
        best = best.drop("sector")
    return Grid.of(headed(best, PAIR_HEADINGS), PAIR_DECIMALS)


def _judged(planted: pl.DataFrame) -> pl.DataFrame:
    rows = planted.to_dicts()
    verdicts = {profile: [verdict_text(row, profile) for row in rows] for profile in PROFILES}
    return planted.with_columns(
        *(pl.Series(profile, texts, dtype=pl.String) for profile, texts in verdicts.items()),
        breaks_at=pl.col("breaks_at").dt.date(),
    )


def _both_gates(workspace: Workspace, day: date) -> pl.DataFrame:
    tests = workspace.database.read_table("variance_stability_tracking", test_date=[day])
    columns = tests.select(
        "record_count", "arch_test_pvalue", "rolling_std_cv", "ljung_box_pvalue"
    ).with_columns(reason=pl.when(pl.col("arch_test_pvalue").is_null()).then(tests["filter_reason"]))
    rows = []
    for name, gate in workspace.settings.stability.gates.items():
        judged = apply_gate(columns, StabilityGate(**gate.model_dump()))
        reasons = judged.drop_nulls("filter_reason").group_by("filter_reason").len().sort("filter_reason")
        text = ", ".join(f"{reason} {count}" for reason, count in reasons.iter_rows())
        rows.append((name, int(judged["is_stable"].sum()), len(judged), text))
    return pl.DataFrame(rows, schema=["gate", "stable", "symbols", "rejected by"], orient="row")


def _plots(workspace: Workspace, outcome: RankingOutcome) -> list[Plot]:
    order = {"rank": False, "score": True, "symbol_1": False, "symbol_2": False}
    scored = outcome.rankings.drop_nulls("score")
    best = scored.sort(list(order), descending=list(order.values()), nulls_last=True).head(PLOTTED_PAIRS)
    plots = []
    for pair in best.iter_rows(named=True):
        panel = PairWindow.read(workspace, [pair["symbol_y"], pair["symbol_x"]], outcome.day).bars.log_closes
        plots.append(_spread_plot(panel, pair))
    fits = workspace.database.read_table("garch_models", fit_date=[outcome.day])
    persistence = fits.filter(pl.col("is_selected"))["persistence"].drop_nulls()
    tests = workspace.database.read_table("variance_stability_tracking", test_date=[outcome.day])
    variation = tests["rolling_std_cv"].drop_nulls()
    return [
        *plots,
        _histogram("Persistence of the selected GARCH fits", persistence, "alpha + beta"),
        _histogram("Variation of the rolling deviation", variation, "standard deviation / mean"),
    ]


def _histogram(title: str, values: pl.Series, label: str) -> Plot:
    def draw(axes: Any) -> None:
        axes.hist(values, bins=20, color=BLUE, edgecolor="white", linewidth=0.6)
        axes.set_xlabel(label, fontsize=8)
        axes.set_ylabel("symbols", fontsize=8)

    return draw_plot(title, draw)


def _spread_plot(panel: pl.DataFrame, pair: dict[str, Any]) -> Plot:
    legs = panel.select("timestamp", y=pair["symbol_y"], x=pair["symbol_x"]).drop_nulls()
    values = spread(
        legs["y"].to_numpy(),
        legs["x"].to_numpy(),
        hedge_ratio=pair["hedge_ratio"],
        intercept=pair["intercept"],
    )
    days = legs["timestamp"].dt.date()
    starts = [int((days < pair[name]).sum()) for name in ("confirmation_start", "out_of_sample_start")]

    def draw(axes: Any) -> None:
        for start, shade in zip(starts, (GREY, RED), strict=True):
            axes.axvspan(start, len(values), color=shade, alpha=0.07, lw=0)
        axes.plot(range(len(values)), values, lw=0.8, color=BLUE)
        for width in (-2, 0, 2):
            level = pair["spread_mean"] + width * pair["spread_std"]
            axes.axhline(level, lw=0.8, ls="-" if width == 0 else "--", color=GREY)
        places = [0, *starts, len(values) - 1]
        axes.set_xticks(places, [str(days[place]) for place in places])
        axes.margins(x=0.01)

    place = f"#{pair['rank']}" if pair["passed"] else "not passed"
    title = f"{pair['symbol_y']} − {pair['hedge_ratio']:.3f} · {pair['symbol_x']}  ({place})"
    return draw_plot(title, draw)
