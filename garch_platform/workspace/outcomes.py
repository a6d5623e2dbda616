"""One ranked session of a workspace, as a person looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import polars as pl

from garch_platform.errors import CalendarError
from garch_platform.reporting.selection import SelectionView
from garch_platform.scanning.rules import selection_rules
from garch_platform.workspace import Workspace

__all__ = ["RankingOutcome", "last_ranking_date"]


def last_ranking_date(workspace: Workspace) -> date | None:
    """The latest session that has a ranking."""
    return workspace.database.read("SELECT max(ranking_date) AS day FROM pair_rankings").select(
        pl.col("day").cast(pl.String).str.to_date()
    )["day"][0]


@dataclass(frozen=True)
class RankingOutcome:
    """One session's ranking of a workspace.

    Attributes:
        workspace: whose ranking it is.
        day: the ranked session.
        rankings: its rows of ``pair_rankings``.
        ledger: its rows of ``scan_ledger``.
    """

    workspace: Workspace
    day: date
    rankings: pl.DataFrame
    ledger: pl.DataFrame

    @classmethod
    def of(cls, workspace: Workspace, day: date | None = None) -> RankingOutcome:
        """The outcome of ``day`` (of the last ranked session if None).

        Raises:
            CalendarError: ``day`` is no session or not ranked, or nothing has been ranked yet.
        """
        if day is not None:
            workspace.calendar.require_session(day)
        chosen = day or last_ranking_date(workspace)
        if chosen is None:
            raise CalendarError(
                f"nothing is ranked yet in {workspace.settings.workspace}; run `garch refresh`"
            )
        rankings = workspace.database.read_table("pair_rankings", ranking_date=[chosen])
        if rankings.is_empty():
            last = last_ranking_date(workspace)
            known = "none is" if last is None else f"the last one is {last}"
            raise CalendarError(
                f"the session {chosen} is not ranked, {known}; run `garch materialize --date {chosen}`"
            )
        ledger = workspace.database.read_table("scan_ledger", ranking_date=[chosen])
        return cls(workspace, chosen, rankings, ledger)

    @cached_property
    def view(self) -> SelectionView:
        """Best pairs, gates and stages under the workspace's rules."""
        settings = self.workspace.settings
        return SelectionView(
            self.rankings,
            self.ledger,
            selection_rules(settings),
            str(settings.formation_timeframe),
            settings.stability.gate,
        )

    def excluded(self) -> pl.DataFrame:
        """``symbol`` and ``reason`` of the symbols that a profile left out."""
        verdicts = self.workspace.database.read_table("variance_stability_tracking", test_date=[self.day])
        ranked = {*self.rankings["symbol_1"], *self.rankings["symbol_2"]}
        judged = verdicts.filter(pl.col("symbol").is_in(ranked))
        unstable = judged.filter(~pl.col("is_stable")).select("symbol", reason="filter_reason")
        untested = pl.DataFrame(
            {"symbol": sorted(ranked - set(judged["symbol"]))}, schema={"symbol": pl.String}
        ).with_columns(reason=pl.lit("no stability verdict"))
        return pl.concat([unstable, untested]).sort("reason", "symbol")
