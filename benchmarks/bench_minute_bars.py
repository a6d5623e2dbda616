"""Time and peak memory, stage by stage, of real 1-minute bars on their way to ranked pairs.

    python benchmarks/bench_minute_bars.py BARS.parquet --session 2018-04-06

Everything before the session is loaded in bulk, the session itself through the daily job, and each
sector's pairs are ranked on 15-minute closes. Then the session runs again, to show that nothing changes.
Peak memory is the resident set's high-water mark of this process up to the end of the stage.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import polars as pl
import yaml

from garch_platform.orchestration.launch import Launcher
from garch_platform.orchestration.planner import KeyRange
from garch_platform.quant import fit_garch_batch, select_pairs, selection_floor, stability_tests
from garch_platform.scanning.rules import selection_rules
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform.workspace.pair_windows import PairWindow
from garch_platform.workspace.windows import read_window

TABLES = (
    "variance_stability_tracking",
    "garch_models",
    "pair_rankings",
    "scan_ledger",
    "rejections",
    "revisions",
)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print the wall-clock time of the block and the peak memory so far."""
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:<44} {time.perf_counter() - started:8.1f} s   peak {peak:7.0f} MiB", flush=True)


def run(launcher: Launcher, planned: list[KeyRange]) -> None:
    """Run and stop at the first failure."""
    for outcome in launcher.run(planned):
        if not outcome.success:
            raise SystemExit(f"{outcome.planned.label}: {outcome.message}")


def contents(workspace: Workspace) -> dict[str, object]:
    """What the stores hold: rows without their ids and write times, and the lake's versions."""
    tables = {name: workspace.database.content(name).hash_rows().sum() for name in TABLES}
    return tables | {name: workspace.lake.version(name) for name in ("bars", "features")}


def engine(workspace: Workspace, symbols: list[str], day: date) -> None:
    """Time the statistics of one session alone, without reading, Dagster or writing."""
    settings = workspace.settings
    returns = read_window(workspace, symbols, day, sessions=settings.garch.sessions).returns
    with stage(f"  engine: stability of {returns.shape[1]} x {len(returns)} returns"):
        gate = settings.stability
        stability_tests(
            returns,
            test_window=gate.test_window,
            arch_lags=gate.arch_lags,
            ljung_box_lags=gate.ljung_box_lags,
            min_observations=gate.min_observations,
        )
    with stage("  engine: GARCH, normal and Student-t"):
        for distribution in settings.garch.distributions:
            fit_garch_batch(returns, dist=distribution)
    panel, rules = PairWindow.read(workspace, symbols, day).panel, selection_rules(settings)
    with stage(f"  engine: selection among {len(symbols) * (len(symbols) - 1) // 2:,} pairs"):
        select_pairs(panel, rules=rules, bars_per_year=6_552.0)
    with stage("  engine: floor, 19 markets"):
        selection_floor(panel, rules=rules, draws=19, seed=0)


def main() -> None:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("bars", type=Path)
    arguments.add_argument("--session", type=date.fromisoformat, default=date(2018, 4, 6))
    arguments.add_argument("--workspace", type=Path)
    options = arguments.parse_args()
    folder = options.workspace or Path(tempfile.mkdtemp(prefix="garch-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        pl.scan_parquet(options.bars).select(pl.col("symbol").cast(pl.String).unique()).collect()["symbol"]
    )
    workspace = Workspace(load_settings(folder))
    entries = [{"symbol": name} | workspace.describe([name]).get(name, {}) for name in sorted(names)]
    directory = pl.DataFrame(entries, schema_overrides={"sector": pl.String})
    sectors = sorted(set(directory["sector"].drop_nulls()))
    settings = {
        "universe": {
            "source": "files",
            "timeframe": "1Min",
            "sectors": {"active": sectors, "available": sectors},
        },
        "trading_days": {"start": options.session, "end": options.session},
        "files": {"path": str(options.bars.absolute())},
        "formation": {"timeframe": "15Min", "sessions": 25, "out_of_sample_sessions": 8},
        "garch": {"sessions": 33},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    workspace = Workspace(load_settings(folder))
    if not workspace.registry.path.exists():
        workspace.registry.write_new(directory)
    launcher = Launcher(workspace)
    with stage("prepare"):
        launcher.prepare()
    planner, day = launcher.planner, options.session
    with stage(f"history: {len(names)} symbols"):
        run(launcher, planner.history())
    coverage = workspace.lake.coverage("bars", "1Min")
    with stage(f"daily: {day}, bars to GARCH"):
        run(launcher, planner.daily(day, day))
    with stage(f"ranking: {len(sectors)} sectors"):
        run(launcher, planner.ranking(day, day))
    engine(workspace, sorted(names), day)
    before = contents(workspace)
    with stage("all of it again"):
        run(launcher, [*planner.history(), *planner.daily(day, day), *planner.ranking(day, day)])
    print(f"bars in the lake: {coverage['rows'].sum():,} before the session")
    print("after the second pass:", "nothing changed" if contents(workspace) == before else "CHANGED")
    ranked = workspace.database.read_table("pair_rankings")
    chosen = {name: ranked[f"{name}_rank"].count() for name in ("honest", "classic")}
    print(f"pairs: {len(ranked)} in {len(sectors)} sectors, selected: {chosen}")
    fits = workspace.database.read_table("garch_models").group_by("distribution", "status").len()
    print("fits:", ", ".join(f"{d} {s} {n}" for d, s, n in sorted(fits.iter_rows())))
    rejected = workspace.database.read_table("rejections").group_by("reason").len().sort("reason")
    print(
        "rejected bars:", ", ".join(f"{reason} {count}" for reason, count in rejected.iter_rows()) or "none"
    )


if __name__ == "__main__":
    main()
