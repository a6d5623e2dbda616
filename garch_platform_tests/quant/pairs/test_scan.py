"""The scan: parity with statsmodels, and what may not change its result."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from polars.testing import assert_frame_equal
from statsmodels.regression.linear_model import OLS
from statsmodels.tsa.stattools import adfuller, coint
from statsmodels.tsa.vector_ar.vecm import coint_johansen

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.pairs.cointegration import MIN_OBSERVATIONS
from garch_platform.quant.pairs.scan import BYTES_PER_PAIR, SCAN_SCHEMA, scan_pairs, scan_tiles
from garch_platform.quant.pairs.spread import half_life, hurst_exponent
from garch_platform_tests.sources.market_files import shared_data

Panel = np.ndarray
LAGS = (0, 1, 7, 40, "aic", "bic")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def market(bars: int = 300, symbols: int = 6, seed: int = 0) -> Panel:
    """Log prices of walks with a common factor; column 1 reverts to 0, column 3 to 2, by an ARMA spread."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((bars, symbols)) + rng.standard_normal((bars, 1))
    prices = 4.0 + 0.01 * np.cumsum(steps, axis=0)
    noise = 0.02 * rng.standard_normal((bars + 3, 2))
    prices[:, 1] = prices[:, 0] + noise[3:, 0]
    prices[:, 3] = 0.7 * prices[:, 2] + noise[3:, 1] + 0.6 * noise[2:-1, 1] - 0.4 * noise[:-3, 1]
    return prices


def residual(y: Panel, x: Panel) -> Panel:
    return OLS(y, np.column_stack([x, np.ones(len(x))])).fit().resid


def reference(y: Panel, x: Panel, lags: int | str, max_lags: int | None = None) -> tuple[float, float, int]:
    """Statistic, p-value and lags of statsmodels."""
    criterion = lags if isinstance(lags, str) else None
    most = max_lags if criterion else lags
    statistic, pvalue, _ = coint(y, x, trend="c", maxlag=most, autolag=criterion)
    used = adfuller(residual(y, x), most, regression="n", autolag=criterion, result_object=True).lags
    return statistic, pvalue, used


def legs(panel: Panel, row: dict[str, object]) -> tuple[Panel, Panel]:
    """Both legs on their common bars."""
    pair = panel[:, [int(str(row["symbol_1"])), int(str(row["symbol_2"]))]]
    pair = pair[np.isfinite(pair).all(axis=1)]
    return pair[:, 0], pair[:, 1]


def better(row: dict[str, object], first: Panel, second: Panel) -> tuple[Panel, Panel, int]:
    """Dependent leg, independent leg and lags of the direction with the lower statistic."""
    if row["statistic_1_on_2"] <= row["statistic_2_on_1"]:
        return first, second, row["lags_1_on_2"]
    return second, first, row["lags_2_on_1"]


@pytest.mark.parametrize("lags", LAGS)
@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_engle_granger_equals_statsmodels(lags: int | str, gaps: float) -> None:
    panel = market()
    panel[np.random.default_rng(5).random(panel.shape) < gaps] = np.nan
    for row in scan_pairs(panel, lags=lags, tests=()).iter_rows(named=True):
        first, second = legs(panel, row)
        assert row["n_observations"] == len(first)
        for name, y, x in (("1_on_2", first, second), ("2_on_1", second, first)):
            statistic, pvalue, used = reference(y, x, lags)
            assert row[f"lags_{name}"] == used
            assert row[f"statistic_{name}"] == pytest.approx(statistic, rel=1e-9, abs=1e-9)
            assert row[f"pvalue_{name}"] == pytest.approx(pvalue, rel=1e-9, abs=1e-29)
            slope, intercept = np.polyfit(x, y, 1)
            assert row[f"hedge_ratio_{name}"] == pytest.approx(slope, rel=1e-9)
            assert row[f"intercept_{name}"] == pytest.approx(intercept, rel=1e-8)
            spread = y - slope * x - intercept
            expected = half_life(spread)
            found = row[f"half_life_{name}"]
            assert found is None if math.isnan(expected) else found == pytest.approx(expected, rel=1e-8)


def test_most_lags_of_a_criterion_can_be_set() -> None:
    panel = market(symbols=4)
    for row in scan_pairs(panel, lags="aic", max_lags=3, tests=()).iter_rows(named=True):
        statistic, _, used = reference(*legs(panel, row), "aic", 3)
        assert (row["lags_1_on_2"], row["statistic_1_on_2"]) == (used, pytest.approx(statistic, rel=1e-9))


