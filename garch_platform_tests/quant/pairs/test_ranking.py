"""Ranking: planted pairs, gates with reasons, traps, and what must not change a bit."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest

from garch_platform.errors import DataError
from garch_platform.quant.pairs.cointegration import engle_granger
from garch_platform.quant.pairs.ranking import RANKING_SCHEMA, PairGates, rank_pairs
from garch_platform.quant.timeseries.generator import MarketSpec, SimulatedMarket, simulate_market

GATES = PairGates(
    min_correlation=0.8,
    max_pvalue=0.05,
    min_score=0.6,
    lags=1,
    min_coverage=0.9,
    entry_zscore=2.0,
    exit_zscore=0.5,
    cost_bps=2.0,
)
SPEC = MarketSpec(
    n_symbols=8,
    n_pairs=2,
    bars_per_session=(390,) * 8,
    half_lives=(15.0, 25.0),
    breaking_pairs=0,
    spread_volatility=8e-4,
)
SPLIT = 390 * 6
FORMATION_COLUMNS = [
    "symbol_1", "symbol_2", "symbol_y", "symbol_x", "n_observations", "coverage", "price_correlation",
    "return_correlation", "statistic_1_on_2", "pvalue_1_on_2", "statistic_2_on_1", "pvalue_2_on_1",
    "coint_statistic", "coint_pvalue", "hedge_ratio", "intercept", "half_life", "spread_mean", "spread_std",
    "fit_score", "diagnostics_score",
]  # fmt: skip


@cache
def market() -> SimulatedMarket:
    return simulate_market(SPEC, seed=4)


def panel() -> pl.DataFrame:
    closes = market().log_closes
    start = datetime(2024, 1, 8, tzinfo=UTC)
    times = pl.datetime_range(
        start, start + timedelta(minutes=len(closes) - 1), "1m", time_unit="us", eager=True
    )
    columns = {f"S{k}": closes[:, k] for k in range(closes.shape[1])}
    return pl.DataFrame({"timestamp": times, **columns})


def ranked(frame: pl.DataFrame, gates: PairGates = GATES, **options: object) -> pl.DataFrame:
    options = {"out_of_sample_start": SPLIT, "session_ids": market().session_index} | options
    return rank_pairs(frame, gates=gates, bars_per_year=98_280.0, **options)  # type: ignore[arg-type]


@cache
def baseline() -> pl.DataFrame:
    return ranked(panel())


def pair(result: pl.DataFrame, first: str, second: str) -> dict[str, object]:
    rows = result.filter((pl.col("symbol_1") == first) & (pl.col("symbol_2") == second))
    assert rows.height == 1
    return rows.row(0, named=True)


def test_every_unordered_pair_is_one_row_of_the_schema() -> None:
    result = baseline()
    assert dict(result.schema) == RANKING_SCHEMA
    assert result.height == 28
    assert (result["symbol_1"] < result["symbol_2"]).all()
    assert result.select("symbol_1", "symbol_2").is_unique().all()
    assert result["passed"].equals(result["rejection_reason"].is_null())
    assert result["passed"].equals(result["rank"].is_not_null())


def test_planted_pairs_pass_with_the_strongest_evidence_and_their_parameters() -> None:
    result = baseline()
    planted = [("S0", "S1"), ("S2", "S3")]
    strongest = result.sort("coint_pvalue", nulls_last=True).head(2)
    assert sorted(strongest.select("symbol_1", "symbol_2").rows()) == planted
    assert set(planted) <= set(result.filter("passed").select("symbol_1", "symbol_2").rows())
    for row in market().truth.iter_rows(named=True):
        found = pair(result, f"S{row['first']}", f"S{row['second']}")
        ratio = (
            found["hedge_ratio"] if found["symbol_y"] == f"S{row['first']}" else 1.0 / found["hedge_ratio"]
        )
        assert ratio == pytest.approx(row["hedge_ratio"], rel=0.05)
        assert found["half_life"] == pytest.approx(row["half_life_bars"], rel=0.35)


def test_ranks_follow_the_score() -> None:
    passed = baseline().filter("passed")
    assert passed["rank"].to_list() == list(range(1, passed.height + 1))
    assert passed["score"].is_sorted(descending=True)
    assert passed["score"].min() >= GATES.min_score
    parts = passed.select("fit_score", "volatility_score", "trading_score", "diagnostics_score").to_numpy()
    np.testing.assert_allclose(passed["score"], parts @ [0.4, 0.3, 0.2, 0.1], rtol=1e-12)
    assert ((parts >= 0.0) & (parts <= 1.0)).all()


def test_statistics_are_those_of_the_formation_window_alone() -> None:
    found = pair(baseline(), "S0", "S1")
    a, b = (panel()[name].to_numpy()[:SPLIT] for name in ("S0", "S1"))
    forward, backward = engle_granger(a, b, lags=1), engle_granger(b, a, lags=1)
    assert found["pvalue_1_on_2"] == forward.pvalue
    assert found["pvalue_2_on_1"] == backward.pvalue
    assert found["coint_pvalue"] == min(forward.pvalue, backward.pvalue)
    both = np.isfinite(a) & np.isfinite(b)
    assert found["n_observations"] == both.sum()
    assert found["price_correlation"] == pytest.approx(np.corrcoef(a[both], b[both])[0, 1], rel=1e-10)


def test_the_stronger_direction_names_the_legs() -> None:
    rows = baseline().drop_nulls("coint_pvalue")
    forward = rows["symbol_y"] == rows["symbol_1"]
    assert 0 < forward.sum() < rows.height
    stronger = rows["statistic_1_on_2"] < rows["statistic_2_on_1"]
    assert stronger.equals(forward, check_names=False)
    assert rows["coint_pvalue"].equals(
        rows.select(pl.min_horizontal("pvalue_1_on_2", "pvalue_2_on_1")).to_series(), check_names=False
    )
    legs = rows.select(pl.concat_list("symbol_y", "symbol_x").list.sort())
    assert legs.to_series().to_list() == [list(row) for row in rows.select("symbol_1", "symbol_2").rows()]


def test_scrambling_the_future_leaves_the_formation_bits() -> None:
    frame = panel()
    rng = np.random.default_rng(0)
    later = pl.int_range(pl.len()) >= SPLIT
    scrambled = frame.with_columns(
        pl.when(later).then(pl.Series(name, rng.normal(4.0, 1.0, frame.height))).otherwise(name).alias(name)
        for name in frame.columns[1:]
    )
    keys = ["symbol_1", "symbol_2"]
    before, after = (r.select(FORMATION_COLUMNS).sort(keys) for r in (baseline(), ranked(scrambled)))
    assert before.equals(after)


def test_bars_after_the_panel_are_not_needed() -> None:
    frame = panel()
    short = ranked(frame.head(SPLIT + 100), session_ids=market().session_index[: SPLIT + 100])
    keys = ["symbol_1", "symbol_2"]
    assert short.select(FORMATION_COLUMNS).sort(keys).equals(baseline().select(FORMATION_COLUMNS).sort(keys))


def test_the_order_of_the_symbols_does_not_matter() -> None:
    frame = panel()
    assert ranked(frame.select("timestamp", *reversed(frame.columns[1:]))).equals(baseline())


def test_the_split_may_be_a_time_or_a_row() -> None:
    frame = panel()
    assert ranked(frame, out_of_sample_start=frame["timestamp"][SPLIT]).equals(baseline())


def test_a_pair_does_not_depend_on_the_other_symbols() -> None:
    alone = ranked(panel().select("timestamp", "S0", "S1"))
    assert alone.drop("rank").equals(
        baseline().filter((pl.col("symbol_1") == "S0") & (pl.col("symbol_2") == "S1")).drop("rank")
    )


def test_a_proxy_is_rejected_whether_marked_or_not() -> None:
    frame = panel().with_columns((pl.col("S0") + math.log(2.0)).alias("PROXY"))
    found = pair(ranked(frame), "PROXY", "S0")
    assert found["rejection_reason"] == "cointegration not tested: collinear"
    assert found["coint_pvalue"] is None
    assert found["rank"] is None
    marked = ranked(frame, excluded={"PROXY": "proxy of S0"})
    reasons = marked.filter(pl.col("symbol_1") == "PROXY")["rejection_reason"].unique().to_list()
    assert reasons == ["PROXY excluded: proxy of S0"]


def test_excluded_symbols_keep_their_rows_without_statistics() -> None:
    result = ranked(panel(), excluded={"S1": "arch_test_failed", "S9": "no bars"})
    assert result.height == 36
    assert (
        pair(result, "S1", "S9")["rejection_reason"] == "S1 excluded: arch_test_failed; S9 excluded: no bars"
    )
    rows = result.filter(pl.col("symbol_1").is_in(["S1", "S9"]) | pl.col("symbol_2").is_in(["S1", "S9"]))
    assert rows.height == 7 + 8
    assert rows["coint_pvalue"].null_count() == rows.height
    others = result.join(rows, on=["symbol_1", "symbol_2"], how="anti")
    assert others.drop("rank").equals(
        baseline().join(others, on=["symbol_1", "symbol_2"], how="semi").drop("rank")
    )


def test_constant_and_absent_symbols_are_rejected_with_a_reason() -> None:
    frame = panel().with_columns(
        pl.lit(4.6).alias("FLAT"),
        pl.lit(None, pl.Float64).alias("VOID"),
        pl.when(pl.int_range(pl.len()) % 2 == 0).then("S1").alias("HALF"),
    )
    result = ranked(frame)
    assert pair(result, "FLAT", "S0")["rejection_reason"] == (
        "price_correlation is not defined: a leg is constant or absent"
    )
    assert pair(result, "S0", "VOID")["rejection_reason"] == "coverage 0.000 < 0.9"
    assert str(pair(result, "HALF", "S0")["rejection_reason"]).startswith("coverage 0.49")
    assert result.join(baseline(), on=["symbol_1", "symbol_2"], how="semi").equals(baseline())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"min_coverage": 1.0}, r"coverage 0\.99\d < 1"),
        ({"min_correlation": 0.99999}, r"price_correlation 0\.9\d\d < 0\.99999"),
        ({"max_pvalue": 1e-28}, r"coint_pvalue \d.*e-\d\d > 1e-28"),
        ({"min_score": 0.999}, r"score 0\.\d\d\d < 0\.999"),
    ],
)
def test_each_gate_names_its_value_and_threshold(changed: dict[str, float], reason: str) -> None:
    result = ranked(panel(), replace(GATES, **changed))
    assert not result["passed"].any()
    assert re.fullmatch(reason, str(pair(result, "S0", "S1")["rejection_reason"]))


def test_short_windows_are_rejected_and_not_raised() -> None:
    frame = panel()
    few = ranked(frame.head(150), out_of_sample_start=120, session_ids=None)
    reasons = few["rejection_reason"].drop_nulls()
    assert few["passed"].sum() == 0
    assert reasons.str.contains(r"^garch insufficient|^coint_pvalue|^price_correlation").all()
    none_later = ranked(frame.head(SPLIT), session_ids=None)
    assert pair(none_later, "S0", "S1")["rejection_reason"] == "out_of_sample_bars 0 < 20"
    tiny = ranked(frame.head(3), out_of_sample_start=2, session_ids=None)
    assert tiny["passed"].sum() == 0


def test_an_empty_universe_gives_an_empty_frame() -> None:
    assert dict(ranked(panel().select("timestamp")).schema) == RANKING_SCHEMA
    assert ranked(panel().select("timestamp", "S0")).is_empty()


def test_sessions_keep_overnight_moves_out_of_the_return_correlation() -> None:
    frame = panel()
    within, across = baseline(), ranked(frame, session_ids=None)
    assert pair(within, "S0", "S1")["coint_pvalue"] == pair(across, "S0", "S1")["coint_pvalue"]
    assert pair(within, "S0", "S1")["return_correlation"] != pair(across, "S0", "S1")["return_correlation"]


def test_daily_panels_take_dates() -> None:
    rng = np.random.default_rng(1)
    x = 4.0 + 0.01 * np.cumsum(rng.standard_normal(700))
    frame = pl.DataFrame(
        {
            "timestamp": [date(2020, 1, 1) + timedelta(days=k) for k in range(700)],
            "X": x,
            "Y": x + 0.01 * rng.standard_normal(700),
        }
    )
    result = rank_pairs(frame, out_of_sample_start=date(2021, 5, 15), gates=GATES, bars_per_year=252.0)
    assert result["n_observations"].to_list() == [500]
    assert result["coint_pvalue"][0] < 1e-10


def test_malformed_panels_are_refused() -> None:
    frame = panel()
    with pytest.raises(DataError, match="no column timestamp"):
        ranked(frame.drop("timestamp"))
    with pytest.raises(DataError, match="does not strictly increase"):
        ranked(pl.concat([frame, frame.tail(1)]), session_ids=None)
    with pytest.raises(DataError, match="does not compare with timestamps"):
        ranked(
            frame.with_columns(pl.col("timestamp").dt.replace_time_zone("UTC")), out_of_sample_start="later"
        )
