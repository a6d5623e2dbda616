"""The gates of both profiles: what a pair must meet, in order, and what is said where it does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from garch_platform.quant.pairs.rules import Profile, SelectionRules

__all__ = ["Gate", "family_gates", "first_failed", "gate_names", "profile_gates"]


@dataclass(frozen=True)
class Gate:
    """A condition that a pair must meet; null counts as not met."""

    name: str
    met: pl.Expr
    reason: pl.Expr


def gate_names(profile: Profile, rules: SelectionRules) -> list[str]:
    """The gates of a profile in the order in which a pair meets them."""
    return [gate.name for gate in profile_gates(profile, rules)]


def profile_gates(profile: Profile, rules: SelectionRules) -> list[Gate]:
    """The gates of a profile in the order in which a pair meets them."""
    return _honest_gates(rules) if profile == "honest" else _classic_gates(rules)


def family_gates(rules: SelectionRules) -> list[Gate]:
    """The gates before the false discovery rate: all tests of one stage, or the pairs that reach the second."""
    one_stage = rules.honest.false_discovery == "by_all"
    gates = _shared_gates(rules) if one_stage else _honest_gates(rules)[:-1]
    return [gate for gate in gates if gate.name != "silent"]


def first_failed(gates: Iterable[Gate], part: str) -> pl.Expr:
    """Name or reason of the first gate that is not met, null where all are."""
    return pl.coalesce(
        pl.when(~gate.met.fill_null(False)).then(
            pl.lit(gate.name) if part == "gate" else gate.reason.fill_null(gate.name)
        )
        for gate in gates
    )


def _shared_gates(rules: SelectionRules) -> list[Gate]:
    return [
        Gate("excluded", pl.col("exclusion").is_null(), pl.col("exclusion")),
        Gate("silent", pl.col("silence").is_null(), pl.col("silence")),
        _at_least("coverage", rules.min_coverage),
        Gate(
            "cointegration",
            pl.col("coint_pvalue").is_not_null(),
            pl.format("cointegration not tested: {}", pl.col("reason").fill_null("not defined")),
        ),
    ]


def _honest_gates(rules: SelectionRules) -> list[Gate]:
    honest = rules.honest
    correlated = _at_least("return_correlation", honest.min_return_correlation)
    significant = _at_most("coint_pvalue", honest.max_pvalue)
    confirmed = _at_most("confirmation_qvalue", honest.false_discovery_rate, name="confirmation")
    one_stage = honest.false_discovery == "by_all"
    steps = [correlated, confirmed] if one_stage else [correlated, significant, confirmed]
    return [*_shared_gates(rules), *steps]


def _classic_gates(rules: SelectionRules) -> list[Gate]:
    classic = rules.classic
    excluded, *others = _shared_gates(rules)
    return [
        excluded,
        Gate("unstable", pl.col("instability").is_null(), pl.col("instability")),
        *others,
        _at_least("price_correlation", classic.min_price_correlation),
        _at_most("coint_pvalue", classic.max_pvalue),
        Gate("unscored", pl.col("score").is_not_null(), pl.col("score_reason")),
        _at_least("score", classic.min_score),
    ]


def _at_least(column: str, limit: float) -> Gate:
    return Gate(column, pl.col(column) >= limit, _comparison(column, "<", limit))


def _at_most(column: str, limit: float, *, name: str | None = None) -> Gate:
    return Gate(name or column, pl.col(column) <= limit, _comparison(column, ">", limit))


def _comparison(column: str, sign: str, limit: float) -> pl.Expr:
    value = pl.col(column).round_sig_figs(3).cast(pl.String).fill_null("not defined")
    return pl.format("{} {} {} {}", pl.lit(column), value, pl.lit(sign), pl.lit(f"{limit:g}"))
