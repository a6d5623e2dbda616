"""Maximum likelihood of GARCH(1,1) and GJR-GARCH(1,1) over a whole panel, by compiled kernels.

Every series is brought to mean 0 and variance 1. A coarse grid on the likelihood alone gives the first
start; from there Newton's method on exact derivatives. Where the grid sees little more than a constant
variance the likelihood is flat and has several tops: there the search starts from further points too, and
the best top wins. Standard errors come from the same derivatives: the inverse Hessian H, and the robust
ones H^-1 S H^-1 of Bollerslev and Wooldridge [1]_ (the row "QMLE" of McCullough and Renfro [2]_).

References
----------
.. [1] Bollerslev, T. and Wooldridge, J. M. (1992), "Quasi-maximum likelihood estimation and inference
   in dynamic models with time varying covariances", Econometric Reviews 11, 143-172.
.. [2] McCullough, B. D. and Renfro, C. G. (1999), "Benchmarks and software standards: a case study of
   GARCH procedures", Journal of Economic and Social Measurement 25, 59-71.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant.compiled import in_threads
from garch_platform.quant.volatility.estimates import Estimates
from garch_platform.quant.volatility.forecast import garch_variance
from garch_platform.quant.volatility.health import (
    BOUNDARY_TOLERANCE,
    RESIDUAL_ARCH_LAGS,
    RESIDUAL_LJUNG_BOX_LAGS,
    boundary,
)
from garch_platform.quant.volatility.specification import GRID, NU_BOUNDS, SLOTS, START_NAMES, Specification

__all__ = ["CompiledPaths", "NormalisedPanel", "estimate", "normalised_panel"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FLAT_RATIO: Final = 30.0
"""A grid whose best point has a likelihood ratio against constant variance below this is flat."""
TOLERANCE: Final = 1e-9
"""Predicted gain of the log-likelihood below which a search ends after its next step."""
MOST_EVALUATIONS: Final = 200
SCALE_POWERS: Final = np.array([1, 2, 0, 0, 0, 0])
"""Powers of the scale by which the parameters are taken back to the units of the returns."""
SAME: Final = 1e-9
"""Log-likelihoods closer than this, relatively, are the same top."""
GRADIENT: Final = slice(1, 7)
UPPER: Final = np.triu_indices(len(SLOTS))
HESSIAN: Final = slice(7, 7 + len(UPPER[0]))
SCORES: Final = slice(HESSIAN.stop, HESSIAN.stop + len(UPPER[0]))
LAST_VARIANCE: Final = SCORES.stop
LAST_SHOCK: Final = LAST_VARIANCE + 1
WIDTH: Final = LAST_SHOCK + 1
FAILURES: Final = {
    1: f"not_converged: {MOST_EVALUATIONS} evaluations of the likelihood",
    2: "not_converged: no step raises the likelihood",
}


@dataclass(frozen=True)
class NormalisedPanel:
    """Present returns of every series with mean 0 and variance 1.

    Attributes:
        series: (N, T), the first ``counts[i]`` values of row i.
        counts: (N,) present returns.
        mean, scale: (N,) of the returns; the scale is 0 where it cannot be represented.
        low, high: (N,) least and greatest return.
        backcasts: (N,) exponentially weighted mean of the first 75 squares, as `arch` takes it.
        majority: (N,) share of the returns that are one and the same value, where it is above one half.
    """

    series: Floats
    counts: Integers
    mean: Floats
    scale: Floats
    low: Floats
    high: Floats
    backcasts: Floats
    majority: Floats


@dataclass(frozen=True)
class CompiledPaths:
    """Variance paths of GARCH and GJR fits, see `VariancePaths`.

    Attributes:
        panel: the normalised returns.
        params: (N, 6) in the units of the returns; NaN where there is no fit.
        first, ahead: (N,) variances of the first return and of the bar after the last.
    """

    panel: NormalisedPanel
    params: Floats
    first: Floats
    ahead: Floats

    def variances(self, row: int) -> Floats | None:
        """See `VariancePaths`."""
        if not np.isfinite(self.ahead[row]):
            return None
        mu, omega, alpha, gamma, beta, _ = self.params[row].tolist()
        scale, mean = self.panel.scale[row], self.panel.mean[row]
        shocks = self.panel.series[row, : self.panel.counts[row]] * scale
        return garch_variance(
            shocks,
            mu=mu - mean,
            omega=omega,
            alpha=alpha,
            gamma=gamma,
            beta=beta,
            initial_variance=float(self.first[row]),
        )

    def forecast(self, row: int, horizon: int) -> Floats | None:
        """See `VariancePaths`; exact, because E e^2 = h."""
        if not np.isfinite(self.ahead[row]):
            return None
        _, omega, alpha, gamma, beta, _ = self.params[row].tolist()
        path = np.empty(horizon)
        path[0] = self.ahead[row]
        for step in range(1, horizon):
            path[step] = omega + (alpha + 0.5 * gamma + beta) * path[step - 1]
        return path


@dataclass(frozen=True)
class _Search:
    """Where the searches ended, in normalised units; rows that were not fitted hold NaN.

    Attributes:
        points: (N, 6) parameters with 1/nu last.
        sums: (N, 51) of `garch_kernels.summarise`.
        tests: (N, 3) of `garch_kernels.summarise`.
        states: (N,) 0 converged, 1 given up, 2 stuck, -1 not fitted.
        evaluations: (N,) of the likelihood with its derivatives, by the search that won.
        start: (N,) index into `START_NAMES`.
    """

    points: Floats
    sums: Floats
    tests: Floats
    states: Integers
    evaluations: Integers
    start: Integers

    @classmethod
    def of(cls, width: int) -> _Search:
        """Nothing found yet."""
        return cls(
            points=np.full((width, len(SLOTS)), np.nan),
            sums=np.full((width, WIDTH), np.nan),
            tests=np.full((width, 3), np.nan),
            states=np.full(width, -1),
            evaluations=np.zeros(width, np.int64),
            start=np.zeros(width, np.int64),
        )


def normalised_panel(panel: Floats, *, workers: int = 1) -> NormalisedPanel:
    """Drop absent values from each column of a (T, N) panel and normalise what is left."""
    from garch_platform.quant.volatility import variance_kernels

    length, width = panel.shape
    series, counts = np.zeros((width, max(length, 1))), np.zeros(width, np.int64)
    moments = np.zeros((width, 6))
    panel = np.require(panel, np.float64, ["C", "W"])
    cuts = list(range(0, width, max(8, -(-width // (8 * workers)) * 8)))

    def work(left: int) -> None:
        right = min([cut for cut in cuts if cut > left], default=width)
        variance_kernels.normalise(panel, left, right, series, counts, moments)

    in_threads(work, cuts, workers=workers)
    return NormalisedPanel(series, counts, *np.ascontiguousarray(moments.T))


def estimate(
    panel: NormalisedPanel,
    fitted: Integers,
    model: Specification,
    *,
    backcast: str | float,
    several: bool,
    workers: int = 1,
) -> Estimates:
    """Fit the listed series of a panel.

    Args:
        panel: normalised returns.
        fitted: rows to fit; their scale must be positive.
        model: what is estimated.
        backcast: ``arch``, ``sample`` or a variance in squared units of the returns.
        several: whether series with a flat likelihood get further starts.
        workers: threads; the results do not depend on it.
    """
    from garch_platform.quant.volatility import garch_kernels

    backcasts = panel.backcasts.copy()
    if not isinstance(backcast, str):
        backcasts[fitted] = backcast / panel.scale[fitted] ** 2
    sample = backcast == "sample"
    data = (panel.series, panel.counts, backcasts)
    constraints = (model.free, model.limits, model.bounds, model.slopes)
    search = _Search.of(len(panel.counts))

    def work(rows: Integers) -> None:
        values = np.empty((len(rows), len(GRID)))
        garch_kernels.grid_values(model.student, *data, rows, grid_points(), values)
        starts = model.starts(values, panel.counts[rows])
        flat = 2.0 * (values.max(axis=1) - values[:, 0]) < FLAT_RATIO
        score = np.full(starts.shape[:2], -np.inf)
        found, spent = np.zeros(starts.shape), np.zeros(score.shape, np.int64)
        states = np.full(score.shape, -1)
        wanted = np.zeros(score.shape, np.bool_)
        wanted[:, 0], wanted[:, 1:] = True, flat[:, np.newaxis] & several
        while wanted.any():
            owner, _ = np.nonzero(wanted)
            point, value = np.empty((len(owner), len(SLOTS))), np.empty(len(owner))
            spent_now, state = np.zeros(len(owner), np.int64), np.zeros(len(owner), np.int64)
            garch_kernels.fit_jobs(
                model.kind, *data, sample, rows[owner], starts[wanted], *constraints,
                TOLERANCE, MOST_EVALUATIONS, point, value, spent_now, state,
            )  # fmt: skip
            found[wanted], spent[wanted], states[wanted] = point, spent_now, state
            score[wanted] = np.where((state == 0) & np.isfinite(value), value, -np.inf)
            # a search that ended nowhere is helped by the further starts
            wanted = (states < 0) & ~np.isfinite(score).any(axis=1, keepdims=True)
        highest = score.max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            best = (score >= highest - SAME * np.abs(highest)).argmax(axis=1)
        winner = (np.arange(len(rows)), best)
        search.points[rows], search.states[rows] = found[winner], states[winner]
        search.evaluations[rows], search.start[rows] = spent[winner], best
        garch_kernels.summarise(
            model.kind, *data, sample, rows, search.points, *constraints, search.sums, search.tests
        )

    # series of similar lengths stand side by side
    order = fitted[np.argsort(-panel.counts[fitted], kind="stable")]
    in_threads(work, [part for part in np.array_split(order, max(1, workers)) if len(part)], workers=workers)
    if sample:
        backcasts = 1.0 + search.points[:, 0] ** 2
    return _estimates(panel, model, search, backcasts, demeaned=backcast == "arch")


def grid_points() -> Floats:
    """(6, 8) omega, alpha and beta of the first eight grid points, then of the others."""
    alpha, persistence = np.array(GRID).T
    rows = np.stack([1.0 - persistence, alpha, persistence - alpha])
    return np.concatenate([rows[:, :8], rows[:, 8:]])


def _estimates(
    panel: NormalisedPanel, model: Specification, search: _Search, backcasts: Floats, *, demeaned: bool
) -> Estimates:
    """Take what was found back to the units of the returns."""
    from scipy.stats import chi2

    fitted = search.states >= 0
    scale = np.where(fitted, panel.scale, np.nan)
    params = search.points.copy()
    params[:, (2, 4)] = np.maximum(params[:, (2, 4)], 0.0)
    params[:, 5] = np.clip(1.0 / params[:, 5], *NU_BOUNDS)
    omega, alpha, gamma, beta = params[:, 1:5].T
    first = omega + (alpha + 0.5 * gamma + beta) * backcasts
    last, shock = search.sums[:, LAST_VARIANCE], search.sums[:, LAST_SHOCK]
    ahead = omega + (alpha + gamma * (shock < 0.0)) * shock**2 + beta * last
    units = scale[:, np.newaxis] ** SCALE_POWERS
    robust, hessian = _standard_errors(search.sums, panel.counts, model, demeaned=demeaned)
    edges: list[str | None] = [None] * len(params)
    for row in np.flatnonzero(_near_an_edge(search.points, model)):
        edge_omega, *shape, nu = params[row, 1:].tolist()
        edges[row] = boundary(*shape, nu=nu if model.student else None, omega=edge_omega)
    params *= units
    params[:, 0] += panel.mean
    return Estimates(
        names=model.names,
        params=params[:, model.slots],
        robust_errors=(robust * units)[:, model.slots],
        hessian_errors=(hessian * units)[:, model.slots],
        log_likelihood=search.sums[:, 0] - panel.counts * np.log(scale),
        persistence=alpha + 0.5 * gamma + beta,
        gradient_norm=search.tests[:, 2],
        last_variance=last * scale**2,
        forecast_variance=ahead * scale**2,
        ljung_box_pvalue=chi2.sf(search.tests[:, 0], RESIDUAL_LJUNG_BOX_LAGS),
        arch_lm_pvalue=chi2.sf(search.tests[:, 1], RESIDUAL_ARCH_LAGS),
        converged=search.states == 0,
        iterations=search.evaluations,
        start=[START_NAMES[number] for number in search.start],
        boundary=edges,
        failure=[FAILURES.get(state) for state in search.states.tolist()],
        paths=CompiledPaths(panel, params, first * scale**2, ahead * scale**2),
    )


def _near_an_edge(points: Floats, model: Specification) -> NDArray[np.bool_]:
    """Whether an estimate is close to one of its constraints (within twice what `boundary` names)."""
    with np.errstate(invalid="ignore"):
        slack: Floats = points @ model.limits.T - model.bounds
        return np.asarray((slack < 2.0 * BOUNDARY_TOLERANCE).any(axis=1), np.bool_)


def _standard_errors(
    sums: Floats, counts: Integers, model: Specification, *, demeaned: bool
) -> tuple[Floats, Floats]:
    """(N, 6) robust and Hessian standard errors of normalised series; NaN where not estimable."""
    width, slots = len(sums), model.slots
    robust, classic = np.full((width, 6), np.nan), np.full((width, 6), np.nan)
    information = -_symmetric(sums[:, HESSIAN], slots)
    outer = _symmetric(sums[:, SCORES], slots)
    if demeaned:
        # `arch` takes the covariance of the scores: about their mean, with n - 1
        gradient, n = sums[:, GRADIENT][:, slots], counts[:, np.newaxis, np.newaxis]
        outer = (outer - gradient[:, :, np.newaxis] * gradient[:, np.newaxis, :] / n) * n / (n - 1.0)
    diagonal = np.einsum("nii->ni", information)
    usable = np.isfinite(information).all(axis=(1, 2)) & (diagonal > 0.0).all(axis=1)
    if not usable.any():
        return robust, classic
    root = np.sqrt(np.where(usable[:, np.newaxis], diagonal, 1.0))
    scaled = information / (root[:, :, np.newaxis] * root[:, np.newaxis, :])
    scaled[~usable] = np.eye(len(slots))
    usable &= np.linalg.eigvalsh(scaled)[:, 0] > 1e-12
    scaled[~usable] = np.eye(len(slots))
    inverse = np.linalg.inv(scaled) / (root[:, :, np.newaxis] * root[:, np.newaxis, :])
    sandwich = inverse @ outer @ inverse
    rows = np.flatnonzero(usable)[:, np.newaxis]
    classic[rows, slots] = np.sqrt(np.einsum("nii->ni", inverse))[usable]
    with np.errstate(invalid="ignore"):
        robust[rows, slots] = np.sqrt(np.einsum("nii->ni", sandwich))[usable]
    return robust, classic


def _symmetric(packed: Floats, slots: Integers) -> Floats:
    """(N, K, K) matrices of the estimated parameters from packed upper triangles."""
    full = np.empty((len(packed), len(SLOTS), len(SLOTS)))
    full[:, UPPER[0], UPPER[1]] = packed
    full[:, UPPER[1], UPPER[0]] = packed
    return full[:, slots[:, np.newaxis], slots]
