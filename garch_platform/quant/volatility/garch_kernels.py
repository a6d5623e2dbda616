"""Compiled maximum likelihood of GARCH(1,1) and GJR-GARCH(1,1): grid, Newton search, summary of a fit.

`fit_jobs` works on eight (series, start) pairs at a time and puts the next one into a lane as soon as the
lane's search has ended. The optimiser sees 1/nu instead of nu, in which the likelihood is nearly quadratic.
"""

# ruff: noqa: C901
# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np

from garch_platform.quant.compiled import inlined, kernel
from garch_platform.quant.volatility import garch_recursion, lanes, newton, residual_tests
from garch_platform.quant.volatility.garch_recursion import (
    GRADIENT,
    HESSIAN,
    PARAMETERS,
    ROWS,
    complete_student,
    evaluator,
    pair,
)
from garch_platform.quant.volatility.lanes import LANES

__all__ = ["fit_jobs", "grid_values", "summarise"]

USES = (lanes, garch_recursion, newton, residual_tests)
VECTORS = lanes.lanes()
store, splat, load = VECTORS.store, VECTORS.splat, VECTORS.load
mantissa, exponent = VECTORS.mantissa, VECTORS.exponent
log = garch_recursion.log
newton_direction, residual_statistics = newton.newton_direction, residual_tests.residual_statistics
LOG_2 = math.log(2.0)
GRID_NU = 6.0
SHARES = (0.0, 0.0, 1.0, 0.5, 1.0, 0.0)
SLACK = 1e-11

_garch_normal = evaluator(False, False, False)
_garch_t = evaluator(False, True, False)
_gjr_normal = evaluator(True, False, False)
_gjr_t = evaluator(True, True, False)
_garch_normal_final = evaluator(False, False, True)
_garch_t_final = evaluator(False, True, True)
_gjr_normal_final = evaluator(True, False, True)
_gjr_t_final = evaluator(True, True, True)


@inlined
def evaluate(kind, y, lengths, steps, theta, start, work, out, unused):
    """The likelihood of a model with its derivatives, for the search."""
    if kind == 0:
        _garch_normal(y, lengths, steps, theta, start, work, out, unused)
    elif kind == 1:
        _garch_t(y, lengths, steps, theta, start, work, out, unused)
    elif kind == 2:
        _gjr_normal(y, lengths, steps, theta, start, work, out, unused)
    else:
        _gjr_t(y, lengths, steps, theta, start, work, out, unused)


@inlined
def evaluate_final(kind, y, lengths, steps, theta, start, work, out, z):
    """The same with products of scores and standardised residuals."""
    if kind == 0:
        _garch_normal_final(y, lengths, steps, theta, start, work, out, z)
    elif kind == 1:
        _garch_t_final(y, lengths, steps, theta, start, work, out, z)
    elif kind == 2:
        _gjr_normal_final(y, lengths, steps, theta, start, work, out, z)
    else:
        _gjr_t_final(y, lengths, steps, theta, start, work, out, z)


@inlined
def set_lane(lane, x, base, sample, theta, start):
    """Parameters of one lane (the last is 1/nu) and the backcast with its derivatives by mu."""
    for slot in range(PARAMETERS):
        theta[slot, lane] = x[slot]
    theta[5, lane] = 1.0 / x[5]
    start[0, lane] = 1.0 + x[0] * x[0] if sample else base
    start[1, lane] = 2.0 * x[0] if sample else 0.0
    start[2, lane] = 2.0 if sample else 0.0


@inlined
def fill_lane(y, lane, series, count):
    for t in range(count):
        y[t, lane] = series[t]


