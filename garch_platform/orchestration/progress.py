"""Running a plan with its progress shown: a bar on a terminal, one line a run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from garch_platform.errors import GarchPlatformError
from garch_platform.orchestration.launch import Launcher, RunOutcome
from garch_platform.orchestration.planner import KeyRange

__all__ = ["run_plan"]


def run_plan(launcher: Launcher, runs: Sequence[KeyRange], console: Console) -> None:
    """Run every planned run in order and show how it goes.

    Raises:
        GarchPlatformError: runs failed; their messages are printed before.
    """
    if not runs:
        console.print("nothing to run: everything is there already")
        return
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    failed: list[RunOutcome] = []
    left_out = 0
    began = time.monotonic()
    with progress:
        task = progress.add_task(_named(runs[0]), total=len(runs))
        for number, outcome in enumerate(launcher.run(runs), start=1):
            following = _named(runs[number]) if number < len(runs) else "done"
            progress.update(task, advance=1, description=following)
            if not outcome.run_id:
                left_out += 1
                continue
            if not console.is_terminal:
                console.print(f"{number:>4}/{len(runs)}  {_named(outcome.planned)}", highlight=False)
            if outcome.success and outcome.message:
                console.print(f"[yellow]warning[/] {_named(outcome.planned)}:")
                console.print(outcome.message, markup=False, highlight=False, soft_wrap=True)
            if not outcome.success:
                failed.append(outcome)
                console.print(f"[red]failed[/] {_named(outcome.planned)}, run {outcome.run_id}")
                console.print(outcome.message, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(runs) - left_out} runs in {time.monotonic() - began:.0f} s", highlight=False)
    if failed:
        waiting = f", and {left_out} that build on them were left out" if left_out else ""
        raise GarchPlatformError(
            f"{len(failed)} of {len(runs)} runs failed{waiting}; see above, or the Runs page of `garch ui`"
        )


def _named(run: KeyRange) -> str:
    return f"{run.job} {run.label}"
