"""What became of the pairs of a selection: the best of them, the gates, the stages, chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
from rich.table import Table

from garch_platform.quant.pairs.gates import gate_names
from garch_platform.quant.pairs.rules import PROFILES, Profile, SelectionRules
from garch_platform.reporting.tables import number, plain_table

__all__ = [
    "CHANCE_NOTE",
    "PAIR_DECIMALS",
    "PAIR_HEADINGS",
    "SelectionView",
    "gate_table",
    "pairs_table",
    "verdict_text",
]

CHANCE_NOTE = (
    "Hold what a profile selects against its floor: up to there, chance explains it. The classic gates pass "
    "pairs by chance; a rank is a place in a list, not evidence."
)
SELECTED = "selected"
SHORT_GATES = {
    "return_correlation": "return corr.",
    "price_correlation": "price corr.",
    "coint_pvalue": "Engle-Granger",
}
"""Gates whose names are too long for a terminal of eighty columns."""
BEST_COLUMNS = (
    "rank",
    "symbol_y",
    "symbol_x",
    "score",
    "coint_pvalue",
    "confirmation_qvalue",
    "return_correlation",
    "price_correlation",
    "hedge_ratio",
    "half_life",
    "spread_zscore",
    "oos_sharpe",
    "gate",
)


PAIR_HEADINGS: Final = {
    "rank": "rank",
    "sector": "sector",
    "symbol_y": "y",
    "symbol_x": "x",
    "score": "score",
    "coint_pvalue": "EG p",
    "confirmation_qvalue": "conf. q",
    "return_correlation": "return corr.",
    "price_correlation": "price corr.",
    "hedge_ratio": "hedge ratio",
    "half_life": "half-life",
    "spread_zscore": "last z",
    "oos_sharpe": "Sharpe",
    "gate": "fell at",
}
"""Columns of `SelectionView.best` under the headings of a page."""
PAIR_DECIMALS: Final = {
    "price corr.": 2,
    "return corr.": 2,
    "half-life": 1,
    "last z": 1,
    "Sharpe": 2,
    "hedge ratio": 2,
}


@dataclass(frozen=True)
class SelectionView:
    """A selection beside the rules that made it.

    Attributes:
        pairs: rows with the columns of a selection's table; ``sector`` where there are several.
        ledger: stages, floor and detectable half-life, a row for each profile (and sector).
        rules: the gates.
        bar: name of the bars in which half-lives count.
        stability_gate: the gate under which symbols are left out of the classic profile; None = none.
    """

    pairs: pl.DataFrame
    ledger: pl.DataFrame
    rules: SelectionRules
    bar: str
    stability_gate: str | None = None

    @property
    def passed(self) -> int:
        """Pairs that the chosen profile selects."""
        return self.selected(self.rules.profile)

    def selected(self, profile: Profile) -> int:
        """Pairs that a profile selects."""
        return self.pairs[f"{profile}_gate"].null_count()

    def best(self, top: int = 10) -> pl.DataFrame:
        """The ``top`` best pairs (of each sector): the selected by rank, then those that came farthest.

        ``gate`` names where the others fell.
        """
        profile = self.rules.profile
        depth = {name: place for place, name in enumerate(gate_names(profile, self.rules))}
        far = pl.col("gate").replace_strict(depth, default=len(depth), return_dtype=pl.Int64)
        pairs = self.pairs.with_columns(rank=f"{profile}_rank", gate=f"{profile}_gate").with_columns(far=far)
        sector = [name for name in ("sector",) if name in self.pairs.columns]
        order = {**dict.fromkeys(sector, False), "rank": False, "far": True, "coint_pvalue": False}
        order |= {"symbol_1": False, "symbol_2": False}
        best = pairs.sort(list(order), descending=list(order.values()), nulls_last=True)
        tested = best.filter(pl.col("coint_pvalue").is_not_null())
        if sector:
            tested = tested.group_by(sector, maintain_order=True).head(top)
        return tested.select(*sector, *BEST_COLUMNS) if sector else tested.head(top).select(BEST_COLUMNS)

    def gates(self) -> pl.DataFrame:
        """``gate``, ``asks``, and how many pairs fell there under each profile (null: it has no such gate)."""
        names = {profile: gate_names(profile, self.rules) for profile in PROFILES}
        fell = {
            profile: dict(self.pairs[f"{profile}_gate"].value_counts().iter_rows()) for profile in PROFILES
        }
        rows = [
            (gate, asks, *(fell[one].get(gate, 0) if gate in names[one] else None for one in PROFILES))
            for gate, asks in self._questions().items()
        ]
        rows.append((SELECTED, "every gate of the profile", *(self.selected(one) for one in PROFILES)))
        return pl.DataFrame(rows, schema=["gate", "asks", *PROFILES], orient="row")

    def stages(self) -> Iterator[str]:
        """One line a sector and profile: what each stage left, and what chance alone passes."""
        several = "sector" in self.ledger.columns and self.ledger["sector"].n_unique() > 1
        order = ["sector", "profile"] if several else ["profile"]
        rows = self.ledger.sort(order, descending=[name == "profile" for name in order])
        for row in rows.iter_rows(named=True):
            yield (f"{row['sector']}, " if several else "") + self._stage_text(row)

    def _stage_text(self, row: Mapping[str, Any]) -> str:
        stages = [
            f"{row[name]:,} {name}"
            for name in ("tested", "correlated", "significant", "confirmed", "ranked")
            if row[name] is not None
        ]
        text = f"{row['profile']}: {row['pairs']:,} pairs → " + " → ".join(stages) + "."
        if row["floor_draws"]:
            text += (
                f" Floor: on {row['floor_draws']} markets like this one without cointegration the same "
                f"selection passed {row['floor_median']:g} (median), {row['floor_q95']:g} (95 %), "
                f"any in {row['floor_any']:.0%}."
            )
        if row["detectable_half_life"] is not None:
            text += f" 80 % power up to a half-life of {row['detectable_half_life']:.1f} {self.bar} bars."
        return text

    def _questions(self) -> dict[str, str]:
        rules, honest, classic = self.rules, self.rules.honest, self.rules.classic
        method = {"bh": "Benjamini-Hochberg", "by": "Benjamini-Yekutieli"}.get(honest.false_discovery)
        rate = f"{honest.false_discovery_rate:.0%}"
        pvalues = f"{honest.max_pvalue:g} (honest), {classic.max_pvalue:g} (classic)"
        questions = {
            "excluded": "a stability verdict of this session for both legs",
            "silent": "a bar of both legs in the last session",
            "unstable": f"variance of both legs stable under the {self.stability_gate} gate",
            "coverage": f"both legs trade on at least {rules.min_coverage:.0%} of the formation bars",
            "cointegration": "an Engle-Granger test that can be computed",
            "return_correlation": f"returns correlate by at least {honest.min_return_correlation:g}",
            "price_correlation": f"log prices correlate by at least {classic.min_price_correlation:g}",
            "coint_pvalue": f"Engle-Granger p at most {pvalues}, better direction",
            "confirmation": f"confirmed on later bars, {method} at {rate}"
            if method
            else f"Benjamini-Yekutieli over all Engle-Granger tests at {rate}",
            "unscored": "a GARCH fit of the spread, and enough later bars, for a score",
            "score": f"composite 40/30/20/10 score at least {classic.min_score:g}",
        }
        if self.stability_gate is None:
            del questions["excluded"], questions["unstable"]
        return questions


def pairs_table(view: SelectionView, *, title: str, top: int = 10) -> Table:
    """The best pairs; the title goes on to say whether any is selected."""
    count, profile = len(view.pairs), view.rules.profile
    verdict = (
        f"{view.passed} of {count:,} selected ({profile})"
        if view.passed
        else f"none of {count:,} selected ({profile}); these came farthest"
    )
    table = plain_table(f"{title}: {verdict}")
    best = view.best(top)
    with_sector = "sector" in best.columns and best["sector"].n_unique() > 1
    table.add_column("rank", justify="right")
    for name in (*(["sector"] if with_sector else []), "y", "x"):
        table.add_column(name, no_wrap=True)
    headings = "score", "EG p", "conf.\nq", "return\ncorr.", "half-\nlife"
    for name in (*headings, "last\nz"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fell at", no_wrap=True)
    for row in best.iter_rows(named=True):
        table.add_row(
            "–" if row["rank"] is None else str(row["rank"]),
            *([row["sector"]] if with_sector else []),
            row["symbol_y"],
            row["symbol_x"],
            *(number(row[name]) for name in ("score", "coint_pvalue", "confirmation_qvalue")),
            number(row["return_correlation"], 2),
            *(number(row[name], 1) for name in ("half_life", "spread_zscore")),
            SHORT_GATES.get(row["gate"], row["gate"] or ""),
        )
    table.caption = (
        "EG p: Engle-Granger; conf. q: confirmation, adjusted; "
        f"half-life in {view.bar} bars; z of the last bar"
    )
    return table


def gate_table(view: SelectionView) -> Table:
    """How many pairs fell at which gate of each profile."""
    table = plain_table(f"What became of the {len(view.pairs):,} pairs")
    table.add_column("gate", no_wrap=True)
    table.add_column("asks for")
    for profile in PROFILES:
        table.add_column(profile, justify="right")
    for gate, asks, *counts in view.gates().iter_rows():
        table.add_row(gate, asks, *("" if count is None else f"{count:,}" for count in counts))
    return table


def verdict_text(row: Mapping[str, Any], profile: str) -> str:
    """The verdict of a profile on a pair: its rank, or why it fell."""
    rank = row[f"{profile}_rank"]
    return (row[f"{profile}_reason"] or "not ranked") if rank is None else f"rank {rank}"
