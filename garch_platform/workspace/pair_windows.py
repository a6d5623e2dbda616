"""What a ranking reads: log closes of a sector, cut into its three windows, and who is left out.

The sessions of `formation.sessions` form and confirm pairs. The `formation.out_of_sample_sessions` after them
are for performance: no test reads them. What is known at the ranked session enters two verdicts at their end:
a symbol without a bar then cannot be selected (its pairs are confirmed with the others, and keep their
results), and `classic` leaves out symbols of unstable variance, whose verdict reads bars up to that session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.workspace import Workspace
from garch_platform.workspace.windows import Window, read_window

__all__ = ["PairWindow"]


@dataclass(frozen=True)
class PairWindow:
    """Input of one ranking.

    Attributes:
        bars: the closes as read from the lake.
        panel: the same as arrays, with the rows at which the windows meet.
        dates: first and last session of each window, by column of ``pair_rankings``.
        excluded: symbol to reason: it has no verdict for the ranked session.
        silent: symbol to reason: it has no bar in the ranked session.
        unstable: symbol to the reason of its stability verdict.
    """

    bars: Window
    panel: PairPanel
    dates: dict[str, date | None]
    excluded: dict[str, str]
    silent: dict[str, str]
    unstable: dict[str, str]

    @classmethod
    def read(cls, workspace: Workspace, symbols: Sequence[str], day: date) -> PairWindow:
        """Formation, confirmation and performance sessions up to ``day``."""
        settings = workspace.settings
        formation = settings.formation
        bars = read_window(
            workspace, symbols, day, sessions=formation.sessions + formation.out_of_sample_sessions
        )
        judged_from = settings.calendar.window_start(day, formation.out_of_sample_sessions)
        panel = PairPanel.read(
            bars.log_closes.drop("session_date"),
            formation_share=settings.pairs.formation_share,
            performance_start=bars.first_bar(judged_from),
            session_ids=bars.log_closes["session_date"] if bars.intraday else None,
        )
        sessions = bars.log_closes["session_date"]
        split, end = panel.formation_end, panel.confirmation_end
        dates = {
            "formation_start": bars.start,
            "formation_end": sessions[split - 1] if split else None,
            "confirmation_start": sessions[split] if split < end else None,
            "confirmation_end": settings.calendar.previous(judged_from),
            "out_of_sample_start": judged_from,
            "out_of_sample_end": day,
        }
        silent = dict.fromkeys(bars.silent, "no bar in this session")
        return cls(bars, panel, dates, *_left_out(workspace, bars, day, silent))


def _left_out(
    workspace: Workspace, bars: Window, day: date, silent: dict[str, str]
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    verdicts = workspace.database.read_table(
        "variance_stability_tracking", symbol=list(bars.symbols), test_date=[day]
    )
    unjudged = dict.fromkeys(
        set(bars.symbols) - set(verdicts["symbol"]), "no stability verdict for this session"
    )
    unstable = verdicts.filter(~pl.col("is_stable") & ~pl.col("symbol").is_in(list(silent)))
    reasons = unstable.select("symbol", "filter_reason").iter_rows()
    return unjudged, silent, {symbol: f"unstable variance: {reason}" for symbol, reason in reasons}
