"""The self-contained HTML report: ranked pairs, rejections, verdicts, plots; no outside resource."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from garch_platform.orchestration.assets.pairs import read_pair_window
from garch_platform.orchestration.demo import found_against_planted
from garch_platform.orchestration.tables import CHANCE_NOTE, gate_counts, last_ranking_date, top_pairs
from garch_platform.orchestration.workspace import Workspace
from garch_platform.quant.pairs import spread
from garch_platform.quant.stability import StabilityGate, apply_gate

__all__ = ["write_report"]

PLOTTED_PAIRS = 3


@dataclass(frozen=True)
class _Grid:
    columns: list[str]
    rows: list[list[str]]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> _Grid:
        def text(value: Any) -> str:
            if value is None:
                return ""
            return f"{value:.4g}" if isinstance(value, float) else str(value)

        return cls(frame.columns, [[text(value) for value in row] for row in frame.iter_rows()])


@dataclass(frozen=True)
class _Plot:
    title: str
    source: str


def write_report(workspaces: Sequence[Workspace], path: Path) -> Path:
    """Render the last ranking of each workspace to ``path`` and return its absolute path."""
    from jinja2 import Environment

    template = files("garch_platform").joinpath("templates/report.html.j2").read_text("utf-8")
    page = Environment(autoescape=True, trim_blocks=True).from_string(template)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.render(note=CHANCE_NOTE, parts=[_part(one) for one in workspaces]), "utf-8")
    return path.absolute()


def _part(workspace: Workspace) -> dict[str, Any]:
    day = last_ranking_date(workspace)
    best, _ = top_pairs(workspace, day)
    gates = gate_counts(workspace, day)
    planted = workspace.settings.universe.source == "simulated" and day is not None
    formation = workspace.settings.formation
    return {
        "title": f"{workspace.settings.workspace.name}: {day or 'nothing ranked yet'}",
        "summary": f"{gates['pairs'].sum()} pairs tested; {workspace.settings.formation_timeframe} bars, "
        f"{formation.sessions} sessions of formation, {formation.out_of_sample_sessions} out of sample; "
        f"profile {workspace.settings.pairs.profile}",
        "top": _Grid.of(best),
        "gates": _Grid.of(gates),
        "stability": _Grid.of(_both_gates(workspace, day)),
        "planted": _Grid.of(found_against_planted(workspace)) if planted else None,
        "plots": _plots(workspace, day) if day else [],
    }


def _both_gates(workspace: Workspace, day: date | None) -> pl.DataFrame:
    tests = workspace.database.read_table("variance_stability_tracking", test_date=[day] if day else [])
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


def _plots(workspace: Workspace, day: date) -> list[_Plot]:
    plots = []
    ranked = workspace.database.read_table("pair_rankings", ranking_date=[day])
    for pair in ranked.filter("passed").sort("rank").head(PLOTTED_PAIRS).iter_rows(named=True):
        panel = read_pair_window(workspace, [pair["symbol_y"], pair["symbol_x"]], day).log_closes
        plots.append(_spread_plot(panel, pair))
    fits = workspace.database.read_table("garch_models", fit_date=[day]).filter(pl.col("is_selected"))
    persistence = fits["persistence"].drop_nulls()
    plots.append(
        _draw("Persistence of the selected fits (alpha + beta)", lambda axes: axes.hist(persistence, bins=20))
    )
    return plots


def _spread_plot(panel: pl.DataFrame, pair: dict[str, Any]) -> _Plot:
    legs = panel.select("timestamp", y=pair["symbol_y"], x=pair["symbol_x"]).drop_nulls()
    values = spread(
        legs["y"].to_numpy(),
        legs["x"].to_numpy(),
        hedge_ratio=pair["hedge_ratio"],
        intercept=pair["intercept"],
    )
    judged_from = legs.filter(pl.col("timestamp").dt.date() >= pair["out_of_sample_start"]).height

    def draw(axes: Any) -> None:
        bars = range(len(values))
        axes.plot(bars, values, lw=0.8, color="#2b5d9b")
        for width in (-2, 0, 2):
            axes.axhline(pair["spread_mean"] + width * pair["spread_std"], lw=0.7, ls="--", color="grey")
        axes.axvline(len(values) - judged_from, lw=0.9, color="#c44e52")
        axes.set_xlabel("bar (red line: out of sample begins)", fontsize=8)

    return _draw(f"#{pair['rank']} {pair['symbol_y']} - {pair['hedge_ratio']:.3f} {pair['symbol_x']}", draw)


def _draw(title: str, draw: Callable[[Any], Any]) -> _Plot:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    draw(axes)
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer)
    return _Plot(title, "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode())
