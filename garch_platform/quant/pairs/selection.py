"""Which pairs are selected, and why the others are not: both profiles over one body of evidence.

`select_pairs` tests every pair on the formation window, confirms and scores the candidates on the later
bars, and gives each pair two verdicts. `honest` (the default) controls the false discovery rate over the
pairs that reach the confirmation (two stages on bars that do not overlap, cf. [1]_); `classic` applies the
thresholds of the original documents. Every pair keeps its row with the gate at which it fell.

References
----------
.. [1] Benjamini, Y. and Hochberg, Y. (1995), "Controlling the false discovery rate", Journal of the Royal
   Statistical Society B 57, 289-300.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError
from garch_platform.quant.pairs.confirmation import false_discovery_qvalues
from garch_platform.quant.pairs.correlation import correlation_matrix
from garch_platform.quant.pairs.evidence import FROZEN_COLUMNS, directed, gather_evidence
from garch_platform.quant.pairs.gates import Gate, family_gates, first_failed, gate_names, profile_gates
from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.preselection import preselect_pairs
from garch_platform.quant.pairs.rules import PROFILES, Profile, SelectionRules
from garch_platform.quant.pairs.scan import SCAN_SCHEMA, TESTS, scan_pairs

__all__ = [
    "LEDGER_SCHEMA",
    "SELECTION_SCHEMA",
    "Selection",
    "judge",
    "pair_evidence",
    "scan_ledger",
    "select_pairs",
]

DIRECTED: Final[dict[str, pl.DataType]] = {
    "symbol_y": pl.String(),
    "symbol_x": pl.String(),
    "coint_statistic": pl.Float64(),
    "coint_pvalue": pl.Float64(),
    "coint_lags": pl.Int64(),
    "hedge_ratio": pl.Float64(),
    "intercept": pl.Float64(),
    "half_life": pl.Float64(),
}
DIRECTIONAL: Final = ("hedge_ratio", "intercept", "half_life", "lags")
VERDICT: Final[dict[str, pl.DataType]] = {
    "confirmation_qvalue": pl.Float64(),
    **{
        f"{profile}_{name}": dtype
        for profile in PROFILES
        for name, dtype in (("rank", pl.Int64()), ("gate", pl.String()), ("reason", pl.String()))
    },
    "profile": pl.String(),
    "rank": pl.Int64(),
    "passed": pl.Boolean(),
    "gate": pl.String(),
    "rejection_reason": pl.String(),
}
SELECTION_SCHEMA: Final[dict[str, pl.DataType]] = {
    **{
        name: dtype
        for name, dtype in SCAN_SCHEMA.items()
        if name != "reason" and not name.startswith(DIRECTIONAL)
    },
    **DIRECTED,
    **{name: dtype for name, dtype in FROZEN_COLUMNS.items() if name != "score_reason"},
    **VERDICT,
}
"""Columns of `Selection.table`: the scan, the stronger direction, the frozen spread, the verdicts.