@pytest.mark.parametrize("lags", [1, 3])
@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_johansen_equals_statsmodels(lags: int, gaps: float) -> None:
    panel = market()
    panel[np.random.default_rng(5).random(panel.shape) < gaps] = np.nan
    scan = scan_pairs(panel, tests=("johansen",), johansen_lags=lags)
    for row in scan.iter_rows(named=True):
        result = coint_johansen(np.column_stack(legs(panel, row)), 0, lags)
        assert_allclose(
            [row["johansen_trace_0"], row["johansen_trace_1"]], result.trace_stat, rtol=1e-9, atol=1e-9
        )
        passed = result.trace_stat > result.trace_stat_crit_vals[:, 1]
        assert row["johansen_rank"] == (2 if passed.all() else int(passed[0]))
    assert scan["kss_statistic"].null_count() == scan["hurst"].null_count() == len(scan)


@pytest.mark.parametrize("lags", [0, 2, "aic"])
def test_smooth_transition_statistic_equals_its_regression(lags: int | str) -> None:
    panel = market()
    for row in scan_pairs(panel, lags=lags, tests=("kss",)).iter_rows(named=True):
        y, x, used = better(row, *legs(panel, row))
        spread = residual(y, x)
        change = np.diff(spread)
        columns = [change[used - lag : len(change) - lag] for lag in range(1, used + 1)]
        fit = OLS(change[used:], np.column_stack([spread[used:-1] ** 3, *columns])).fit()
        assert row["kss_statistic"] == pytest.approx(fit.tvalues[0], rel=1e-9)
        assert 0.0 < row["kss_pvalue"] < 1.0


@pytest.mark.parametrize("bars", [40, 300])
def test_hurst_exponent_of_the_better_spread(bars: int) -> None:
    panel = market(bars)
    for row in scan_pairs(panel, tests=("hurst",)).iter_rows(named=True):
        y, x, _ = better(row, *legs(panel, row))
        assert row["hurst"] == pytest.approx(hurst_exponent(residual(y, x)), rel=1e-8)


def test_the_published_example_of_two_country_funds() -> None:
    """Chan, Algorithmic Trading (2013), examples 2.6 and 2.7."""
    prices = pl.read_csv(shared_data("benchmarks/chan_EWA_EWC_IGE.csv")).select("EWC", "EWA").to_numpy()
    row = scan_pairs(prices, symbols=["EWC", "EWA"], lags=1).row(0, named=True)
    assert row["statistic_1_on_2"] == pytest.approx(-3.64351, abs=1e-5)
    assert row["hedge_ratio_1_on_2"] == pytest.approx(0.9624294, abs=1e-7)
    assert row["intercept_1_on_2"] == pytest.approx(6.4113314, abs=1e-6)
    assert (row["johansen_trace_0"], row["johansen_trace_1"]) == pytest.approx((19.9832, 3.9828), abs=1e-4)


def test_the_published_pair_that_is_not_cointegrated() -> None:
    prices = pl.read_csv(shared_data("benchmarks/chan_KO_PEP.csv")).select("KO", "PEP").to_numpy()
    row = scan_pairs(prices, lags=1).row(0, named=True)
    assert row["statistic_1_on_2"] == pytest.approx(-2.14260590, abs=1e-8)
    assert row["pvalue_1_on_2"] > 0.4


HARD = {
    "nearly collinear": lambda x, w, t: x + 0.004 * w,
    "trends": lambda x, w, t: t + np.diff(w, prepend=0.0),
    "smooth": lambda x, w, t: np.cumsum(w),
    "smoother": lambda x, w, t: np.sin(t / 50.0) + 1e-4 * np.diff(w, prepend=0.0),
    "first bar far away": lambda x, w, t: w + 1e4 * (t == 0),
    "one bad print": lambda x, w, t: w + 1e6 * (t == 300),
    "stale": lambda x, w, t: np.repeat(w[::25], 25),
    "unit moving average": lambda x, w, t: x + 0.1 * np.diff(w, n=2, prepend=[0.0, 0.0]),
}


@pytest.mark.parametrize("lags", [1, 12, "aic"])
@pytest.mark.parametrize("case", HARD)
def test_digits_survive_hard_cases(case: str, lags: int | str) -> None:
    rng = np.random.default_rng(3)
    x, walk = np.cumsum(rng.standard_normal((2, 500)), axis=1)
    y = HARD[case](x, walk, np.arange(500.0))
    row = scan_pairs(np.column_stack([y, x]), lags=lags, tests=()).row(0, named=True)
    statistic, _, used = reference(y, x, lags)
    assert row["lags_1_on_2"] == used
    assert row["statistic_1_on_2"] == pytest.approx(statistic, rel=1e-9, abs=1e-9)


