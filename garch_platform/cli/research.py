"""Commands that need no workspace: a pair scan of a bar file, and the compilation of the kernels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from garch_platform.cli.console import START, State, console, names_of, optional_day, say, show_selection
from garch_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from garch_platform.scanning.file_scan import FileScan

__all__ = ["app"]

app = typer.Typer()

SLOW_LOAD = 1.0
"""Seconds after which a module of kernels was compiled and not read from the cache."""


@app.command(rich_help_panel=START)
def scan(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV bars, or a folder of them.")],
    timeframe: Annotated[
        str | None,
        typer.Option(help="Bars to scan; longer than the file's are made of them.", metavar="1Hour"),
    ] = None,
    formation: Annotated[
        int | None, typer.Option(help="Sessions that form and confirm pairs; all if left out.", min=2)
    ] = None,
    performance: Annotated[
        int, typer.Option(help="Later sessions that no gate sees, to judge the pairs on.", min=0)
    ] = 0,
    start: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First day to read.")] = None,
    end: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day to read.")] = None,
    symbols: Annotated[str | None, typer.Option(metavar="A,B,…", help="All if left out.")] = None,
    profile: Annotated[
        Literal["honest", "classic"] | None, typer.Option(help="Whose verdict counts.")
    ] = None,
    fdr: Annotated[
        Literal["bh", "by", "by_all"] | None, typer.Option(help="How false discoveries are controlled.")
    ] = None,
    floor: Annotated[int | None, typer.Option(help="Markets without cointegration.", min=0)] = None,
    columns: Annotated[str | None, typer.Option(metavar="FIELD=NAME,…", help="Columns of the file.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Of times without one.")] = None,
    workers: Annotated[int, typer.Option(help="Threads.", min=1)] = 1,
    tiles: Annotated[
        Path | None, typer.Option(help="Keep finished tiles in this folder, and go on from them.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write all pairs: .parquet, .csv or .html.")] = None,
    top: Annotated[int, typer.Option(min=1)] = 10,
) -> None:
    """Scan all pairs of a bar file, with its floor; no workspace, no Dagster."""
    from garch_platform.bars import Timeframe
    from garch_platform.scanning.file_scan import ScanRequest, scan_file
    from garch_platform.scanning.outputs import require_format, write_scan
    from garch_platform.settings import load_settings

    require_format(out)
    settings = load_settings(State.workspace, **_overrides(profile, fdr, floor, columns, timezone))
    request = ScanRequest(
        file,
        settings,
        timeframe=Timeframe.parse(timeframe) if timeframe else None,
        sessions=formation,
        performance_sessions=performance,
        start=optional_day(start),
        end=optional_day(end),
        symbols=names_of(symbols),
        workers=workers,
        tiles=tiles,
    )
    began = time.monotonic()
    with _Stages() as stages:
        result = scan_file(request, progress=stages.report)
    say(_facts(result))
    show_selection(result.view, title="Pairs", top=top)
    say(f"{time.monotonic() - began:.1f} s")
    if out is not None:
        say(f"written: {write_scan(result, out)}")


@app.command("compile", rich_help_panel=START)
def compile_command() -> None:
    """Compile the numerical kernels once; later starts read them from the cache."""
    from garch_platform.quant.compiled import KERNEL_MODULES, compile_kernels

    began = last = time.monotonic()
    console.print("numerical kernels: ", end="", highlight=False)
    for place, _ in enumerate(compile_kernels(), start=1):
        if time.monotonic() - last > SLOW_LOAD:
            console.print(f"{place - 1}/{len(KERNEL_MODULES)} ", end="", highlight=False)
        last = time.monotonic()
    console.print(f"ready in {time.monotonic() - began:.1f} s", highlight=False)


def _facts(result: FileScan) -> str:
    stamps = result.closes["timestamp"].dt.date()
    reasons = ", ".join(
        f"{count:,} {reason}"
        for reason, count in result.rejected["reason"].value_counts(sort=True).iter_rows()
    )
    rejected = f"; bars left out: {reasons}" if reasons else ""
    return (
        f"{result.request.path.name}: {len(result.panel.symbols)} symbols, {len(stamps):,} bars of "
        f"{result.timeframe}, {stamps[0]} to {stamps[-1]}{rejected}"
    )


def _overrides(
    profile: str | None, fdr: str | None, floor: int | None, columns: str | None, timezone: str | None
) -> dict[str, Any]:
    """The settings that were given as options."""
    honest = {} if fdr is None else {"honest": {"false_discovery": fdr}}
    pairs = {"profile": profile, "floor_draws": floor}
    files = {"columns": None if columns is None else _mapping(columns), "timezone": timezone}
    given = {
        "pairs": honest | {name: value for name, value in pairs.items() if value is not None},
        "files": {name: value for name, value in files.items() if value is not None},
    }
    return {section: values for section, values in given.items() if values}


def _mapping(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in names_of(text) or []]
    if any(not separator for _, separator, _ in pairs):
        raise ConfigurationError(
            f"--columns {text!r} is no list of FIELD=NAME; write timestamp=time,close=last"
        )
    return {field.strip(): name.strip() for field, _, name in pairs}


class _Stages:
    """Progress: a bar on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[str, object] = {}

    def __enter__(self) -> _Stages:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, stage: str, done: int, total: int) -> None:
        """Show a stage's progress."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total)
        self._bar.update(self._tasks[stage], completed=done, total=total)  # type: ignore[arg-type]
