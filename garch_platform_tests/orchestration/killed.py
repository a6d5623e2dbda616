"""``python -m garch_platform_tests.orchestration.killed WHERE ARGUMENT…``: ``garch ARGUMENT…``, killed on its way.

The process sends itself SIGKILL, as the kernel does when memory runs out: nothing is cleaned up.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine, event

from garch_platform import cli
from garch_platform.store.lake import Lake


def die() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def _after(table: str) -> None:
    """When a table's rows are in the lake, and before Dagster has heard of it."""
    replace = Lake.replace

    def replace_and_die(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
        done = replace(self, name, *arguments, **options)
        if name == table:
            die()
        return done

    Lake.replace = replace_and_die  # type: ignore[method-assign, assignment]


def _inside(table: str) -> None:
    """Between the deletion of a table's old rows and the arrival of the new ones."""

    @event.listens_for(Engine, "before_cursor_execute")
    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(f"INSERT INTO {table} "):
            die()


PLACES: Final[dict[str, Callable[[], None]]] = {
    "after the bars": lambda: _after("bars"),
    "inside the verdicts": lambda: _inside("variance_stability_tracking"),
    "inside the rankings": lambda: _inside("pair_rankings"),
}

if __name__ == "__main__":
    PLACES[sys.argv[1]]()
    sys.argv = ["garch", *sys.argv[2:]]
    cli.main()