def test_nearly_collinear_legs_keep_the_digits_of_johansen() -> None:
    """The test is the same after a change of basis; in that of the residual statsmodels loses nothing."""
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.standard_normal(500))
    y = x + 0.02 * np.cumsum(rng.standard_normal(500))
    row = scan_pairs(np.column_stack([y, x]), tests=("johansen",)).row(0, named=True)
    expected = coint_johansen(np.column_stack([residual(y, x), x - x.mean()]), 0, 1).trace_stat
    assert_allclose([row["johansen_trace_0"], row["johansen_trace_1"]], expected, rtol=1e-9)


def swap(frame: pl.DataFrame) -> pl.DataFrame:
    """The same pairs with their symbols exchanged."""

    def other(name: str) -> str:
        for one, two in (("1_on_2", "2_on_1"), ("2_on_1", "1_on_2"), ("symbol_1", "symbol_2")):
            if one in name:
                return name.replace(one, two)
        return "symbol_1" if name == "symbol_2" else name

    return frame.rename({name: other(name) for name in frame.columns}).select(frame.columns)


@pytest.mark.parametrize("lags", [1, "aic"])
def test_permuting_the_symbols_permutes_the_result(lags: int | str) -> None:
    panel = market(symbols=9)
    panel[np.random.default_rng(5).random(panel.shape) < 0.05 * (np.arange(9) > 5)] = np.nan
    names = [f"S{place}" for place in range(9)]
    order = np.random.default_rng(1).permutation(9)
    plain = scan_pairs(panel, symbols=names, lags=lags)
    mixed = scan_pairs(panel[:, order], symbols=[names[place] for place in order], lags=lags)
    turned = mixed.filter(pl.col("symbol_1") > pl.col("symbol_2"))
    straight = mixed.filter(pl.col("symbol_1") < pl.col("symbol_2"))
    assert len(turned)
    assert len(straight)
    assert_frame_equal(
        pl.concat([straight, swap(turned)]).sort("symbol_1", "symbol_2"), plain, check_exact=True
    )


def test_other_symbols_tiles_and_threads_change_no_bit() -> None:
    panel = market(symbols=9)
    panel[::7, 4] = np.nan
    plain = scan_pairs(panel, lags="aic")
    assert_frame_equal(scan_pairs(panel, lags="aic", tile_size=5, workers=3), plain, check_exact=True)
    chosen = np.array([[2, 7], [0, 4], [3, 8]])
    picked = scan_pairs(panel, lags="aic", pairs=chosen)
    named = [(str(first), str(second)) for first, second in chosen]
    assert picked.select("symbol_1", "symbol_2").rows() == named
    assert_frame_equal(
        picked, pl.concat([plain.filter(symbol_1=a, symbol_2=b) for a, b in named]), check_exact=True
    )


def test_tiles_resume_where_they_were_left() -> None:
    panel = market(symbols=7)
    seen: list[tuple[int, int]] = []
    tiles = dict(scan_tiles(panel, tile_size=4, progress=lambda *done: seen.append(done)))
    assert list(tiles) == [0, 1, 2, 3, 4, 5]
    assert seen == [(4, 21), (8, 21), (12, 21), (16, 21), (20, 21), (21, 21)]
    rest = dict(scan_tiles(panel, tile_size=4, skip=[0, 1, 4]))
    assert list(rest) == [2, 3, 5]
    for number, frame in rest.items():
        assert_frame_equal(frame, tiles[number], check_exact=True)
    assert_frame_equal(pl.concat(tiles.values()), scan_pairs(panel), check_exact=True)
    assert max(frame.estimated_size() / len(frame) for frame in tiles.values()) < BYTES_PER_PAIR