@inlined
def lane_model(out, lane, x, free, gradient, hessian):
    """Gradient and Hessian of a lane by its free search variables.

    These are mu, 1/nu, the level omega + alpha + gamma/2 + beta, alpha, gamma and beta: the likelihood
    fixes the level (about 1 here) sharply and beta poorly, so that the flat direction is an axis.
    """
    k = len(free)
    nu = 1.0 / x[5]
    for i in range(k):
        share_i = SHARES[free[i]]
        scale_i = -nu * nu if free[i] == 5 else 1.0
        gradient[i] = scale_i * (out[GRADIENT + free[i], lane] - share_i * out[GRADIENT + 1, lane])
        for j in range(i + 1):
            share_j = SHARES[free[j]]
            scale_j = -nu * nu if free[j] == 5 else 1.0
            entry = out[HESSIAN + pair(free[i], free[j]), lane]
            entry -= share_i * out[HESSIAN + pair(1, free[j]), lane]
            entry -= share_j * out[HESSIAN + pair(free[i], 1), lane]
            entry += share_i * share_j * out[HESSIAN + pair(1, 1), lane]
            hessian[i, j] = scale_i * scale_j * entry
            if free[i] == 5 and free[j] == 5:
                hessian[i, j] += 2.0 * nu**3 * out[GRADIENT + 5, lane]


@inlined
def move(x, direction, step, free):
    """Add a step in the search variables to the parameters."""
    for slot in free:
        x[slot] += step * direction[slot]
        x[1] -= SHARES[slot] * step * direction[slot]


@kernel(
    "void(i8, f8[:, ::1], i8[::1], f8[::1], b1, i8[::1], f8[:, ::1], i8[::1], f8[:, ::1], f8[::1],"
    "f8[:, ::1], f8, i8, f8[:, ::1], f8[::1], i8[::1], i8[::1])",
    uses=USES,
)
def fit_jobs(
    kind,
    series,
    counts,
    backcasts,
    sample,
    owners,
    starts,
    free,
    limits,
    bounds,
    slopes,
    tolerance,
    most,
    points,
    values,
    evaluations,
    states,
):
    """Newton's method from every start.

    Args:
        kind: 0 normal, 1 Student-t; plus 2 for GJR.
        series: (N, T) returns of mean 0 and variance 1, the first ``counts[i]`` of row i.
        backcasts: (N,) variance before the first return; ignored if ``sample``, when it is the mean
            squared shock at the current mu.
        owners: (J,) series of each job, of similar lengths side by side.
        starts: (J, 6) mu, omega, alpha, gamma, beta, 1/nu, inside the constraints.
        free: (K,) search variables that are estimated, by their slot, the flattest last.
        limits, bounds: (M, 6) and (M,): ``limits x >= bounds``.
        slopes: (M, 6) derivatives of ``limits x`` by the search variables.
        tolerance: a predicted gain of the log-likelihood below it ends the search after that step.
        most: evaluations after which a search is given up.
        points, values, evaluations, states: results: (J, 6), (J,), (J,), (J,); a state is 0 where the
            search converged, 1 where it was given up, 2 where no step could raise the likelihood.
    """
    student = kind % 2 == 1
    longest = 1
    for job in range(len(owners)):
        longest = max(longest, counts[owners[job]])
    y = np.zeros((longest, LANES))
    lengths = np.zeros(LANES, np.int64)
    theta, start = np.ones((PARAMETERS, LANES)), np.ones((3, LANES))
    work, out = np.zeros((ROWS, LANES)), np.zeros((ROWS, LANES))
    unused = np.zeros((1, LANES))
    scratch, gradient, active = np.zeros((5, 8, 8)), np.zeros(PARAMETERS), np.zeros(8, np.int64)
    at, direction = np.zeros((LANES, PARAMETERS)), np.zeros((LANES, PARAMETERS))
    best, gain, step = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    job_of = np.full(LANES, -1)
    trial = np.zeros(PARAMETERS)
    waiting, running = 0, 0
    while True:
        for lane in range(LANES):
            if job_of[lane] < 0 and waiting < len(owners):
                owner = owners[waiting]
                job_of[lane], lengths[lane], step[lane] = waiting, counts[owner], 0.0
                fill_lane(y, lane, series[owner], counts[owner])
                at[lane] = starts[waiting]
                evaluations[waiting] = 0
                set_lane(lane, at[lane], backcasts[owner], sample, theta, start)
                waiting += 1
                running += 1
        if running == 0:
            break
        steps = 0
        for lane in range(LANES):
            steps = max(steps, lengths[lane])
        evaluate(kind, y, lengths, steps, theta, start, work, out, unused)
        for lane in range(LANES):
            job = job_of[lane]
            if job < 0:
                continue
            evaluations[job] += 1
            if student:
                complete_student(out, lane, lengths[lane], theta[5, lane], False)
            value, state = out[0, lane], -1
            allowed = best[lane] + 1e-4 * step[lane] * gain[lane] - SLACK * (1.0 + abs(best[lane]))
            if step[lane] == 0.0 or value >= allowed:
                move(at[lane], direction[lane], step[lane], free)
                best[lane] = value
                lane_model(out, lane, at[lane], free, gradient, scratch[0])
                gain[lane] = newton_direction(
                    gradient, scratch, active, at[lane], free, limits, bounds, slopes, direction[lane]
                )
                step[lane] = 1.0
                if not math.isfinite(value) or gain[lane] < 0.0:
                    state = 2
                elif gain[lane] < tolerance:
                    move(at[lane], direction[lane], 1.0, free)
                    best[lane] += gain[lane]
                    state = 0
            else:
                # the parabola through the value and slope here and the value there
                drop = best[lane] + 2.0 * step[lane] * gain[lane] - value
                shrink = step[lane] * gain[lane] / drop if math.isfinite(drop) else 0.0
                step[lane] *= min(max(shrink, 0.1), 0.5)
                if step[lane] < 1e-10:
                    state = 2
            if state < 0 and evaluations[job] >= most:
                state = 1
            if state >= 0:
                points[job], values[job], states[job] = at[lane], best[lane], state
                job_of[lane], lengths[lane] = -1, 0
                running -= 1
            else:
                for slot in range(PARAMETERS):
                    trial[slot] = at[lane, slot]
                move(trial, direction[lane], step[lane], free)
                set_lane(lane, trial, backcasts[owners[job]], sample, theta, start)


