"""Estimates of a panel's volatility models, whichever estimator they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimates", "VariancePaths"]

Floats = NDArray[np.float64]


class VariancePaths(Protocol):
    """Conditional variances and forecasts of the fitted series, computed when they are asked for."""

    def variances(self, row: int) -> Floats | None:
        """(count,) conditional variances of a series' present returns; None where it has no fit."""

    def forecast(self, row: int, horizon: int) -> Floats | None:
        """(horizon,) expected variances of the next bars; None where the series has no fit."""


@dataclass(frozen=True)
class Estimates:
    """Results by series, in the units of the returns; rows of series without a fit hold NaN.

    Attributes:
        names: of the P parameters.
        params, robust_errors, hessian_errors: (N, P).
        log_likelihood, persistence, gradient_norm: (N,), see `HEALTH_SCHEMA`.
        last_variance, forecast_variance: (N,).
        ljung_box_pvalue, arch_lm_pvalue: (N,) of the standardised residuals.
        converged: (N,).
        iterations: (N,).
        start: (N,) name of the start that won.
        boundary: (N,) edges that the estimate lies on, or None.
        failure: (N,) why a series that was tried has no fit, or None.
        paths: conditional variances and forecasts.
    """

    names: tuple[str, ...]
    params: Floats
    robust_errors: Floats
    hessian_errors: Floats
    log_likelihood: Floats
    persistence: Floats
    gradient_norm: Floats
    last_variance: Floats
    forecast_variance: Floats
    ljung_box_pvalue: Floats
    arch_lm_pvalue: Floats
    converged: NDArray[np.bool_]
    iterations: NDArray[np.int64]
    start: Sequence[str | None]
    boundary: Sequence[str | None]
    failure: Sequence[str | None]
    paths: VariancePaths
