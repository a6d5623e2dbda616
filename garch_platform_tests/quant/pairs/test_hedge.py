"""Hedge ratio of a pair."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.regression.linear_model import OLS
from statsmodels.tools import add_constant
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.pairs.hedge import hedge_ratio_kalman, hedge_ratio_ols, hedge_ratio_tls
from garch_platform.quant.pairs.spread import spread

CONSTANT = (hedge_ratio_ols, hedge_ratio_tls)


def pair(
    count: int = 600, seed: int = 0, ratio: float = 1.7, noise: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = 4.0 + np.cumsum(0.01 * rng.standard_normal(count))
    return ratio * x - 0.3 + noise * rng.standard_normal(count), x


def test_matches_least_squares() -> None:
    y, x = pair()
    result = hedge_ratio_ols(y, x)
    assert (result.hedge_ratio, result.intercept) == result
    np.testing.assert_allclose(result, OLS(y, add_constant(x)).fit().params[::-1], rtol=1e-9)


@pytest.mark.parametrize("ratio", [0.4, 1.7, -0.8])
def test_matches_orthogonal_distance_regression(ratio: float) -> None:
    y, x = pair(seed=2, ratio=ratio, noise=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the module leaves scipy with 1.19
        odr = pytest.importorskip("scipy.odr")
    model = odr.ODR(odr.Data(x, y), odr.unilinear, beta0=[ratio, 0.0], sstol=1e-15, partol=1e-15, maxit=500)
    np.testing.assert_allclose(hedge_ratio_tls(y, x), model.run().beta, rtol=1e-6)
    axis = np.linalg.svd(np.column_stack([x - x.mean(), y - y.mean()]), full_matrices=False)[2][0]
    np.testing.assert_allclose(hedge_ratio_tls(y, x).hedge_ratio, axis[1] / axis[0], rtol=1e-10)


def test_swapping_the_legs_inverts_the_orthogonal_ratio_but_not_that_of_least_squares() -> None:
    y, x = pair(noise=0.2)
    assert hedge_ratio_tls(y, x).hedge_ratio == pytest.approx(
        1.0 / hedge_ratio_tls(x, y).hedge_ratio, rel=1e-12
    )
    assert hedge_ratio_ols(y, x).hedge_ratio < 0.95 / hedge_ratio_ols(x, y).hedge_ratio


def test_errors_in_both_legs_bias_least_squares_only() -> None:
    rng = np.random.default_rng(3)
    truth = np.cumsum(rng.standard_normal(20_000)) * 0.001
    x, y = (scale * truth + 0.05 * rng.standard_normal(20_000) for scale in (1.0, 1.5))
    assert hedge_ratio_tls(y, x).hedge_ratio == pytest.approx(1.5, rel=0.03)
    assert hedge_ratio_ols(y, x).hedge_ratio < 1.4


@pytest.mark.parametrize("estimate", CONSTANT)
def test_an_exact_line_is_recovered_and_absent_bars_are_skipped(estimate) -> None:
    x = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    y = np.array([5.0, 7.0, 9.0, np.nan, 13.0])
    np.testing.assert_allclose(estimate(y, x), (2.0, 3.0), rtol=1e-13)


@pytest.mark.parametrize("estimate", CONSTANT)
def test_a_constant_or_absent_leg_has_no_ratio(estimate) -> None:
    assert all(math.isnan(value) for value in estimate(np.arange(5.0), np.ones(5)))
    assert all(math.isnan(value) for value in estimate(np.full(5, np.nan), np.arange(5.0)))
    with pytest.raises(DataError, match=r"shapes \(4,\) and \(5,\)"):
        estimate(np.arange(4.0), np.arange(5.0))


def test_legs_without_a_common_direction_have_no_orthogonal_line() -> None:
    x, y = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
    assert math.isnan(hedge_ratio_tls(y, x).hedge_ratio)
    assert hedge_ratio_tls(0.5 * y, x).hedge_ratio == 0.0


def test_without_state_noise_the_filter_is_recursive_least_squares() -> None:
    y, x = pair(300)
    y[150] = np.nan
    result = hedge_ratio_kalman(y, x, delta=0.0, warm_up=50)
    assert np.isnan(result.hedge_ratio[:50]).all()
    for t in (50, 51, 120, 151, 299):
        np.testing.assert_allclose(
            (result.hedge_ratio[t], result.intercept[t]), hedge_ratio_ols(y[:t], x[:t]), rtol=1e-8
        )


def test_the_filter_is_that_of_statsmodels() -> None:
    y, x = pair(400, seed=5)
    warm_up, delta = 60, 1e-3
    centre = x[:warm_up].mean()
    start = OLS(y[:warm_up], add_constant(x[:warm_up] - centre)).fit()
    drift = delta / (1.0 - delta) * start.mse_resid
    reference = KalmanFilter(k_endog=1, k_states=2, k_posdef=2)
    reference.bind(y[warm_up:])
    reference["design"] = np.stack([x[warm_up:] - centre, np.ones(400 - warm_up)])[np.newaxis]
    reference["transition"] = reference["selection"] = np.eye(2)
    reference["state_cov"] = np.diag([drift / x[:warm_up].var(), drift])
    reference["obs_cov"] = [[start.mse_resid]]
    first = start.cov_params()[::-1, ::-1] + reference["state_cov"]
    reference.initialize_known(start.params[::-1], first)
    expected = reference.filter()
    ours = hedge_ratio_kalman(y, x, delta=delta, warm_up=warm_up)
    np.testing.assert_allclose(ours.hedge_ratio[warm_up:], expected.predicted_state[0, :-1], rtol=1e-9)
    np.testing.assert_allclose(
        ours.innovation_std[warm_up:], np.sqrt(expected.forecasts_error_cov[0, 0]), rtol=1e-9
    )
    levels = spread(y, x, hedge_ratio=ours.hedge_ratio, intercept=ours.intercept)
    np.testing.assert_allclose(levels[warm_up:], expected.forecasts_error[0], rtol=1e-8, atol=1e-11)


def test_a_moving_ratio_is_followed() -> None:
    rng = np.random.default_rng(7)
    x = 4.0 + np.cumsum(0.01 * rng.standard_normal(3000))
    ratio = np.linspace(0.8, 1.6, 3000)
    y = ratio * (x - 4.0) + 0.01 * rng.standard_normal(3000)
    followed = hedge_ratio_kalman(y, x, delta=1e-3)
    fixed = hedge_ratio_ols(y, x)
    error = np.nanmean(np.abs(followed.hedge_ratio - ratio)[500:])
    assert error < 0.5 * np.mean(np.abs(fixed.hedge_ratio - ratio))
    moving = spread(y, x, hedge_ratio=followed.hedge_ratio, intercept=followed.intercept)
    assert np.nanstd(moving[500:]) < 0.5 * np.std(
        spread(y, x, hedge_ratio=fixed[0], intercept=fixed[1])[500:]
    )
    standard = (moving / followed.innovation_std)[500:]
    assert np.std(standard) == pytest.approx(1.0, abs=0.2)


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 299), seed=st.integers(0, 1000))
def test_scrambling_the_future_changes_no_bit_of_the_past(cut: int, seed: int) -> None:
    y, x = pair(300)
    rng = np.random.default_rng(seed)
    scrambled = y.copy(), x.copy()
    for leg in scrambled:
        leg[cut:] = rng.choice([np.nan, 0.0, 1e6, -7.0], 300 - cut)
    before, after = (hedge_ratio_kalman(*legs, warm_up=40) for legs in ((y, x), scrambled))
    for name in ("hedge_ratio", "intercept"):
        np.testing.assert_array_equal(getattr(before, name)[: cut + 1], getattr(after, name)[: cut + 1])
    np.testing.assert_array_equal(before.innovation_std[:cut], after.innovation_std[:cut])


def test_units_change_units_only() -> None:
    y, x = pair(400)
    plain, scaled = hedge_ratio_kalman(y, x), hedge_ratio_kalman(8.0 * y, 0.25 * x)
    np.testing.assert_allclose(scaled.hedge_ratio, 32.0 * plain.hedge_ratio, rtol=1e-9)
    np.testing.assert_allclose(scaled.innovation_std, 8.0 * plain.innovation_std, rtol=1e-9)


def test_absent_bars_leave_the_state_unobserved_and_less_certain() -> None:
    y, x = pair(400)
    y[200:230] = np.nan
    result = hedge_ratio_kalman(y, x)
    assert np.isfinite(result.hedge_ratio[100:]).all()
    assert np.isnan(result.innovation_std[200:230]).all()
    assert len(set(result.hedge_ratio[200:231])) == 1
    assert result.innovation_std[230] > result.innovation_std[199]


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (2, 40), elements=st.floats(-1e12, 1e12) | st.just(math.nan) | st.just(0.0)))
def test_any_legs_get_a_result(legs: np.ndarray) -> None:
    for estimate in CONSTANT:
        estimate(*legs)
    result = hedge_ratio_kalman(*legs, warm_up=10)
    assert not np.isinf(result.hedge_ratio).any()


def test_what_cannot_be_filtered_is_absent_and_bad_settings_are_named() -> None:
    y, x = pair(300)
    for legs in ((y[:50], x[:50]), (y, np.ones(300)), (1.7 * x + 0.1, x), (np.full(300, np.nan), x)):
        assert np.isnan(hedge_ratio_kalman(*legs).hedge_ratio).all()
    with pytest.raises(ConfigurationError, match="delta is 1; choose one in"):
        hedge_ratio_kalman(y, x, delta=1.0)
    with pytest.raises(ConfigurationError, match="warm_up is 5; use at least 10"):
        hedge_ratio_kalman(y, x, warm_up=5)