def test_memory_is_bounded() -> None:
    panel = market(400, 150)
    scan_pairs(panel[:, :3])
    tracemalloc.start()
    done = sum(len(frame) for _, frame in scan_tiles(panel, lags="aic", tile_size=1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done == 11_175
    assert peak < 32 * panel.size + 1000 * BYTES_PER_PAIR


SCALED = ("hedge_ratio", "intercept")


@settings(max_examples=15, deadline=None)
@given(
    shift=st.floats(-20.0, 20.0),
    powers=st.lists(st.integers(-40, 40), min_size=6, max_size=6),
    lags=st.sampled_from([1, "aic"]),
)
def test_units_do_not_matter(shift: float, powers: list[int], lags: int | str) -> None:
    """Another currency adds a constant to log prices; a power of two as their unit changes no bit."""
    panel = market(120)
    plain = scan_pairs(panel, lags=lags)
    free = [name for name in plain.columns if not name.startswith(SCALED)]
    moved = scan_pairs(panel + shift, lags=lags)
    assert_frame_equal(moved.select(free), plain.select(free), rel_tol=1e-8, abs_tol=1e-9)
    scaled = scan_pairs(panel * np.exp2(powers), lags=lags)
    assert_frame_equal(scaled.select(free), plain.select(free), rel_tol=1e-8, abs_tol=1e-9)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_tiny_and_huge_series_are_tested_like_any_other(unit: float) -> None:
    panel = market()
    scaled = panel.copy()
    scaled[:, :2] *= unit
    plain, found = (scan_pairs(prices, lags="aic") for prices in (panel, scaled))
    free = [name for name in plain.columns if not name.startswith(SCALED)]
    assert_frame_equal(found.select(free), plain.select(free), rel_tol=1e-8, abs_tol=1e-9)


def test_pairs_that_cannot_be_tested_have_a_reason_and_no_pvalue() -> None:
    panel = np.column_stack([market(), np.full(300, 4.6), np.zeros(300), np.full(300, np.nan)])
    panel = np.column_stack([panel, panel[:, 0], 2.0 * panel[:, 0] + 1.0, panel[:, 2], np.arange(300.0)])
    panel[5:, 11] = np.nan
    panel[7, 10] = np.inf
    scan = scan_pairs(panel, lags="aic")
    assert scan.schema == SCAN_SCHEMA
    assert len(scan) == 78
    untested = scan.filter(pl.col("reason").is_not_null())
    values = [name for name in SCAN_SCHEMA if name.startswith(("statistic", "pvalue", "lags", "half_life"))]
    assert untested.select(values).null_count().sum_horizontal().item() == len(untested) * len(values)
    assert (
        untested.select("hurst", "johansen_trace_0", "kss_pvalue").null_count().row(0) == (len(untested),) * 3
    )

    def reasons(*symbols: int) -> set[str | None]:
        involved = [pl.col(leg) == str(symbol) for symbol in symbols for leg in ("symbol_1", "symbol_2")]
        return set(scan.filter(pl.any_horizontal(involved))["reason"])

    assert reasons(6, 7) == {"constant_series", "insufficient_data"}
    assert reasons(8) == reasons(11) == {"insufficient_data"}
    alike = scan.filter(pl.concat_list("symbol_1", "symbol_2").is_in([["0", "9"], ["0", "10"], ["9", "10"]]))
    assert set(alike["reason"]) == {"collinear"}
    assert not scan.select(pl.selectors.float().is_nan().any()).row(0).count(True)
    smallest = scan.select(pl.min_horizontal("pvalue_1_on_2", "pvalue_2_on_1").min()).item()
    assert smallest > 0.0


COLUMNS = {
    "constant": lambda walk: np.full(len(walk), 3.7),
    "zero": lambda walk: np.zeros(len(walk)),
    "duplicate": lambda walk: walk,
    "scaled duplicate": lambda walk: 1e-12 * walk,
    "five": lambda walk: np.where(np.arange(len(walk)) < 5, walk, np.nan),
    "absent": lambda walk: np.full(len(walk), np.nan),
    "infinite": lambda walk: np.where(np.arange(len(walk)) == 9, np.inf, walk),
    "tiny": lambda walk: 1e-12 * walk[::-1],
    "huge": lambda walk: 1e12 * walk[::-1],
    "subnormal": lambda walk: 1e-310 * walk[::-1],
    "overflowing": lambda walk: 1e300 * walk[::-1],
    "one jump": lambda walk: (np.arange(len(walk)) > 50) * 1.0,
    "alternating": lambda walk: (np.arange(len(walk)) % 2) * 1.0,
    "line": lambda walk: np.arange(len(walk)) * 0.01,
    "rounding": lambda walk: 4.6 + 1e-16 * walk,
}


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=4),
    bars=st.sampled_from([1, 2, 5, 29, 30, 33, 150]),
    lags=st.sampled_from([0, 1, 5, "aic", "bic"]),
    horizon=st.integers(1, 40),
    gaps=st.sampled_from([0.0, 0.2]),
)
def test_hostile_columns_neither_crash_nor_look_cointegrated(
    names: list[str], bars: int, lags: int | str, horizon: int, gaps: float
) -> None:
    rng = np.random.default_rng(7)
    walk = 4.0 + 0.01 * np.cumsum(rng.standard_normal(bars))
    panel = np.column_stack([walk, *(COLUMNS[name](walk) for name in names)])
    panel[rng.random(panel.shape) < gaps] = np.nan
    scan = scan_pairs(panel, lags=lags, correlation_horizon=horizon, session_index=np.arange(bars) // 40)
    assert len(scan) == panel.shape[1] * (panel.shape[1] - 1) // 2
    numbers = scan.select(pl.selectors.float()).to_numpy().ravel()
    assert np.isfinite(numbers[~np.isnan(numbers)]).all()
    assert not any(
        value is not None and math.isnan(value)
        for row in scan.rows()
        for value in row
        if isinstance(value, float)
    )
    without = {"constant", "zero", "duplicate", "scaled duplicate", "five", "absent", "rounding"}
    kinds = ["walk", *names]
    for row in scan.iter_rows(named=True):
        pair = {kinds[int(row["symbol_1"])], kinds[int(row["symbol_2"])]}
        if pair & (without - {"duplicate", "scaled duplicate"}) or len(pair - {"walk", *without}) == 0:
            assert row["reason"] is not None
            assert row["pvalue_1_on_2"] is row["pvalue_2_on_1"] is None


def test_few_bars() -> None:
    panel = market(MIN_OBSERVATIONS - 1)
    assert set(scan_pairs(panel)["reason"]) == {"insufficient_data"}
    assert set(scan_pairs(market(MIN_OBSERVATIONS), lags="aic")["reason"]) == {None}
    assert set(scan_pairs(market(3 * 9 + 9), lags=9)["reason"]) == {"insufficient_data"}
    assert len(scan_pairs(np.empty((0, 4)))) == 6
    assert len(scan_pairs(np.empty((50, 1)))) == 0
    assert scan_pairs(np.empty((50, 0))).schema == SCAN_SCHEMA


def test_planted_pairs_are_found_and_correlated_walks_are_not() -> None:
    rng = np.random.default_rng(4)
    steps = 0.01 * (rng.standard_normal((1000, 30)) + 3.0 * rng.standard_normal((1000, 1)))
    prices = np.cumsum(steps, axis=0)
    spread = np.zeros((1000, 5))
    for t in range(1, 1000):
        spread[t] = 0.9 * spread[t - 1] + 0.004 * rng.standard_normal(5)
    scan = scan_pairs(np.hstack([prices, prices[:, :5] + spread]), lags=1)
    best = scan.with_columns(p=pl.min_horizontal("pvalue_1_on_2", "pvalue_2_on_1"))
    first, second = pl.col("symbol_1").cast(pl.Int64), pl.col("symbol_2").cast(pl.Int64)
    planted = best.filter(second - first == 30)
    assert (planted["p"] < 1e-6).all()
    assert (planted["hurst"] < 0.35).all()
    assert (planted["johansen_rank"] >= 1).all()
    assert (planted["kss_pvalue"] < 0.01).all()
    assert (planted["half_life_1_on_2"] - math.log(0.5) / math.log(0.9)).abs().max() < 2.5
    walks = best.filter(second < 30)
    assert 0.02 < (walks["p"] < 0.05).mean() < 0.15
    assert 0.01 < (walks["kss_pvalue"] < 0.05).mean() < 0.08


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lags": -1}, "lags -1 is less than 0"),
        ({"lags": "hqic"}, "'hqic' is neither a number nor"),
        ({"lags": 2, "max_lags": 4}, "max_lags 4 goes with"),
        ({"lags": "aic", "max_lags": -2}, "max_lags -2"),
        ({"tests": ("johansen", "kpss")}, "tests name kpss"),
        ({"correlation_horizon": 0}, "correlation_horizon 0"),
        ({"johansen_lags": 0}, "johansen_lags 0"),
        ({"workers": 0}, "workers 0"),
        ({"tile_size": 0}, "tile_size 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        scan_pairs(market(60), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbols": ["A", "B"]}, "2 symbols"),
        ({"symbols": ["A", "A", "B", "C", "D", "E"]}, "5 of them different"),
        ({"session_index": np.zeros(3, int)}, "session_index has 3 entries for 60 bars"),
        ({"pairs": np.array([[0, 6]])}, r"pairs name \[0, 6\]"),
        ({"pairs": np.array([[2, 2]])}, r"pairs name \[2, 2\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        scan_pairs(market(60), **options)


def test_a_panel_has_two_dimensions() -> None:
    with pytest.raises(DataError, match="1 dimensions"):
        scan_pairs(np.zeros(50))
