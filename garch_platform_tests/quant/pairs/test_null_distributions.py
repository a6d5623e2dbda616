"""p-values of the pair statistics against statsmodels' and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.tsa.adfvalues import mackinnonp
from statsmodels.tsa.vector_ar.vecm import coint_johansen

from garch_platform.quant.pairs.null_distributions import (
    JOHANSEN_TRACE_5PCT,
    SMALLEST_PVALUE,
    cointegration_pvalue,
    dickey_fuller_pvalue,
    smooth_transition_pvalue,
)

SURFACES = {"c": (cointegration_pvalue, 2), "n": (dickey_fuller_pvalue, 1)}


@pytest.mark.parametrize("regression", SURFACES)
def test_response_surfaces_equal_statsmodels(regression: str) -> None:
    function, count = SURFACES[regression]
    grid = np.linspace(-25.0, 6.0, 6201)
    expected = np.array([mackinnonp(value, regression, count) for value in grid])
    inside = expected > 0.0
    assert_allclose(function(grid)[inside], expected[inside], rtol=1e-12)
    assert_array_equal(function(grid[~inside]), SMALLEST_PVALUE)
    assert (np.diff(function(grid)[inside]) >= 0.0).mean() > 0.999
    assert expected[inside].min() > SMALLEST_PVALUE


@pytest.mark.parametrize("function", [cointegration_pvalue, dickey_fuller_pvalue, smooth_transition_pvalue])
def test_the_ends(function: object) -> None:
    values = function(np.array([[np.nan, -np.inf], [np.inf, -3.0]]))
    assert np.isnan(values[0, 0])
    assert 0.0 < values[0, 1] < 1e-3
    assert 0.99 < values[1, 0] <= 1.0
    assert function(np.array(-3.0)).shape == ()


def test_smooth_transition_quantiles_are_met_and_rise() -> None:
    """The table's own nodes; 5 % at -3.473."""
    assert smooth_transition_pvalue(np.array([-3.473, -2.31])) == pytest.approx([0.05, 0.5])
    assert (np.diff(smooth_transition_pvalue(np.linspace(-6.0, 1.0, 500))) >= 0.0).all()


def test_johansen_critical_values_are_statsmodels() -> None:
    panel = np.cumsum(np.random.default_rng(0).standard_normal((60, 2)), axis=0)
    assert tuple(coint_johansen(panel, 0, 1).trace_stat_crit_vals[:, 1]) == JOHANSEN_TRACE_5PCT
