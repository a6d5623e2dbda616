"""Selection: planted pairs, both profiles' gates with reasons, traps, and what must not change a bit."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.pairs.gates import gate_names
from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.rules import ClassicGates, HonestGates, SelectionRules
from garch_platform.quant.pairs.selection import (
    LEDGER_SCHEMA,
    SELECTION_SCHEMA,
    Selection,
    judge,
    pair_evidence,
    select_pairs,
)
from garch_platform.quant.timeseries.generator import MarketSpec, SimulatedMarket, simulate_market

SPEC = MarketSpec(
    n_symbols=8,
    n_pairs=2,
    bars_per_session=(390,) * 12,
    half_lives=(15.0, 25.0),
    breaking_pairs=0,
    spread_volatility=8e-4,
)
END = 390 * 10
RULES = SelectionRules(cost_bps=0.5, honest=HonestGates(min_return_correlation=0.3))
KEYS = ["symbol_1", "symbol_2"]
FORMATION_COLUMNS = [
    *KEYS, "symbol_y", "symbol_x", "n_observations", "coverage", "price_correlation", "return_correlation",
    "statistic_1_on_2", "pvalue_1_on_2", "statistic_2_on_1", "pvalue_2_on_1", "coint_statistic",
    "coint_pvalue", "johansen_trace_0", "kss_statistic", "hurst", "hedge_ratio", "intercept", "half_life",
    "spread_mean", "spread_std", "diagnostics_score", "aic",
]  # fmt: skip
CONFIRMATION_COLUMNS = [
    "confirmation_statistic", "confirmation_pvalue", "confirmation_qvalue", "fit_score", "volatility_score",
    "trading_score", "score", "honest_gate", "classic_gate", "honest_rank", "classic_rank", "rank",
]  # fmt: skip


@cache
def market() -> SimulatedMarket:
    return simulate_market(SPEC, seed=4)


def closes() -> pl.DataFrame:
    prices = market().log_closes
    columns = {f"S{k}": prices[:, k] for k in range(prices.shape[1])}
    return pl.DataFrame({"timestamp": np.arange(len(prices)), **columns})


def panel(frame: pl.DataFrame, end: int | None = END, sessions: Any = "market") -> PairPanel:
    known = pl.Series(market().session_index[: len(frame)]) if isinstance(sessions, str) else sessions
    return PairPanel.read(frame, formation_share=0.7, performance_start=end, session_ids=known)


def select(frame: pl.DataFrame, rules: SelectionRules = RULES, **options: Any) -> Selection:
    given = {name: options.pop(name) for name in ("end", "sessions") if name in options}
    return select_pairs(panel(frame, **given), rules=rules, bars_per_year=98_280.0, **options)


@cache
def baseline() -> Selection:
    return select(closes())


def pair(result: Selection, first: str, second: str) -> dict[str, Any]:
    rows = result.table.filter((pl.col("symbol_1") == first) & (pl.col("symbol_2") == second))
    assert rows.height == 1
    return rows.row(0, named=True)


def test_every_unordered_pair_is_one_row_of_the_schema() -> None:
    table = baseline().table
    assert dict(table.schema) == SELECTION_SCHEMA
    assert table.height == 28
    assert (table["symbol_1"] < table["symbol_2"]).all()
    assert table.select(KEYS).is_unique().all()
    assert table["passed"].equals(table["rejection_reason"].is_null())
    assert table["passed"].equals(table["rank"].is_not_null())
    for profile in ("honest", "classic"):
        assert table[f"{profile}_gate"].is_null().equals(table[f"{profile}_rank"].is_not_null())
        assert table[f"{profile}_gate"].drop_nulls().is_in(gate_names(profile, RULES)).all()  # type: ignore[arg-type]


def test_planted_pairs_are_selected_with_their_parameters() -> None:
    result = baseline()
    planted = {("S0", "S1"), ("S2", "S3")}
    assert set(result.selected.select(KEYS).rows()) == planted
    for row in market().truth.iter_rows(named=True):
        found = pair(result, f"S{row['first']}", f"S{row['second']}")
        ratio = (
            found["hedge_ratio"] if found["symbol_y"] == f"S{row['first']}" else 1.0 / found["hedge_ratio"]
        )
        assert ratio == pytest.approx(row["hedge_ratio"], rel=0.05)
        planted_life = row["half_life_bars"]
        error = math.sqrt(2.0 * planted_life / (math.log(2.0) * found["n_observations"]))
        assert found["half_life"] == pytest.approx(planted_life, rel=2.5 * error)
        assert found["confirmation_qvalue"] <= 0.05
        assert found["oos_trades"] > 0


def test_ranks_follow_the_score() -> None:
    selected = baseline().selected
    assert selected["rank"].to_list() == list(range(1, selected.height + 1))
    assert selected["score"].is_sorted(descending=True)
    parts = selected.select("fit_score", "volatility_score", "trading_score", "diagnostics_score").to_numpy()
    np.testing.assert_allclose(selected["score"], parts @ [0.4, 0.3, 0.2, 0.1], rtol=1e-12)
    assert ((parts >= 0.0) & (parts <= 1.0)).all()


def test_the_ledger_counts_what_each_stage_leaves() -> None:
    ledger = baseline().ledger
    assert dict(ledger.schema) == LEDGER_SCHEMA
    table = baseline().table
    honest = ledger.row(by_predicate=pl.col("profile") == "honest", named=True)
    correlated = table.filter(pl.col("return_correlation") >= 0.3)
    significant = correlated.filter(pl.col("coint_pvalue") <= 0.01)
    assert honest == {
        "profile": "honest",
        "pairs": 28,
        "tested": 28,
        "correlated": correlated.height,
        "significant": significant.height,
        "confirmed": significant.filter(pl.col("confirmation_qvalue") <= 0.05).height,
        "ranked": 2,
    }
    classic = ledger.row(by_predicate=pl.col("profile") == "classic", named=True)
    assert classic["confirmed"] is None
    assert classic["significant"] >= classic["ranked"]


def test_scrambling_the_performance_window_leaves_every_verdict() -> None:
    before, after = baseline().table, select(scrambled(END)).table
    columns = FORMATION_COLUMNS + CONFIRMATION_COLUMNS
    assert before.select(columns).sort(KEYS).equals(after.select(columns).sort(KEYS))
    assert not before["oos_sharpe"].equals(after["oos_sharpe"])


def test_scrambling_all_later_bars_leaves_the_formation_bits() -> None:
    split = panel(closes()).formation_end
    before, after = baseline().table, select(scrambled(split)).table
    assert before.select(FORMATION_COLUMNS).sort(KEYS).equals(after.select(FORMATION_COLUMNS).sort(KEYS))
    assert not before["confirmation_statistic"].equals(after["confirmation_statistic"])


def scrambled(start: int) -> pl.DataFrame:
    frame = closes()
    rng = np.random.default_rng(0)
    later = pl.int_range(pl.len()) >= start
    return frame.with_columns(
        pl.when(later).then(pl.Series(name, rng.normal(4.0, 1.0, frame.height))).otherwise(name).alias(name)
        for name in frame.columns[1:]
    )


def test_the_order_of_the_symbols_does_not_matter() -> None:
    frame = closes()
    turned = select(frame.select("timestamp", *reversed(frame.columns[1:])))
    assert turned.table.equals(baseline().table)


def test_a_constant_factor_of_prices_changes_no_verdict() -> None:
    shifted = select(
        closes().with_columns((pl.col("S0") + 7.0).alias("S0"), (pl.col("S5") - 20.0).alias("S5"))
    )
    columns = [*KEYS, "honest_gate", "classic_gate"]
    assert shifted.table.select(columns).sort(KEYS).equals(baseline().table.select(columns).sort(KEYS))
    for name in ("coint_statistic", "score", "confirmation_statistic", "half_life"):
        np.testing.assert_allclose(
            shifted.table.sort(KEYS)[name].fill_null(0.0),
            baseline().table.sort(KEYS)[name].fill_null(0.0),
            rtol=1e-6,
        )


def test_a_proxy_is_never_selected() -> None:
    frame = closes().with_columns((pl.col("S0") + math.log(2.0)).alias("PROXY"))
    found = pair(select(frame), "PROXY", "S0")
    assert found["gate"] == "cointegration"
    assert "collinear" in found["rejection_reason"]
    assert found["coint_pvalue"] is None
    assert found["classic_gate"] == "cointegration"


def test_excluded_symbols_keep_their_rows_without_statistics() -> None:
    result = select(closes(), excluded={"S1": "no bar in this session", "S9": "no bars"})
    assert result.table.height == 36
    assert pair(result, "S1", "S9")["rejection_reason"] == "S1: no bar in this session; S9: no bars"
    rows = result.table.filter(
        pl.col("symbol_1").is_in(["S1", "S9"]) | pl.col("symbol_2").is_in(["S1", "S9"])
    )
    assert rows.height == 7 + 8
    assert rows["coint_pvalue"].null_count() == rows.height
    assert rows["gate"].unique().to_list() == ["excluded"]


def test_a_silent_symbol_keeps_its_evidence_and_its_place_in_the_family() -> None:
    result = select(closes(), silent={"S1": "no bar today"})
    found, before = pair(result, "S0", "S1"), pair(baseline(), "S0", "S1")
    assert found["rejection_reason"] == "S1: no bar today"
    assert found["gate"] == found["classic_gate"] == "silent"
    for name in ("coint_pvalue", "confirmation_qvalue", "score", "oos_sharpe"):
        assert found[name] == before[name]
    other = pair(result, "S2", "S3")
    assert other["confirmation_qvalue"] == pair(baseline(), "S2", "S3")["confirmation_qvalue"]


def test_preselection_leaves_rows_to_chosen_pairs_alone() -> None:
    for method in ("distance", "cluster"):
        chosen = select(closes(), replace(RULES, preselection=method))
        assert 0 < chosen.table.height <= (8 if method == "distance" else 28)
        fast = select(closes(), replace(RULES, preselection=method), every_pair=False)
        assert fast.selected.select(KEYS).equals(chosen.selected.select(KEYS))


def test_gates_looser_than_those_of_the_evidence_are_refused() -> None:
    strict = replace(RULES, honest=HonestGates(0.3, max_pvalue=1e-25), classic=ClassicGates(max_pvalue=1e-25))
    evidence = pair_evidence(panel(closes()), rules=strict, bars_per_year=252.0)
    with pytest.raises(ConfigurationError, match="looser than those of its evidence"):
        judge(evidence, rules=RULES)


def test_unstable_symbols_fall_in_the_classic_profile_alone() -> None:
    result = select(closes(), unstable={"S1": "high_volatility"})
    found = pair(result, "S0", "S1")
    assert found["classic_reason"] == "S1: high_volatility"
    assert found["classic_gate"] == "unstable"
    assert found["passed"]
    assert pair(result, "S2", "S3")["classic_gate"] == pair(baseline(), "S2", "S3")["classic_gate"]


def test_constant_absent_and_sparse_symbols_fall_with_a_reason() -> None:
    frame = closes().with_columns(
        pl.lit(4.6).alias("FLAT"),
        pl.lit(None, pl.Float64).alias("VOID"),
        pl.when(pl.int_range(pl.len()) % 2 == 0).then("S1").alias("HALF"),
    )
    result = select(frame)
    assert pair(result, "FLAT", "S0")["gate"] == "cointegration"
    assert pair(result, "S0", "VOID")["gate"] == "coverage"
    assert str(pair(result, "HALF", "S0")["rejection_reason"]).startswith("coverage 0.49")
    kept = result.table.join(baseline().table, on=KEYS, how="semi").sort(KEYS)
    columns = [name for name in SELECTION_SCHEMA if not name.endswith("rank")]
    assert kept.select(columns).equals(baseline().table.sort(KEYS).select(columns))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"min_coverage": 1.0}, r"coverage 0\.99\d* < 1"),
        ({"honest": HonestGates(min_return_correlation=0.999)}, r"return_correlation 0\.\d+ < 0\.999"),
        ({"honest": HonestGates(0.3, max_pvalue=1e-28)}, r"coint_pvalue \d.*e-\d+ > 1e-28"),
        (
            {"honest": HonestGates(0.3, false_discovery_rate=1e-9)},
            r"confirmation_qvalue [\d.e-]+ > 1e-09",
        ),
    ],
)
def test_each_gate_names_its_value_and_threshold(changed: dict[str, Any], reason: str) -> None:
    result = select(closes(), replace(RULES, **changed))
    assert not result.table["passed"].any()
    assert re.fullmatch(reason, str(pair(result, "S0", "S1")["rejection_reason"]))


@pytest.mark.parametrize(
    ("gates", "gate"),
    [
        (ClassicGates(min_price_correlation=0.99999), "price_correlation"),
        (ClassicGates(max_pvalue=1e-28), "coint_pvalue"),
        (ClassicGates(min_score=0.9999), "score"),
    ],
)
def test_the_classic_gates_hold(gates: ClassicGates, gate: str) -> None:
    result = select(closes(), replace(RULES, classic=gates, profile="classic"))
    assert pair(result, "S0", "S1")["gate"] == gate
    assert not result.table["passed"].any()


def test_one_stage_under_benjamini_yekutieli() -> None:
    rules = replace(RULES, honest=HonestGates(0.3, false_discovery="by_all"))
    result = select(closes(), rules)
    assert ("S0", "S1") in result.selected.select(KEYS).rows()
    tests = baseline().table.select("pvalue_1_on_2", "pvalue_2_on_1").to_numpy().ravel()
    harmonic = (1.0 / np.arange(1, len(tests) + 1)).sum()
    found = pair(result, "S0", "S1")
    assert found["confirmation_qvalue"] <= min(1.0, found["coint_pvalue"] * len(tests) * harmonic) * (
        1 + 1e-9
    )
    ledger = result.ledger.row(by_predicate=pl.col("profile") == "honest", named=True)
    assert ledger["significant"] is None
    assert ledger["confirmed"] >= ledger["ranked"]


def test_short_windows_fall_and_do_not_raise() -> None:
    for bars in (3, 5, 40, 150):
        few = select(closes().head(bars), end=None, sessions=None)
        assert few.table["passed"].sum() == 0
        assert few.table["classic_rank"].null_count() == 28


def test_intraday_formation_ends_with_a_session() -> None:
    window = panel(closes())
    sessions = market().session_index
    assert sessions[window.formation_end] != sessions[window.formation_end - 1]
    assert abs(window.formation_end - 0.7 * END) <= 195


def test_an_empty_universe_gives_an_empty_table() -> None:
    for names in ([], ["S0"]):
        empty = select(closes().select("timestamp", *names))
        assert dict(empty.table.schema) == SELECTION_SCHEMA
        assert empty.table.is_empty()
        assert empty.ledger["ranked"].to_list() == [0, 0]


def test_without_a_performance_window_there_is_no_performance() -> None:
    whole = select(closes().head(END), end=None)
    assert whole.selected.height == 2
    assert whole.table["oos_sharpe"].null_count() == 28
    assert whole.table["oos_trades"].null_count() == 28
    columns = FORMATION_COLUMNS + CONFIRMATION_COLUMNS
    assert whole.table.select(columns).sort(KEYS).equals(baseline().table.select(columns).sort(KEYS))


def test_malformed_panels_are_refused() -> None:
    frame = closes()
    with pytest.raises(DataError, match="no column timestamp"):
        select(frame.drop("timestamp"))
    with pytest.raises(DataError, match="does not strictly increase"):
        select(pl.concat([frame, frame.tail(1)]), sessions=None)
    with pytest.raises(DataError, match=r"session_ids has 3 entries for \d+ bars"):
        select(frame, sessions=pl.Series([1, 1, 2]))
    with pytest.raises(DataError, match=r"log_closes\.S0 is String"):
        select(frame.with_columns(pl.col("S0").cast(pl.String)))
    with pytest.raises(ConfigurationError, match=r"formation_share is 1\.5"):
        PairPanel.read(frame, formation_share=1.5)
    timed = frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us")))
    with pytest.raises(DataError, match="does not compare with timestamps"):
        PairPanel.read(timed, formation_share=0.7, performance_start="later")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelectionRules(profile="modern"), "profile 'modern' is not known"),  # type: ignore[arg-type]
        (lambda: HonestGates(false_discovery="holm"), "false_discovery 'holm' is not known"),  # type: ignore[arg-type]
        (lambda: HonestGates(false_discovery_rate=0.0), "false_discovery_rate is 0.0"),
        (lambda: SelectionRules(preselection="random"), "preselection 'random' is not known"),  # type: ignore[arg-type]
        (lambda: SelectionRules(entry_zscore=0.5), "entry_zscore 0.5 is not above exit_zscore 0.5"),
        (lambda: SelectionRules(cost_bps=-1.0), "cost_bps is -1.0; use at least 0"),
        (lambda: SelectionRules(lags=-1), "lags is -1"),
        (lambda: SelectionRules(correlation_horizon=0), "correlation_horizon is 0"),
    ],
)
def test_rules_refuse_nonsense(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()