@kernel("void(b1, f8[:, ::1], i8[::1], f8[::1], i8[::1], f8[:, ::1], f8[:, ::1])", uses=USES)
def grid_values(student, series, counts, backcasts, rows, grid, values):
    """Log-likelihood, up to a constant, of the listed series at sixteen points with mu = 0.

    Args:
        student: Student-t with 6 degrees of freedom instead of normal.
        series, counts, backcasts: as in `fit_jobs`.
        rows: (J,) rows of ``series``.
        grid: (6, 8) omega, alpha, beta of the first eight points, then of the others.
        values: (J, 16) results.
    """
    out = np.zeros((2, LANES))
    zero, one = splat(0.0), splat(1.0)
    w, a, b = load(grid, 0), load(grid, 1), load(grid, 2)
    w2, a2, b2 = load(grid, 3), load(grid, 4), load(grid, 5)
    tails = GRID_NU - 2.0
    for job in range(len(rows)):
        i = rows[job]
        h, h2 = w + (a + b) * backcasts[i], w2 + (a2 + b2) * backcasts[i]
        # within eight steps: below is the product of h; above / below the sum of e^2 / h, or above the
        # product of (nu - 2) h + e^2; after them the exponents of the products are split off
        above, above2 = (one, one) if student else (zero, zero)
        below, below2, product, product2, k, k2 = one, one, one, one, zero, zero
        heavy, heavy2, total, total2 = one, one, zero, zero
        for t in range(counts[i]):
            square = series[i, t] * series[i, t]
            if student:
                above, above2 = above * (tails * h + square), above2 * (tails * h2 + square)
            else:
                above, above2 = above * h + square * below, above2 * h2 + square * below2
            below, below2 = below * h, below2 * h2
            h, h2 = w + a * square + b * h, w2 + a2 * square + b2 * h2
            if t & 7 == 7 or t + 1 == counts[i]:
                product, product2 = product * below, product2 * below2
                k, k2 = k + exponent(product), k2 + exponent(product2)
                product, product2 = mantissa(product), mantissa(product2)
                if student:
                    heavy, heavy2 = heavy * above, heavy2 * above2
                    total, total2 = total + exponent(heavy), total2 + exponent(heavy2)
                    heavy, heavy2, above, above2 = mantissa(heavy), mantissa(heavy2), one, one
                else:
                    total, total2 = total + above / below, total2 + above2 / below2
                    above, above2 = zero, zero
                below, below2 = one, one
        logs, logs2 = k * LOG_2 + log(product), k2 * LOG_2 + log(product2)
        if student:
            total, total2 = total * LOG_2 + log(heavy), total2 * LOG_2 + log(heavy2)
            store(out, 0, 0.5 * GRID_NU * logs - 0.5 * (GRID_NU + 1.0) * total)
            store(out, 1, 0.5 * GRID_NU * logs2 - 0.5 * (GRID_NU + 1.0) * total2)
        else:
            store(out, 0, zero - 0.5 * (logs + total))
            store(out, 1, zero - 0.5 * (logs2 + total2))
        for lane in range(LANES):
            values[job, lane], values[job, LANES + lane] = out[0, lane], out[1, lane]


