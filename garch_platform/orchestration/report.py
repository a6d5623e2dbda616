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

from garch_platform import __version__
from garch_platform.errors import StoreError
from garch_platform.orchestration.assets.pairs import read_pair_window
from garch_platform.orchestration.demo import found_against_planted
from garch_platform.orchestration.outcomes import RankingOutcome, last_ranking_date
from garch_platform.orchestration.tables import CHANCE_NOTE, number
from garch_platform.orchestration.workspace import Workspace
from garch_platform.quant.pairs import spread
from garch_platform.quant.stability import StabilityGate, apply_gate

__all__ = ["write_report"]

PLOTTED_PAIRS = 4
BLUE, RED, GREY = "#2f5d9b", "#c0504d", "#8a93a3"
PLOT_STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#c5ccd8",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "garch_platform",
}
PAIR_HEADINGS = {
    "rank": "rank",
    "sector": "sector",
    "symbol_y": "y",
    "symbol_x": "x",
    "score": "score",
    "coint_pvalue": "Engle-Granger p",
    "price_correlation": "price corr.",
    "return_correlation": "return corr.",
    "hedge_ratio": "hedge ratio",
    "half_life": "half-life (bars)",
    "spread_zscore": "last z",
    "gate": "fell at",
}
PLANTED_HEADINGS = {
    "symbol_1": "leg",
    "symbol_2": "leg ",
    "half_life_bars": "half-life planted",
    "half_life_found": "half-life found",
    "breaks_at": "breaks",
    "coint_pvalue": "Engle-Granger p",
    "verdict": "verdict",
}
DECIMALS = {
    "price corr.": 2,
    "return corr.": 2,
    "half-life (bars)": 1,
    "half-life planted": 0,
    "half-life found": 0,
    "last z": 1,
}


@dataclass(frozen=True)
class _Grid:
    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> _Grid:
        return cls(
            frame.columns,
            [[_text(name, value) for name, value in row.items()] for row in frame.iter_rows(named=True)],
            [dtype.is_numeric() for dtype in frame.dtypes],
        )


@dataclass(frozen=True)
class _Plot:
    title: str
    source: str


def write_report(workspaces: Sequence[Workspace], path: Path) -> Path:
    """Render the last ranking of each workspace to ``path`` and return its absolute path.

    The page holds its style and plots itself; the same stores give the same bytes.
    """
    from jinja2 import Environment

    template = files("garch_platform").joinpath("templates/report.html.j2").read_text("utf-8")
    page = Environment(autoescape=True, trim_blocks=True).from_string(template)
    parts = [_part(one) for one in workspaces]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page.render(note=CHANCE_NOTE, version=__version__, parts=parts), "utf-8")
    except OSError as error:
        raise StoreError(
            f"the report {path} cannot be written ({error.strerror}); choose another file: garch report PATH"
        ) from error
    return path.absolute()


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
            "pass every gate": f"{outcome.passed:,}",
            "bars": f"{settings.formation_timeframe}",
            "formation": f"{formation.sessions} sessions",
            "out of sample": f"{formation.out_of_sample_sessions} sessions",
            "gates": settings.pairs.profile,
        },
        "simulated": settings.universe.source == "simulated",
        "passed": outcome.passed,
        "top": _Grid.of(_headed(outcome.best(), PAIR_HEADINGS)),
        "gates": _Grid.of(outcome.gates()),
        "excluded": [f"{reason}: {', '.join(symbols)}" for reason, symbols in reasons.iter_rows()],
        "trials": outcome.trials(),
        "stability": _Grid.of(_both_gates(workspace, outcome.day)),
        "planted": None if planted is None else _Grid.of(_headed(_judged(planted), PLANTED_HEADINGS)),
        "planted_hits": 0 if planted is None else int(planted["passed"].fill_null(False).sum()),
        "plots": _plots(workspace, outcome),
    }


def _headed(frame: pl.DataFrame, headings: dict[str, str]) -> pl.DataFrame:
    kept = {name: heading for name, heading in headings.items() if name in frame.columns}
    if "sector" in kept and frame["sector"].n_unique() < 2:
        del kept["sector"]
    return frame.select(pl.col(name).alias(heading) for name, heading in kept.items())


def _judged(planted: pl.DataFrame) -> pl.DataFrame:
    rank = pl.format("rank {}", pl.col("rank"))
    return planted.with_columns(
        verdict=pl.when("passed")
        .then(rank)
        .otherwise(pl.col("rejection_reason").str.replace("unstable variance: ", "", literal=True)),
        breaks_at=pl.col("breaks_at").dt.date(),
    )


def _text(heading: str, value: Any) -> str:
    if value is None:
        return ""
    return number(value, DECIMALS.get(heading, 3)) if isinstance(value, float) else str(value)


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


def _plots(workspace: Workspace, outcome: RankingOutcome) -> list[_Plot]:
    order = {"rank": False, "score": True, "symbol_1": False, "symbol_2": False}
    scored = outcome.rankings.drop_nulls("score")
    best = scored.sort(list(order), descending=list(order.values()), nulls_last=True).head(PLOTTED_PAIRS)
    plots = []
    for pair in best.iter_rows(named=True):
        panel = read_pair_window(workspace, [pair["symbol_y"], pair["symbol_x"]], outcome.day).log_closes
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


def _histogram(title: str, values: pl.Series, label: str) -> _Plot:
    def draw(axes: Any) -> None:
        axes.hist(values, bins=20, color=BLUE, edgecolor="white", linewidth=0.6)
        axes.set_xlabel(label, fontsize=8)
        axes.set_ylabel("symbols", fontsize=8)

    return _draw(title, draw)


def _spread_plot(panel: pl.DataFrame, pair: dict[str, Any]) -> _Plot:
    legs = panel.select("timestamp", y=pair["symbol_y"], x=pair["symbol_x"]).drop_nulls()
    values = spread(
        legs["y"].to_numpy(),
        legs["x"].to_numpy(),
        hedge_ratio=pair["hedge_ratio"],
        intercept=pair["intercept"],
    )
    days = legs["timestamp"].dt.date()
    split = int((days < pair["out_of_sample_start"]).sum())

    def draw(axes: Any) -> None:
        axes.axvspan(split, len(values), color=RED, alpha=0.07, lw=0)
        axes.plot(range(len(values)), values, lw=0.8, color=BLUE)
        for width in (-2, 0, 2):
            level = pair["spread_mean"] + width * pair["spread_std"]
            axes.axhline(level, lw=0.8, ls="-" if width == 0 else "--", color=GREY)
        places = [0, split, len(values) - 1]
        axes.set_xticks(places, [str(days[place]) for place in places])
        axes.margins(x=0.01)

    place = f"#{pair['rank']}" if pair["passed"] else "not passed"
    title = f"{pair['symbol_y']} − {pair['hedge_ratio']:.3f} · {pair['symbol_x']}  ({place})"
    return _draw(title, draw)


def _draw(title: str, draw: Callable[[Any], Any]) -> _Plot:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(5.4, 2.7), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(labelsize=7, color="#c5ccd8")
        draw(axes)
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return _Plot(title, "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode())
