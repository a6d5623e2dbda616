"""Correlation of returns over a horizon: which bars a return spans, and pairwise gaps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.pairs.correlation import correlation_matrix
from garch_platform.quant.pairs.scan import scan_pairs


def prices(bars: int = 200, symbols: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((bars, symbols)) + rng.standard_normal((bars, 1))
    return 4.0 + 0.01 * np.cumsum(steps, axis=0)


def by_hand(y: np.ndarray, x: np.ndarray, sessions: np.ndarray, horizon: int) -> float:
    """Every horizon-th common bar of each session; moves from one to the next."""
    common = np.isfinite(y) & np.isfinite(x)
    moves = [
        np.diff(np.column_stack([y, x])[common & (sessions == session)][::horizon], axis=0)
        for session in np.unique(sessions)
    ]
    return float(np.corrcoef(np.concatenate(moves).T)[0, 1])


@pytest.mark.parametrize("horizon", [1, 4, 7])
@pytest.mark.parametrize("gaps", [0.0, 0.15])
@pytest.mark.parametrize("bars_per_session", [200, 26])
def test_definition(horizon: int, gaps: float, bars_per_session: int) -> None:
    panel = prices()
    panel[np.random.default_rng(2).random(panel.shape) < gaps] = np.nan
    sessions = np.arange(200) // bars_per_session
    index = None if bars_per_session == 200 else sessions
    matrix = correlation_matrix(panel, session_index=index, horizon=horizon)
    expected = [[by_hand(y, x, sessions, horizon) for x in panel.T] for y in panel.T]
    assert_allclose(matrix, expected, rtol=1e-10, atol=1e-12)
    scan = scan_pairs(panel, session_index=index, correlation_horizon=horizon, tests=())
    assert_array_equal(scan["return_correlation"].to_numpy(), matrix[np.triu_indices(5, 1)])


def test_horizon_zero_is_the_correlation_of_log_prices() -> None:
    panel = prices()
    assert_allclose(correlation_matrix(panel, horizon=0), np.corrcoef(panel.T), rtol=1e-10)
    panel[::9, 2] = np.nan
    scan = scan_pairs(panel, tests=())
    found = correlation_matrix(panel, horizon=0)[np.triu_indices(5, 1)]
    assert_allclose(found, scan["price_correlation"].to_numpy(), rtol=1e-10)


def test_a_path_with_gaps_and_one_without_agree() -> None:
    """A bar that neither leg has makes them incomplete, and changes nothing."""
    panel = prices()
    gappy = np.insert(panel, 100, np.nan, axis=0)
    assert_allclose(correlation_matrix(gappy), correlation_matrix(panel), rtol=1e-10)


def test_a_longer_horizon_sees_through_prices_that_lag() -> None:
    """A follower that moves a bar later correlates with its leader over hours, not over minutes."""
    leader = np.cumsum(np.random.default_rng(1).standard_normal(6000))
    panel = np.column_stack([leader[1:], leader[:-1]])
    assert abs(correlation_matrix(panel)[0, 1]) < 0.05
    assert correlation_matrix(panel, horizon=30)[0, 1] > 0.9


def test_the_matrix_is_symmetric_permutes_and_ignores_threads() -> None:
    panel = prices(symbols=8)
    panel[::5, 3] = np.nan
    matrix = correlation_matrix(panel)
    order = np.random.default_rng(0).permutation(8)
    assert_array_equal(matrix, matrix.T)
    assert_array_equal(correlation_matrix(panel[:, order]), matrix[np.ix_(order, order)])
    assert_array_equal(correlation_matrix(panel, workers=3), matrix)


def test_what_does_not_move_has_no_correlation() -> None:
    panel = np.column_stack([prices(60, 2), np.full(60, 4.6), np.full(60, np.nan), 1e12 + np.zeros(60)])
    panel[3:, 3] = np.nan
    matrix = correlation_matrix(panel)
    assert np.isnan(matrix[2:]).all()
    assert np.isfinite(matrix[:2, :2]).all()
    assert np.isnan(correlation_matrix(panel, horizon=60)).all()
    assert correlation_matrix(np.empty((10, 0))).shape == (0, 0)
    assert np.isnan(correlation_matrix(np.empty((0, 2)))).all()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="horizon -1"):
        correlation_matrix(prices(), horizon=-1)
    with pytest.raises(ConfigurationError, match="workers 0"):
        correlation_matrix(prices(), workers=0)
    with pytest.raises(DataError, match="session_index has 3 entries for 200 bars"):
        correlation_matrix(prices(), session_index=np.zeros(3, int))