@kernel(
    "void(i8, f8[:, ::1], i8[::1], f8[::1], b1, i8[::1], f8[:, ::1],"
    "i8[::1], f8[:, ::1], f8[::1], f8[:, ::1], f8[:, ::1], f8[:, ::1])",
    uses=USES,
)
def summarise(
    kind, series, counts, backcasts, sample, owners, points, free, limits, bounds, slopes, sums, tests
):
    """Value, derivatives, outer products of scores and residual tests at given parameters.

    Args:
        kind, series, counts, backcasts, sample, free, limits, bounds, slopes: as in `fit_jobs`.
        owners: (J,) rows of ``series``, of similar lengths side by side.
        points: (N, 6) with 1/nu last, by row of ``series``.
        sums: (N, 51) results by nu itself: value, 6 derivatives, 21 second derivatives and 21 products of
            scores (packed upper triangles), last variance, last shock.
        tests: (N, 3) Ljung-Box and ARCH-LM statistics of the standardised residuals, and Newton's
            decrement: the length of the gradient, along the constraints, in standard errors.
    """
    longest = 1
    for job in range(len(owners)):
        longest = max(longest, counts[owners[job]])
    pad = residual_tests.LJUNG_BOX_LAGS
    y, z, squares = (
        np.zeros((longest, LANES)),
        np.zeros((longest + pad, LANES)),
        np.zeros((longest + pad, LANES)),
    )
    lengths = np.zeros(LANES, np.int64)
    theta, start = np.ones((PARAMETERS, LANES)), np.ones((3, LANES))
    work, out = np.zeros((ROWS, LANES)), np.zeros((ROWS, LANES))
    moments, statistics = np.zeros((8, 8)), np.zeros((2, LANES))
    scratch, gradient, active = np.zeros((5, 8, 8)), np.zeros(PARAMETERS), np.zeros(8, np.int64)
    direction = np.zeros(PARAMETERS)
    for first in range(0, len(owners), LANES):
        steps = 0
        lengths[:] = 0
        for lane in range(min(LANES, len(owners) - first)):
            owner = owners[first + lane]
            lengths[lane] = counts[owner]
            steps = max(steps, counts[owner])
            fill_lane(y, lane, series[owner], counts[owner])
            set_lane(lane, points[owner], backcasts[owner], sample, theta, start)
        evaluate_final(kind, y, lengths, steps, theta, start, work, out, z[pad:])
        residual_statistics(z, squares, lengths, steps, work, moments, statistics)
        for lane in range(min(LANES, len(owners) - first)):
            owner = owners[first + lane]
            if kind % 2 == 1:
                complete_student(out, lane, lengths[lane], theta[5, lane], True)
            lane_model(out, lane, points[owner], free, gradient, scratch[0])
            gain = newton_direction(
                gradient, scratch, active, points[owner], free, limits, bounds, slopes, direction
            )
            sums[owner] = out[:, lane]
            tests[owner, 0], tests[owner, 1] = statistics[0, lane], statistics[1, lane]
            tests[owner, 2] = math.sqrt(2.0 * gain) if gain >= 0.0 else math.nan
