"""What became of the pairs of one ranked session: the best of them, the gates, the trials, chance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from garch_platform.errors import CalendarError
from garch_platform.orchestration.workspace import Workspace

__all__ = ["CHANCE_SIZES", "RankingOutcome", "gate_of", "last_ranking_date"]

CHANCE_SIZES = (0.09, 0.20)
"""Share of pairs that pass Engle-Granger at 5 % in simulated markets without any cointegration, given that
their log prices correlate by 0.8 or more: the range over walks with and without a common factor."""

PASSED = "passed all gates"

BEST_COLUMNS = (
    "rank",
    "sector",
    "symbol_y",
    "symbol_x",
    "score",
    "coint_pvalue",
    "price_correlation",
    "return_correlation",
    "hedge_ratio",
    "half_life",
    "spread_zscore",
)


def last_ranking_date(workspace: Workspace) -> date | None:
    """The latest session that has a ranking."""
    return workspace.database.read("SELECT max(ranking_date) AS day FROM pair_rankings").select(
        pl.col("day").cast(pl.String).str.to_date()
    )["day"][0]


def gate_of(reason: pl.Expr) -> pl.Expr:
    """The gate that a rejection reason names: its first word, ``excluded`` for pairs of excluded symbols."""
    return (
        pl.when(reason.str.contains(r"^\S+ excluded:"))
        .then(pl.lit("excluded"))
        .otherwise(reason.str.extract(r"^(\w+)"))
    )


@dataclass(frozen=True)
class RankingOutcome:
    """One session's ranking of a workspace.

    Attributes:
        workspace: whose ranking it is.
        day: the ranked session.
        rankings: its rows of ``pair_rankings``.
    """

    workspace: Workspace
    day: date
    rankings: pl.DataFrame

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
        return cls(workspace, chosen, rankings)

    @property
    def passed(self) -> int:
        """Pairs that passed every gate."""
        return int(self.rankings["passed"].sum())

    def best(self, top: int = 10) -> pl.DataFrame:
        """The ``top`` best-scored pairs of each sector; those that pass every gate first, with a rank.

        ``gate`` names where the others fell.
        """
        order = {"sector": False, "rank": False, "score": True, "symbol_1": False, "symbol_2": False}
        best = self.rankings.drop_nulls("score").sort(
            list(order), descending=list(order.values()), nulls_last=True
        )
        return (
            best.group_by("sector", maintain_order=True)
            .head(top)
            .select(*BEST_COLUMNS, gate=gate_of(pl.col("rejection_reason")))
        )

    def gates(self) -> pl.DataFrame:
        """``gate``, ``asks`` and ``pairs``: how many pairs fell at each gate, in the order of the gates."""
        asked = self._questions()
        names = pl.when("passed").then(pl.lit(PASSED)).otherwise(gate_of(pl.col("rejection_reason")))
        counts = self.rankings.group_by(gate=names).agg(pairs=pl.len())
        order = pl.DataFrame({"gate": list(asked), "asks": list(asked.values()), "place": range(len(asked))})
        return (
            counts.join(order, on="gate", how="left")
            .sort("place", "gate", nulls_last=True)
            .select("gate", "asks", "pairs")
        )

    def excluded(self) -> pl.DataFrame:
        """``symbol`` and ``reason`` of the symbols whose pairs were not tested."""
        day = [self.day]
        verdicts = self.workspace.database.read_table("variance_stability_tracking", test_date=day)
        ranked = {*self.rankings["symbol_1"], *self.rankings["symbol_2"]}
        judged = verdicts.filter(pl.col("symbol").is_in(ranked))
        unstable = judged.filter(~pl.col("is_stable")).select("symbol", reason="filter_reason")
        untested = pl.DataFrame(
            {"symbol": sorted(ranked - set(judged["symbol"]))}, schema={"symbol": pl.String}
        ).with_columns(reason=pl.lit("no stability verdict"))
        return pl.concat([unstable, untested]).sort("reason", "symbol")

    def trials(self) -> str:
        """How many pairs were tried, and how many of those passes chance alone explains."""
        gates = self.workspace.settings.pairs
        tested = self.rankings.filter(
            pl.col("coint_pvalue").is_not_null(), pl.col("price_correlation") >= gates.min_correlation
        )
        cointegrated = tested.filter(pl.col("coint_pvalue") <= gates.max_pvalue)
        text = (
            f"Trials: {len(self.rankings):,} pairs, of which {len(tested):,} reached the Engle-Granger test "
            f"and {len(cointegrated):,} passed it at {gates.max_pvalue:g}; {self.passed:,} passed every gate."
        )
        if gates.max_pvalue != 0.05 or tested.is_empty():
            return text
        low, high = (share * len(tested) for share in CHANCE_SIZES)
        return f"{text} Without any cointegration about {low:.0f} to {high:.0f} of {len(tested):,} would pass it."

    def _questions(self) -> dict[str, str]:
        pairs, stability = self.workspace.settings.pairs, self.workspace.settings.stability
        return {
            "excluded": f"a verdict for both legs: variance stable under the {stability.gate} gate",
            "coverage": f"both legs trade on at least {pairs.min_coverage:.0%} of the formation bars",
            "price_correlation": f"log prices correlate by at least {pairs.min_correlation:g}",
            "cointegration": "an Engle-Granger test that can be computed",
            "coint_pvalue": f"Engle-Granger p-value at most {pairs.max_pvalue:g}, better direction",
            "garch": "a GARCH fit of the spread",
            "out_of_sample_bars": "enough later bars for a score",
            "score": f"composite 40/30/20/10 score at least {pairs.min_score:g}",
            PASSED: "",
        }
