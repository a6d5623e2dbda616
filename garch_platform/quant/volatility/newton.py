"""Newton's direction of a small maximisation under linear constraints, for compiled kernels.

The quadratic model g'd + d'Hd/2 is maximised over the d that keep ``limits (x + d) >= bounds``, by a dual
active set (Goldfarb and Idnani [1]_) in the coordinates of the Cholesky factor of -H, so that an estimate
on an edge of the parameter space converges as fast as one inside.

References
----------
.. [1] Goldfarb, D. and Idnani, A. (1983), "A numerically stable dual method for solving strictly convex
   quadratic programs", Mathematical Programming 27, 1-33.
"""

# ruff: noqa: C901
# mypy: disable-error-code="no-untyped-def"

import math
from typing import Final

from garch_platform.quant.compiled import inlined

__all__ = ["newton_direction"]

FLAT: Final = 1e-10
TINY: Final = 1e-300
EDGE: Final = 1e-11
STIFF: Final = 100.0


@inlined
def factorise(matrix, lower, k):
    """Cholesky factor of ``matrix``; a pivot that is not positive is replaced by its absolute value."""
    for i in range(k):
        for j in range(i + 1):
            total = matrix[i, j]
            for m in range(j):
                total -= lower[i, m] * lower[j, m]
            if i != j:
                lower[i, j] = total / lower[j, j]
            else:
                lower[i, i] = math.sqrt(max(abs(total), FLAT * abs(matrix[i, i]), TINY))


@inlined
def solve_active(rows, target, active, count, k, trial, system):
    """Multipliers of the active constraints: (rows rows') trial = target, by elimination."""
    for a in range(count):
        for b in range(count):
            total = 0.0
            for m in range(k):
                total += rows[active[a], m] * rows[active[b], m]
            system[a, b] = total * (1.0 + 1e-14) if a == b else total
        trial[a] = target[active[a]]
    for a in range(count):
        for b in range(a + 1, count):
            factor = system[b, a] / system[a, a]
            for m in range(a, count):
                system[b, m] -= factor * system[a, m]
            trial[b] -= factor * trial[a]
    for a in range(count - 1, -1, -1):
        for m in range(a + 1, count):
            trial[a] -= system[a, m] * trial[m]
        trial[a] /= system[a, a]


@inlined
def multipliers(rows, target, m, k, u, trial, active, system):
    """The u >= 0 that minimises |rows' u|^2 / 2 - target'u (Lawson and Hanson's active set)."""
    count = 0
    for c in range(m):
        u[c] = 0.0
    for _ in range(3 * m):
        worst, which = 1e-13, -1
        for c in range(m):
            listed, violated, size = False, target[c], 0.0
            for i in range(k):
                size += rows[c, i] ** 2
                for a in range(count):
                    violated -= rows[c, i] * rows[active[a], i] * u[active[a]]
            for a in range(count):
                listed |= active[a] == c
            if not listed and violated > worst * math.sqrt(size):
                worst, which = violated / math.sqrt(size), c
        if which < 0 or count == k:
            return
        active[count] = which
        count += 1
        while count > 0:
            solve_active(rows, target, active, count, k, trial, system)
            share, blocking = 1.0, -1
            for a in range(count):
                if trial[a] <= 0.0:
                    ratio = u[active[a]] / (u[active[a]] - trial[a] + TINY)
                    if ratio < share:
                        share, blocking = ratio, a
            for a in range(count):
                u[active[a]] += share * (trial[a] - u[active[a]])
            if blocking < 0:
                break
            u[active[blocking]] = 0.0
            count -= 1
            for a in range(blocking, count):
                active[a] = active[a + 1]


@inlined
def newton_direction(gradient, work, active, x, free, limits, bounds, slopes, d):
    """Write the ascent direction into ``d`` and return the gain that the quadratic model predicts.

    Args:
        gradient: (K,) derivatives by the free variables.
        work: (5, 8, 8); work[0] holds the lower triangle of the Hessian; all of it is overwritten.
        active: (8,) integers, overwritten.
        x: (P,) parameters where we are, inside the constraints.
        free: (K,) slots of the free variables, those with the least curvature last.
        limits, bounds: (M, P) and (M,): ``limits x >= bounds``, M at most 8.
        slopes: (M, P) derivatives of ``limits x`` by the variables.
        d: (P,) result.

    Returns:
        The predicted gain. Where the Hessian is not negative definite, the pivots of its factor are
        reflected; first it is made so across the edges that the gradient presses on, which changes
        nothing along them. Negative where the direction is blocked.
    """
    m, k = len(bounds), len(free)
    matrix, lower, rows, system = work[0], work[1], work[2], work[3]
    v, w, u, target, trial = work[4, 0], work[4, 1], work[4, 2], work[4, 3], work[4, 4]
    slack, steepest = work[4, 5], 0.0
    for i in range(k):
        for j in range(i + 1):
            matrix[i, j] = -matrix[i, j]
        steepest = max(steepest, abs(matrix[i, i]))
    for c in range(m):
        slack[c], pressure, size = -bounds[c], 0.0, 0.0
        for slot in range(len(x)):
            slack[c] += limits[c, slot] * x[slot]
        for i in range(k):
            pressure += gradient[i] * slopes[c, free[i]]
            size += slopes[c, free[i]] ** 2
        if slack[c] < EDGE and pressure < 0.0:
            for i in range(k):
                for j in range(i + 1):
                    matrix[i, j] += STIFF * steepest / size * slopes[c, free[i]] * slopes[c, free[j]]
    factorise(matrix, lower, k)
    for i in range(k):
        v[i] = gradient[i]
        for j in range(i):
            v[i] -= lower[i, j] * v[j]
        v[i] /= lower[i, i]
    for c in range(m):
        target[c] = -max(slack[c], 0.0)
        for i in range(k):
            total = slopes[c, free[i]]
            for j in range(i):
                total -= lower[i, j] * rows[c, j]
            rows[c, i] = total / lower[i, i]
            target[c] -= rows[c, i] * v[i]
    multipliers(rows, target, m, k, u, trial, active, system)
    gain = 0.0
    for i in range(k - 1, -1, -1):
        w[i] = v[i]
        for c in range(m):
            w[i] += u[c] * rows[c, i]
        gain += w[i] * (v[i] - 0.5 * w[i])
        rest = w[i]
        for j in range(i + 1, k):
            rest -= lower[j, i] * d[free[j]]
        d[free[i]] = rest / lower[i, i]
    longest = 1.0
    for c in range(m):
        change = 0.0
        for i in range(k):
            change += slopes[c, free[i]] * d[free[i]]
        if slack[c] + change < -EDGE:
            longest = min(longest, max(slack[c], 0.0) / -change)
    for i in range(k):
        d[free[i]] *= longest
    return gain if longest > 1e-3 else -1.0
