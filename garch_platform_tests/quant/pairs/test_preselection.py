"""Pre-selection of pairs: the closest, the clustered, and the refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.pairs.preselection import REFUSED_SCHEMA, Preselection, preselect_pairs


def market(count: int = 400, groups: int = 4, members: int = 4, seed: int = 0) -> np.ndarray:
    """Log prices of series that share their group's factor."""
    rng = np.random.default_rng(seed)
    factors = np.repeat(rng.standard_normal((count, groups)), members, axis=1)
    own = rng.standard_normal((count, groups * members))
    return 4.0 + np.cumsum(0.01 * (factors + 0.4 * own), axis=0)


def as_set(selection: Preselection) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in selection.pairs}


def test_distance_is_the_sum_of_squares_of_gatev_and_others() -> None:
    prices = market()
    result = preselect_pairs(prices, method="distance", count=7)
    level = np.exp(prices - prices[0])
    every = [(i, j) for i in range(16) for j in range(i + 1, 16)]
    every.sort(key=lambda pair: np.sum((level[:, pair[0]] - level[:, pair[1]]) ** 2))
    assert [tuple(pair) for pair in result.pairs.tolist()] == every[:7]
    assert dict(result.refused.schema) == REFUSED_SCHEMA
    assert result.refused.is_empty()


def test_distance_compares_common_bars() -> None:
    prices = market(members=2)
    prices[:150, 0] = np.nan
    prices[200:260, 5] = np.nan
    result = preselect_pairs(prices, method="distance", count=28)
    first = [prices[np.isfinite(prices[:, k]), k][0] for k in range(8)]
    level = np.exp(prices - first)
    distances = [np.nanmean((level[:, i] - level[:, j]) ** 2) for i, j in result.pairs]
    assert len(distances) == 28
    assert distances == sorted(distances)


@pytest.mark.parametrize("algorithm", ["optics", "kmeans"])
def test_clusters_are_the_planted_groups(algorithm: str) -> None:
    result = preselect_pairs(
        market(),
        method="cluster",
        algorithm=algorithm,  # type: ignore[arg-type]
        components=4,
        clusters=4,
    )
    planted = {(i, j) for i in range(16) for j in range(i + 1, 16) if i // 4 == j // 4}
    assert as_set(result) == planted


def test_one_series_under_two_names_is_refused_by_every_method() -> None:
    prices = market(groups=2)
    rng = np.random.default_rng(1)
    late = prices[:, 3].copy()
    late[rng.random(400) < 0.3] = np.nan
    constant, sparse = np.full(400, 4.0), np.full(400, np.nan)
    sparse[:60] = prices[:60, 2]
    panel = np.column_stack(
        [prices, prices[:, 0], 2.0 * prices[:, 1] - 1.0, 5.0 - prices[:, 2], late, constant, sparse]
    )
    for method in ("all", "distance", "cluster"):
        result = preselect_pairs(panel, method=method, count=500)  # type: ignore[arg-type]
        reasons = {(i, j): reason for i, j, reason in result.refused.iter_rows()}
        for pair in ((0, 8), (1, 9), (2, 10)):
            assert reasons[pair] in ("collinear_returns", "collinear_prices")
        assert reasons[3, 11] == "collinear_prices"
        assert all(reasons[i, 12] == "constant_series" for i in range(11))
        assert all(reasons[i, 13] == "insufficient_data" for i in range(13))
        assert not as_set(result) & reasons.keys()
        assert len(reasons) == 3 + 1 + 12 + 13
    assert len(preselect_pairs(panel).pairs) == 14 * 13 // 2 - 29


@pytest.mark.parametrize("method", ["all", "distance", "cluster"])
def test_permuted_series_give_permuted_pairs(method: str) -> None:
    prices = market(seed=3)
    prices[np.random.default_rng(2).random(prices.shape) < 0.03] = np.nan
    order = np.random.default_rng(4).permutation(16)
    options = {"method": method, "algorithm": "kmeans", "clusters": 5}
    plain, permuted = (preselect_pairs(panel, **options) for panel in (prices, prices[:, order]))  # type: ignore[arg-type]
    assert as_set(plain) == {tuple(sorted((order[i], order[j]))) for i, j in permuted.pairs}
    again = preselect_pairs(prices, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.pairs, plain.pairs)


@pytest.mark.parametrize("method", ["all", "distance", "cluster"])
def test_the_level_of_prices_does_not_matter(method: str) -> None:
    prices = market(seed=5)
    moved = prices + 16.0 * np.arange(16)
    results = [preselect_pairs(p, method=method, count=10) for p in (prices, moved)]  # type: ignore[arg-type]
    assert as_set(results[0]) == as_set(results[1])


@settings(max_examples=40, deadline=None)
@given(
    prices=arrays(
        np.float64,
        st.tuples(st.integers(0, 12), st.integers(0, 5)),
        elements=st.floats(-1e12, 1e12) | st.sampled_from([np.nan, np.inf, 0.0, 1e-12, 1e12]),
    ),
    method=st.sampled_from(["all", "distance", "cluster"]),
)
def test_any_panel_is_divided_into_pairs_and_refusals(prices: np.ndarray, method: str) -> None:
    result = preselect_pairs(prices, method=method, min_observations=3, count=4)  # type: ignore[arg-type]
    refused = {(i, j) for i, j, _ in result.refused.iter_rows()}
    assert not as_set(result) & refused
    assert result.pairs.shape == (len(result.pairs), 2)
    assert all(i < j for i, j in as_set(result) | refused)


def test_bad_settings_are_named() -> None:
    with pytest.raises(
        ConfigurationError, match="method 'closest' is not known; use one of all, distance, cluster"
    ):
        preselect_pairs(market(), method="closest")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="count is 0; use at least 1"):
        preselect_pairs(market(), method="distance", count=0)
    with pytest.raises(DataError, match="1 dimensions"):
        preselect_pairs(np.zeros(5))
