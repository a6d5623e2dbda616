"""Boundaries and half-lives."""

from __future__ import annotations

import math

import pytest

from garch_platform.quant.volatility.health import (
    boundary,
    variance_half_life,
)


@pytest.mark.parametrize(
    ("shape", "nu", "omega", "expected"),
    [
        ((0.08, 0.0, 0.9), None, 0.02, None),
        ((0.0, 0.0, 0.9), None, 0.1, "alpha=0"),
        ((0.3, 0.0, 0.0), None, 0.7, "beta=0"),
        ((0.1, 0.0, 0.9), None, 0.01, "alpha+beta=1"),
        ((0.0, 0.0, 0.0), None, 1.0, "alpha=0, beta=0"),
        ((0.08, 0.0, 0.9), None, 1e-8, "omega=0"),
        ((0.08, 0.0, 0.9), 500.0, 0.02, "nu=500"),
        ((0.08, 0.0, 0.9), 2.05, 0.02, "nu=2.05"),
        ((0.08, 0.0, 0.9), 6.0, 0.02, None),
        ((0.05, 0.1, 0.9), None, 0.02, "alpha+gamma/2+beta=1"),
        ((0.05, -0.05, 0.9), None, 0.02, "alpha+gamma=0"),
        ((0.05, -0.02, 0.9), None, 0.02, None),
    ],
)
def test_boundaries_are_named(
    shape: tuple[float, float, float], nu: float | None, omega: float, expected: str | None
) -> None:
    assert boundary(*shape, nu=nu, omega=omega) == expected


def test_half_life_of_a_variance_shock() -> None:
    assert variance_half_life(0.5) == pytest.approx(1.0)
    assert variance_half_life(0.98) == pytest.approx(34.309618, rel=1e-6)
    assert all(math.isnan(variance_half_life(value)) for value in (1.0, 1.2, 0.0))