``<profile>_gate`` and ``<profile>_reason`` name the first gate of a profile at which the pair fell, null
where it is selected; ``<profile>_rank`` counts its selected pairs from 1, by score, then p-value, then
names. ``rank``, ``passed``, ``gate`` and ``rejection_reason`` repeat those of ``profile``."""

LEDGER_SCHEMA: Final[dict[str, pl.DataType]] = {
    "profile": pl.String(),
    "pairs": pl.Int64(),
    "tested": pl.Int64(),
    "correlated": pl.Int64(),
    "significant": pl.Int64(),
    "confirmed": pl.Int64(),
    "ranked": pl.Int64(),
}
"""Columns of `Selection.ledger`, one row a profile: how many pairs were left after each stage. ``pairs``
counts all, ``tested`` those with a cointegration test; ``confirmed`` is null for a profile without a
second stage."""


@dataclass(frozen=True)
class Selection:
    """Result of `select_pairs`.

    Attributes:
        table: one row a pair with the columns of `SELECTION_SCHEMA`: the selected by rank, then the
            others by name.
        rules: the gates behind the verdicts.
    """

    table: pl.DataFrame
    rules: SelectionRules

    @property
    def ledger(self) -> pl.DataFrame:
        """What each stage of both profiles left over: the columns of `LEDGER_SCHEMA`."""
        return scan_ledger(self.table, rules=self.rules)

    @property
    def selected(self) -> pl.DataFrame:
        """The pairs that pass, by rank."""
        return self.table.filter("passed")


def select_pairs(
    panel: PairPanel,
    *,
    rules: SelectionRules,
    bars_per_year: float,
    excluded: Mapping[str, str] | None = None,
    unstable: Mapping[str, str] | None = None,
    silent: Mapping[str, str] | None = None,
    min_observations: int = 250,
    every_pair: bool = True,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    scanner: Callable[..., pl.DataFrame] = scan_pairs,
) -> Selection:
    """Test, confirm, score and rank every unordered pair of a universe.

    Args:
        panel: log prices and windows.
        rules: the gates.
        bars_per_year: bars in a year, to annualise ``oos_sharpe``.
        excluded: symbol to reason; its pairs are rows too, not computed. A symbol that the panel does not
            have may stand here.
        unstable: symbol to reason; its pairs are computed, and fail the classic profile.
        silent: symbol to reason why it cannot be traded now; its pairs are computed and confirmed with the
            others, and fail both profiles whatever their evidence.
        min_observations: fewest innovations of a spread to which GARCH is fitted; a pair with fewer has no
            score.
        every_pair: False tests only pairs that correlate enough for one of the profiles, and gives rows
            to those alone, without Johansen, KSS and Hurst: the same selection in a fraction of the time.
        workers: threads of the scan.
        progress: called with pairs done and pairs to do.
        scanner: `scan_pairs`, or what scans like it and keeps its tiles.

    Returns:
        Verdicts and ledger. The cost grows with the N (N - 1) / 2 pairs and, for candidates, with the bars.
    """
    evidence = pair_evidence(
        panel,
        rules=rules,
        bars_per_year=bars_per_year,
        excluded=excluded,
        min_observations=min_observations,
        every_pair=every_pair,
        workers=workers,
        progress=progress,
        scanner=scanner,
    )
    return judge(evidence, rules=rules, unstable=unstable, silent=silent)


def pair_evidence(
    panel: PairPanel,
    *,
    rules: SelectionRules,
    bars_per_year: float,
    excluded: Mapping[str, str] | None = None,
    min_observations: int = 250,
    every_pair: bool = True,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    scanner: Callable[..., pl.DataFrame] = scan_pairs,
) -> pl.DataFrame:
    """What `select_pairs` knows of each pair before the verdicts; `judge` takes it under any gates.

    Args:
        panel, bars_per_year, excluded, min_observations, every_pair: see `select_pairs`.
        workers, progress, scanner: see `select_pairs`.
        rules: gates that make a pair a candidate; those that judge later may be stricter, not looser.
    """
    left_out = dict(excluded or {})
    tested = panel.without(left_out)
    one_stage = rules.honest.false_discovery == "by_all"
    scan = scanner(
        tested.formation,
        symbols=tested.symbols,
        pairs=_chosen_pairs(tested, rules, every_pair=every_pair or one_stage),
        lags=rules.lags,
        session_index=tested.formation_sessions,
        correlation_horizon=rules.correlation_horizon,
        tests=TESTS if every_pair else (),
        workers=workers,
        progress=progress,
    )
    evidence = gather_evidence(
        directed(scan), tested, rules=rules, bars_per_year=bars_per_year, min_observations=min_observations
    )
    return _with_excluded(evidence, panel.symbols, left_out if every_pair else {})


def judge(
    evidence: pl.DataFrame,
    *,
    rules: SelectionRules,
    unstable: Mapping[str, str] | None = None,
    silent: Mapping[str, str] | None = None,
) -> Selection:
    """Give each pair the verdict of both profiles.

    Args:
        evidence: rows of `pair_evidence`.
        rules: the gates.
        unstable, silent: see `select_pairs`.

    Raises:
        ConfigurationError: the rules are looser than those that chose the candidates of ``evidence``.
    """
    verdicts = evidence.with_columns(
        instability=_named_reasons(unstable or {}), silence=_named_reasons(silent or {})
    )
    gates: dict[Profile, list[Gate]] = {profile: profile_gates(profile, rules) for profile in PROFILES}
    survivors = verdicts.select(first_failed(family_gates(rules), "gate").is_null()).to_series()
    _require_candidates(verdicts.filter(survivors), rules)
    verdicts = verdicts.with_columns(confirmation_qvalue=_qvalues(verdicts, survivors, rules))
    for profile, steps in gates.items():
        verdicts = verdicts.with_columns(
            first_failed(steps, "gate").alias(f"{profile}_gate"),
            first_failed(steps, "reason").alias(f"{profile}_reason"),
        )
        verdicts = _ranked(verdicts, profile)
    chosen = rules.profile
    table = verdicts.with_columns(
        profile=pl.lit(chosen),
        rank=f"{chosen}_rank",
        passed=pl.col(f"{chosen}_gate").is_null(),
        gate=f"{chosen}_gate",
        rejection_reason=f"{chosen}_reason",
    ).sort("rank", "symbol_1", "symbol_2", nulls_last=True)
    return Selection(
        table.select(pl.col(name).cast(dtype) for name, dtype in SELECTION_SCHEMA.items()), rules
    )


def scan_ledger(table: pl.DataFrame, *, rules: SelectionRules) -> pl.DataFrame:
    """Count what each stage of both profiles left over.

    Args:
        table: rows with ``honest_gate`` and ``classic_gate``.
        rules: the gates behind them.

    Returns:
        One row a profile with the columns of `LEDGER_SCHEMA`.
    """
    rows = [_stages(table, profile, gate_names(profile, rules)) for profile in PROFILES]
    return pl.DataFrame(rows, schema=LEDGER_SCHEMA)


def _chosen_pairs(panel: PairPanel, rules: SelectionRules, *, every_pair: bool) -> NDArray[np.int64] | None:
    """(P, 2) pairs to scan, None for all: those that are preselected, and correlate unless every one counts."""
    chosen = None
    if rules.preselection != "none":
        count = max(len(panel.symbols), 1)
        chosen = preselect_pairs(panel.formation, method=rules.preselection, count=count).pairs
    if every_pair:
        return chosen
    correlated = _correlated(panel, rules)
    if chosen is None:
        return correlated
    wanted = {tuple(pair) for pair in chosen.tolist()}
    return np.array([pair for pair in correlated.tolist() if tuple(pair) in wanted], np.int64).reshape(-1, 2)


def _correlated(panel: PairPanel, rules: SelectionRules) -> NDArray[np.int64]:
    """(P, 2) pairs that pass the correlation gate of either profile."""
    returns = correlation_matrix(
        panel.formation, session_index=panel.formation_sessions, horizon=rules.correlation_horizon
    )
    prices = correlation_matrix(panel.formation, horizon=0)
    enough = (returns >= rules.honest.min_return_correlation) | (
        prices >= rules.classic.min_price_correlation
    )
    return np.argwhere(np.triu(enough, k=1))


def _require_candidates(survivors: pl.DataFrame, rules: SelectionRules) -> None:
    lacking = survivors.filter(pl.col("confirmation_observations").is_null())
    if rules.honest.false_discovery != "by_all" and not lacking.is_empty():
        first, second = lacking.select("symbol_1", "symbol_2").row(0)
        raise ConfigurationError(
            f"{first} {second} passes gates that are looser than those of its evidence, which stops before the "
            "confirmation; gather the evidence again under these rules"
        )


def _qvalues(verdicts: pl.DataFrame, survivors: pl.Series, rules: SelectionRules) -> pl.Series:
    """Adjusted p-values of the pairs that reach the false discovery gate, null for the others."""
    method = rules.honest.false_discovery
    columns = ["pvalue_1_on_2", "pvalue_2_on_1"] if method == "by_all" else ["confirmation_pvalue"]
    pvalues = verdicts.select(columns).fill_null(1.0).to_numpy()
    chosen = survivors.to_numpy()
    adjusted = np.full(len(verdicts), np.nan)
    family = pvalues[chosen]
    adjusted[chosen] = (
        false_discovery_qvalues(family.ravel(), method=method).reshape(family.shape).min(axis=1)
    )
    return pl.Series(adjusted, nan_to_null=True)


def _ranked(verdicts: pl.DataFrame, profile: Profile) -> pl.DataFrame:
    order = {"score": True, "coint_pvalue": False, "symbol_1": False, "symbol_2": False}
    ranks = (
        verdicts.filter(pl.col(f"{profile}_gate").is_null())
        .sort(list(order), descending=list(order.values()), nulls_last=True)
        .select("symbol_1", "symbol_2")
        .with_row_index(f"{profile}_rank", offset=1)
    )
    return verdicts.join(ranks, on=["symbol_1", "symbol_2"], how="left", maintain_order="left")


def _stages(table: pl.DataFrame, profile: Profile, names: list[str]) -> dict[str, Any]:
    """The ledger's row of a profile with the gates ``names``."""
    fell_at = table[f"{profile}_gate"]

    def left(*stages: str) -> int | None:
        last = max((names.index(stage) for stage in stages if stage in names), default=None)
        return None if last is None else len(table) - int(fell_at.is_in(names[: last + 1]).sum())

    return {
        "profile": profile,
        "pairs": len(table),
        "tested": left("cointegration"),
        "correlated": left("return_correlation", "price_correlation"),
        "significant": left("coint_pvalue"),
        "confirmed": left("confirmation"),
        "ranked": int(fell_at.is_null().sum()),
    }


def _named_reasons(reasons: Mapping[str, str]) -> pl.Expr:
    """Per pair, the reasons of its legs, null where neither has one."""
    texts = {symbol: f"{symbol}: {reason}" for symbol, reason in reasons.items()}
    legs = [
        pl.col(leg).replace_strict(texts, default=None, return_dtype=pl.String)
        for leg in ("symbol_1", "symbol_2")
    ]
    both = pl.concat_str(legs, separator="; ", ignore_nulls=True)
    return pl.when(both != "").then(both)


def _with_excluded(
    evidence: pl.DataFrame, symbols: Iterable[str], excluded: Mapping[str, str]
) -> pl.DataFrame:
    if not excluded:
        return evidence.with_columns(exclusion=pl.lit(None, pl.String))
    names = sorted({*symbols, *excluded})
    pairs = [
        (first, second)
        for first, second in product(names, names)
        if first < second and (first in excluded or second in excluded)
    ]
    missing = pl.DataFrame(pairs, schema={"symbol_1": pl.String, "symbol_2": pl.String}, orient="row")
    missing = missing.with_columns(exclusion=_named_reasons(excluded))
    return pl.concat([evidence, missing], how="diagonal")
