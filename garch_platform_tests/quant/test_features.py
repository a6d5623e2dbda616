"""Features: reference values, bit-equal appends, and what absent closes do."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.features import FEATURE_SCHEMA, FeatureWindows, compute_features

WINDOWS = FeatureWindows(rolling_window=5, min_periods=4, ma_short=2, ma_long=6, rsi_window=3)
MONDAY = datetime(2024, 1, 8, 14, 30, tzinfo=UTC)


def closes_frame(prices: dict[str, list[float | None]], bars_per_session: int = 7) -> pl.DataFrame:
    """Bars one minute apart, ``bars_per_session`` to a calendar day."""
    frames = []
    for symbol, values in prices.items():
        days = [index // bars_per_session for index in range(len(values))]
        times = [
            MONDAY + timedelta(days=day, minutes=index % bars_per_session) for index, day in enumerate(days)
        ]
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * len(values),
                    "timestamp": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
                    "session_date": [date(2024, 1, 8) + timedelta(days=day) for day in days],
                    "close": pl.Series(values, dtype=pl.Float64),
                }
            )
        )
    return pl.concat(frames)


def random_prices(count: int, seed: int) -> list[float]:
    steps = np.random.default_rng(seed).standard_normal(count)
    return list(50.0 * np.exp(0.01 * np.cumsum(steps)))


def features(frame: pl.DataFrame, *, intraday: bool = False, **options: object) -> pl.DataFrame:
    return compute_features(frame, windows=WINDOWS, bars_per_year=252.0, intraday=intraday, **options)  # type: ignore[arg-type]


def test_columns_types_and_order() -> None:
    frame = closes_frame({"B": random_prices(9, 1), "A": random_prices(9, 2)})
    result = features(frame.sample(fraction=1.0, shuffle=True, seed=3))
    assert dict(result.schema) == FEATURE_SCHEMA
    assert result["symbol"].to_list() == ["A"] * 9 + ["B"] * 9
    assert result["timestamp"].head(9).is_sorted()


def test_daily_features_match_pandas() -> None:
    price = pd.Series(random_prices(60, 5))
    returns = np.log(price).diff()
    change = price.diff()
    gains, losses = change.clip(lower=0).rolling(3).sum(), (-change.clip(upper=0)).rolling(3).sum()
    expected = {
        "log_return": returns,
        "z_score": (returns - returns.expanding(4).mean().shift()) / returns.expanding(4).std().shift(),
        "rolling_mean": returns.rolling(5).mean(),
        "rolling_std": returns.rolling(5).std(),
        "volatility_annualized": returns.rolling(5).std() * math.sqrt(252.0),
        "ma_short": price.rolling(2).mean(),
        "ma_long": price.rolling(6).mean(),
        "rsi": 100.0 - 100.0 / (1.0 + gains / losses),
        "return_sum": returns.fillna(0.0).cumsum(),
        "return_sum_squares": (returns**2).fillna(0.0).cumsum(),
        "return_count": returns.notna().cumsum(),
    }
    result = features(closes_frame({"A": price.to_list()}))
    for name, values in expected.items():
        actual = result[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        np.testing.assert_allclose(actual, values.to_numpy(), rtol=1e-9, atol=1e-13, err_msg=name)


def test_rsi_by_hand() -> None:
    result = features(closes_frame({"A": [10.0, 11.0, 12.0, 11.0, 11.0, 11.0, 11.0]}))
    np.testing.assert_allclose(result["rsi"][3], 100.0 * 2.0 / 3.0, rtol=1e-12)
    assert result["rsi"][4] == pytest.approx(50.0)
    assert result["rsi"][6] is None, "no price changed: the ratio of gains to losses is not defined"


def test_z_score_uses_only_earlier_returns_and_can_pass_the_bound_of_the_inclusive_one() -> None:
    quiet = [100.0, 100.1, 100.0, 100.1, 100.0, 100.1, 100.0]
    result = features(closes_frame({"A": [*quiet, 120.0]}))
    n = 7
    assert result["z_score"][-1] > (n - 1) / math.sqrt(n)
    earlier = np.diff(np.log(quiet))
    expected = (math.log(1.2) - earlier.mean()) / earlier.std(ddof=1)
    np.testing.assert_allclose(result["z_score"][-1], expected, rtol=1e-9)


@pytest.mark.parametrize("growth", [1.0, 1.0123])
def test_constant_returns_have_no_z_score(growth: float) -> None:
    result = features(closes_frame({"A": [100.0 * growth**k for k in range(40)]}))
    assert result["z_score"].null_count() == 40
    np.testing.assert_allclose(result["rolling_std"].drop_nulls(), 0.0, atol=1e-15)


def test_intraday_sessions_begin_without_a_return_but_keep_what_is_known() -> None:
    result = features(closes_frame({"A": random_prices(28, 4)}, bars_per_session=7), intraday=True)
    opens = result.gather([7, 14, 21])
    assert opens["log_return"].null_count() == 3
    assert opens["z_score"].null_count() == 3
    before = result.gather([6, 13, 20])
    assert opens["rolling_std"].to_list() == before["rolling_std"].to_list()
    assert result["return_count"].to_list()[-1] == 24


def test_windows_longer_than_a_session_bridge_the_overnight_gaps() -> None:
    windows = FeatureWindows(rolling_window=20, min_periods=4, ma_short=2, ma_long=6, rsi_window=3)
    frame = closes_frame({"A": random_prices(70, 4)}, bars_per_session=7)
    result = compute_features(frame, windows=windows, bars_per_year=252.0, intraday=True)
    known = result["rolling_std"].is_not_null()
    assert known.arg_max() == 23, "the 20th return: four sessions begin without one"
    assert known[23:].all()


def test_annualisation_factor_of_the_bar() -> None:
    frame = closes_frame({"A": random_prices(20, 4)})
    minute = compute_features(frame, windows=WINDOWS, bars_per_year=98_280.0, intraday=False)
    ratio = (minute["volatility_annualized"] / minute["rolling_std"]).drop_nulls()
    np.testing.assert_allclose(ratio, math.sqrt(98_280.0), rtol=1e-12)


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 0.0, -5.0])
def test_an_unusable_close_is_null_and_skipped(bad: float | None) -> None:
    prices = random_prices(30, 9)
    result = features(closes_frame({"A": [*prices[:10], bad, *prices[10:]]}))
    without = features(closes_frame({"A": prices}))
    gap = result.row(10, named=True)
    state = ("symbol", "timestamp", "session_date", "return_count", "return_sum", "return_sum_squares")
    assert all(gap[name] is None for name in FEATURE_SCHEMA if name not in state)
    assert gap["return_sum"] == without["return_sum"][9]
    values = [name for name in FEATURE_SCHEMA if name not in ("timestamp", "session_date")]
    rest = pl.concat([result.head(10), result.tail(20)]).select(values)
    assert rest.equals(without.select(values))


def test_a_window_does_not_reach_back_beyond_the_tail() -> None:
    prices: list[float | None] = [*random_prices(10, 1), *([None] * WINDOWS.tail), *random_prices(3, 2)]
    result = features(closes_frame({"A": prices}))
    assert result["log_return"][-3] is None
    assert result["rolling_std"][-1] is None
    assert result["ma_short"][-1] is not None


def test_symbols_do_not_touch_one_another() -> None:
    a, b = random_prices(25, 1), random_prices(3, 2)
    both = features(closes_frame({"A": a, "B": b}))
    alone = pl.concat([features(closes_frame({"A": a})), features(closes_frame({"B": b}))])
    assert both.equals(alone)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_appends_equal_one_computation_bit_for_bit(data: st.DataObject) -> None:
    price = st.one_of(st.none(), st.sampled_from([0.0, -1.0]), st.floats(1e-3, 1e5), st.floats(90.0, 110.0))
    lengths = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))
    prices = {f"S{k}": data.draw(st.lists(price, min_size=n, max_size=n)) for k, n in enumerate(lengths)}
    intraday = data.draw(st.booleans())
    frame = closes_frame(prices, bars_per_session=data.draw(st.integers(1, 9)))
    whole = features(frame, intraday=intraday)
    times = frame["timestamp"].unique().sort().to_list()
    cuts = sorted(data.draw(st.sets(st.sampled_from(times), max_size=6)))
    parts: list[pl.DataFrame] = []
    for start, stop in zip([None, *cuts], [*cuts, None], strict=True):
        piece = frame
        if start is not None:
            piece = piece.filter(pl.col("timestamp") >= start)
        if stop is not None:
            piece = piece.filter(pl.col("timestamp") < stop)
        known = pl.concat(parts).sort("symbol", "timestamp") if parts else None
        tail = None if known is None else known.group_by("symbol").tail(WINDOWS.tail)
        parts.append(features(piece, intraday=intraday, previous=tail))
    assert pl.concat(parts).sort("symbol", "timestamp").equals(whole)


LONG = FeatureWindows(rolling_window=300, min_periods=50, ma_short=7, ma_long=129, rsi_window=64)


def gappy_prices(count: int, seed: int) -> list[float | None]:
    """A random walk with absent closes and a stretch in which nothing moves."""
    rng = np.random.default_rng(seed)
    prices = np.round(50.0 * np.exp(0.001 * np.cumsum(rng.standard_normal(count))), 2)
    prices[count // 3 : count // 3 + 400] = prices[count // 3]
    return [
        None if absent else price
        for price, absent in zip(prices.tolist(), rng.random(count) < 0.03, strict=True)
    ]


@pytest.mark.parametrize("intraday", [False, True])
@pytest.mark.parametrize("windows", [WINDOWS, LONG], ids=["short", "long"])
def test_series_of_several_chunks_append_bit_for_bit(windows: FeatureWindows, intraday: bool) -> None:
    frame = closes_frame({name: gappy_prices(4000, k) for k, name in enumerate("ABC")}, bars_per_session=39)
    options = {"windows": windows, "bars_per_year": 252.0, "intraday": intraday}
    whole = compute_features(frame, **options)  # type: ignore[arg-type]
    assert compute_features(frame, workers=3, **options).equals(whole)  # type: ignore[arg-type]
    for cut in frame["timestamp"].unique().sort().to_list()[100::977]:
        earlier = (
            whole.filter(pl.col("timestamp") < cut).group_by("symbol", maintain_order=True).tail(windows.tail)
        )
        later = frame.filter(pl.col("timestamp") >= cut)
        appended = compute_features(later, previous=earlier, **options)  # type: ignore[arg-type]
        assert appended.equals(whole.filter(pl.col("timestamp") >= cut))


def test_windows_equal_direct_sums() -> None:
    prices = [price for price in gappy_prices(3000, 4) if price is not None]
    result = compute_features(
        closes_frame({"A": prices}),  # type: ignore[dict-item]
        windows=LONG,
        bars_per_year=252.0,
        intraday=False,
    )
    view = np.lib.stride_tricks.sliding_window_view
    returns, change = np.diff(np.log(prices)), np.diff(prices)
    gains, losses = (view(np.maximum(sign * change, 0.0), 64).sum(axis=1) for sign in (1.0, -1.0))
    moves = gains + losses
    expected = {
        "rolling_mean": view(returns, 300).mean(axis=1),
        "rolling_std": view(returns, 300).std(axis=1, ddof=1),
        "ma_short": view(prices, 7).mean(axis=1),
        "ma_long": view(prices, 129).mean(axis=1),
        "rsi": np.divide(100.0 * gains, moves, out=np.full(len(moves), np.nan), where=moves > 1e-9),
    }
    for name, values in expected.items():
        actual = result[name].fill_null(np.nan).to_numpy()
        assert np.isnan(actual[: len(prices) - len(values)]).all()
        np.testing.assert_allclose(actual[-len(values) :], values, rtol=1e-11, atol=1e-16, err_msg=name)
    still = view(returns, 300).max(axis=1) == view(returns, 300).min(axis=1)
    assert still.any()
    assert (result["rolling_std"].to_numpy()[-len(still) :][still] == 0.0).all()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_currency_unit_does_not_matter(scale: float) -> None:
    prices = random_prices(60, 8)
    plain = features(closes_frame({"A": prices}))
    scaled = features(closes_frame({"A": [scale * price for price in prices]}))
    for name in ("log_return", "z_score", "rolling_std", "rsi"):
        np.testing.assert_allclose(
            scaled[name].cast(pl.Float64), plain[name].cast(pl.Float64), rtol=1e-8, atol=1e-13, err_msg=name
        )


def test_rows_in_any_order_give_the_same_frame() -> None:
    frame = closes_frame({name: gappy_prices(800, k) for k, name in enumerate(("b", "a", "é", "Z", "aa"))})
    result = features(frame, intraday=True)
    assert result["symbol"].unique(maintain_order=True).to_list() == ["Z", "a", "aa", "b", "é"]
    for order in (
        frame.sort("timestamp", "symbol"),
        frame.sort("timestamp", descending=True),
        frame.sample(fraction=1.0, shuffle=True, seed=1),
    ):
        assert features(order, intraday=True).equals(result)
    earlier = result.filter(pl.col("timestamp") < MONDAY + timedelta(days=50)).sample(
        fraction=1.0, shuffle=True, seed=2
    )
    later = frame.filter(pl.col("timestamp") >= MONDAY + timedelta(days=50))
    appended = features(later, intraday=True, previous=earlier)
    assert appended.equals(result.filter(pl.col("timestamp") >= MONDAY + timedelta(days=50)))


def test_a_row_without_a_key_is_refused() -> None:
    frame = closes_frame({"A": random_prices(5, 1)})
    for name in ("symbol", "timestamp"):
        nameless = frame.with_columns(pl.when(pl.int_range(pl.len()) != 2).then(pl.col(name)).alias(name))
        with pytest.raises(DataError, match="1 rows have no symbol or no timestamp"):
            features(nameless)


def test_more_history_than_the_tail_changes_nothing() -> None:
    frame = closes_frame({"A": random_prices(80, 6), "B": random_prices(80, 7)})
    cut = frame["timestamp"].unique().sort()[50]
    earlier = features(frame.filter(pl.col("timestamp") < cut))
    later = frame.filter(pl.col("timestamp") >= cut)
    tail = earlier.group_by("symbol").tail(WINDOWS.tail)
    assert features(later, previous=earlier).equals(features(later, previous=tail))


def test_previous_rows_may_lack_a_symbol_or_hold_others() -> None:
    frame = closes_frame({"NEW": random_prices(20, 6)})
    other = features(closes_frame({"OLD": random_prices(20, 7)}))
    assert features(frame, previous=other).equals(features(frame))


def test_an_empty_day_gives_an_empty_frame() -> None:
    result = features(closes_frame({"A": []}), previous=features(closes_frame({"A": random_prices(20, 1)})))
    assert result.is_empty()
    assert dict(result.schema) == FEATURE_SCHEMA


def test_bad_frames_are_refused_by_name() -> None:
    frame = closes_frame({"A": random_prices(5, 1)})
    with pytest.raises(DataError, match=r"A has more than one close at 2024-01-08 14:30:00"):
        features(pl.concat([frame, frame.head(1)]))
    with pytest.raises(DataError, match="without a time zone"):
        features(frame.with_columns(pl.col("timestamp").dt.replace_time_zone(None)))
    with pytest.raises(DataError, match="no column close"):
        features(frame.drop("close"))
    with pytest.raises(DataError, match="previous features of A reach"):
        features(frame, previous=features(frame))


def test_other_time_zones_are_converted() -> None:
    frame = closes_frame({"A": random_prices(12, 1)})
    local = frame.with_columns(pl.col("timestamp").dt.convert_time_zone("America/New_York"))
    assert features(local).equals(features(frame))


@pytest.mark.parametrize(
    ("name", "value"), [("rolling_window", 1), ("min_periods", 1), ("ma_short", 0), ("rsi_window", 0)]
)
def test_windows_are_validated(name: str, value: int) -> None:
    lengths = {"rolling_window": 5, "min_periods": 5, "ma_short": 5, "ma_long": 5, "rsi_window": 5}
    with pytest.raises(ConfigurationError, match=f"features.{name} is {value}"):
        FeatureWindows(**(lengths | {name: value}))
