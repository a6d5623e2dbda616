"""Log-likelihood of eight GARCH(1,1) or GJR-GARCH(1,1) series with exact first and second derivatives.

h_t = omega + (alpha + gamma 1[e_{t-1} < 0]) e_{t-1}^2 + beta h_{t-1}, e_t = y_t - mu. The derivatives of h
follow recursions of their own (Fiorentini, Calzolari and Panattoni [1]_); those of the log-likelihood,
normal or standardised Student-t, are sums over them. Sums of logarithms are products whose exponent is
split off every eighth step. Parameters stand in the order mu, omega, alpha, gamma, beta, nu.

References
----------
.. [1] Fiorentini, G., Calzolari, G. and Panattoni, L. (1996), "Analytic derivatives and the computation
   of GARCH estimates", Journal of Applied Econometrics 11, 399-417.
"""

# ruff: noqa: C901
# mypy: disable-error-code="no-untyped-def"

import math
from typing import Any, Final

from garch_platform.quant.compiled import inlined
from garch_platform.quant.volatility.lanes import LANES, lanes

__all__ = [
    "GRADIENT",
    "HESSIAN",
    "LAST_SHOCK",
    "LAST_VARIANCE",
    "PARAMETERS",
    "ROWS",
    "SCORES",
    "complete_student",
    "evaluator",
    "pair",
]

VECTORS: Final = lanes()
load, store, splat, root = VECTORS.load, VECTORS.store, VECTORS.splat, VECTORS.root
negative, mantissa, exponent = VECTORS.negative, VECTORS.mantissa, VECTORS.exponent

LOG_2: Final = math.log(2.0)
LOG_2PI: Final = math.log(2.0 * math.pi)
PARAMETERS: Final = 6
PAIRS: Final = PARAMETERS * (PARAMETERS + 1) // 2
GRADIENT: Final = 1
HESSIAN: Final = GRADIENT + PARAMETERS
SCORES: Final = HESSIAN + PAIRS
LAST_VARIANCE: Final = SCORES + PAIRS
LAST_SHOCK: Final = LAST_VARIANCE + 1
ROWS: Final = LAST_SHOCK + 1


@inlined
def log(v):
    """Logarithm of positive normal numbers: log m + k log 2 with 2 atanh((m - sqrt 2)/(m + sqrt 2))."""
    m = mantissa(v)
    f = (m - math.sqrt(2.0)) / (m + math.sqrt(2.0))
    s = f * f
    p = s * (1.0 / 23.0) + 1.0 / 21.0
    p = p * s + 1.0 / 19.0
    p = p * s + 1.0 / 17.0
    p = p * s + 1.0 / 15.0
    p = p * s + 1.0 / 13.0
    p = p * s + 1.0 / 11.0
    p = p * s + 1.0 / 9.0
    p = p * s + 1.0 / 7.0
    p = p * s + 1.0 / 5.0
    p = p * s + 1.0 / 3.0
    p = p * s + 1.0
    return (exponent(v) + 0.5) * LOG_2 + (f + f) * p


def evaluator(gjr: bool, student: bool, final: bool) -> Any:
    """Log-likelihood and derivatives of eight series; ``final`` adds the outer products of the scores."""

    @inlined
    def evaluate(y, lengths, steps, theta, start, work, out, z):
        mu, omega, alpha = load(theta, 0), load(theta, 1), load(theta, 2)
        gamma, beta, nu = load(theta, 3), load(theta, 4), load(theta, 5)
        zero, one = splat(0.0), splat(1.0)
        before, before_m, before_mm = load(start, 0), load(start, 1), load(start, 2)
        # h of the first return, with e^2 = h = the backcast before it; its derivatives
        weight = alpha + beta
        if gjr:
            weight = weight + 0.5 * gamma
        h = omega + weight * before
        h_m, h_w, h_a, h_g, h_b = weight * before_m, one, before, 0.5 * before, before
        h_mm, h_ma, h_mg, h_mb = weight * before_mm, before_m, 0.5 * before_m, before_m
        h_wb, h_ab, h_gb, h_bb = zero, zero, zero, zero
        logs, heavy = one, one
        log_k, heavy_k, value = zero, zero, zero
        g_m, g_w, g_a, g_g, g_b, g_n = zero, zero, zero, zero, zero, zero
        mm, mw, ma, mg, mb, mn = zero, zero, zero, zero, zero, zero
        ww, wa, wg, wb, wn, aa = zero, zero, zero, zero, zero, zero
        ag, ab, an, gg, gb, gn = zero, zero, zero, zero, zero, zero
        bb, bn, nn = zero, zero, zero
        o_mm, o_mw, o_ma, o_mg, o_mb, o_mn = zero, zero, zero, zero, zero, zero
        o_ww, o_wa, o_wg, o_wb, o_wn, o_aa = zero, zero, zero, zero, zero, zero
        o_ag, o_ab, o_an, o_gg, o_gb, o_gn = zero, zero, zero, zero, zero, zero
        o_bb, o_bn, o_nn = zero, zero, zero
        tails = nu - 2.0
        more = nu + 1.0
        over = one / tails if student else one
        stop = steps
        for lane in range(LANES):
            if 0 < lengths[lane] < stop:
                stop = lengths[lane]
        for t in range(steps):
            e = load(y, t) - mu
            square = e * e
            # first and second derivatives of the log density by h and mu; x and n_m by nu
            if student:
                s = tails * h + square
                inverse = one / (h * s)
                r, q = inverse * s, inverse * h
                share = square * q
                k_share = more * share
                by_h = 0.5 * r * (k_share - 1.0)
                by_hh = 0.5 * r * r * (1.0 - k_share * (2.0 - share))
                k_q = more * q
                by_m = k_q * e
                by_mm = k_q * (share + share - 1.0)
                by_mh = zero - by_m * tails * q
                x = 0.5 * share * (r - k_q)
                n_m = e * q * (1.0 - k_q * h)
                heavy = heavy * s
                g_n = g_n + share
                nn = nn + share * share
            else:
                r = one / h
                ratio = square * r
                value = value + ratio
                by_h = 0.5 * r * (ratio - 1.0)
                by_hh = r * r * (0.5 - ratio)
                by_m = e * r
                by_mm = zero - r
                by_mh = zero - by_m * r
                x, n_m = zero, zero
            logs = logs * h
            if t & 7 == 7:
                log_k, logs = log_k + exponent(logs), mantissa(logs)
                if student:
                    heavy_k, heavy = heavy_k + exponent(heavy), mantissa(heavy)
            s_m = by_m + by_h * h_m
            s_w, s_a, s_b = by_h * h_w, by_h * h_a, by_h * h_b
            g_m, g_w, g_a, g_b = g_m + s_m, g_w + s_w, g_a + s_a, g_b + s_b
            v_m, v_w, v_a, v_b = by_hh * h_m + by_mh, by_hh * h_w, by_hh * h_a, by_hh * h_b
            mm = mm + by_mm + (v_m + by_mh) * h_m + by_h * h_mm
            mw = mw + v_m * h_w
            ma = ma + v_m * h_a + by_h * h_ma
            mb = mb + v_m * h_b + by_h * h_mb
            ww = ww + v_w * h_w
            wa = wa + v_w * h_a
            wb = wb + v_w * h_b + by_h * h_wb
            aa = aa + v_a * h_a
            ab = ab + v_a * h_b + by_h * h_ab
            bb = bb + v_b * h_b + by_h * h_bb
            if gjr:
                s_g = by_h * h_g
                g_g = g_g + s_g
                v_g = by_hh * h_g
                mg = mg + v_m * h_g + by_h * h_mg
                wg = wg + v_w * h_g
                ag = ag + v_a * h_g
                gg = gg + v_g * h_g
                gb = gb + v_g * h_b + by_h * h_gb
            if student:
                mn = mn + x * h_m + n_m
                wn, an, bn = wn + x * h_w, an + x * h_a, bn + x * h_b
                if gjr:
                    gn = gn + x * h_g
            if final:
                store(z, t, e * root(r))
                o_mm, o_mw, o_ma, o_mb = (
                    o_mm + s_m * s_m,
                    o_mw + s_m * s_w,
                    o_ma + s_m * s_a,
                    o_mb + s_m * s_b,
                )
                o_ww, o_wa, o_wb = o_ww + s_w * s_w, o_wa + s_w * s_a, o_wb + s_w * s_b
                o_aa, o_ab, o_bb = o_aa + s_a * s_a, o_ab + s_a * s_b, o_bb + s_b * s_b
                if gjr:
                    o_mg, o_wg, o_ag = o_mg + s_m * s_g, o_wg + s_w * s_g, o_ag + s_a * s_g
                    o_gg, o_gb = o_gg + s_g * s_g, o_gb + s_g * s_b
                if student:
                    s_n = 0.5 * (over * k_share - log(1.0 + square * over * r))
                    o_mn, o_wn, o_an = o_mn + s_m * s_n, o_wn + s_w * s_n, o_an + s_a * s_n
                    o_bn, o_nn = o_bn + s_b * s_n, o_nn + s_n * s_n
                    if gjr:
                        o_gn = o_gn + s_g * s_n
            if t + 1 == stop:
                logs_sum = log_k * LOG_2 + log(logs)
                if student:
                    n = splat(float(t + 1))
                    excess = heavy_k * LOG_2 + log(heavy) - logs_sum - n * log(tails)
                    store(work, 0, zero - 0.5 * (logs_sum + more * excess))
                    store(work, GRADIENT + 5, 0.5 * (over * more * g_n - excess))
                    both = more * over * over
                    store(work, HESSIAN + 20, over * g_n - both * g_n + 0.5 * both * nn)
                else:
                    store(work, 0, zero - 0.5 * (logs_sum + value + float(t + 1) * LOG_2PI))
                for row, sums in enumerate((g_m, g_w, g_a, g_g, g_b)):
                    store(work, GRADIENT + row, sums)
                packed = (mm, mw, ma, mg, mb, mn, ww, wa, wg, wb, wn, aa, ag, ab, an, gg, gb, gn, bb, bn)
                for row, sums in enumerate(packed):
                    store(work, HESSIAN + row, sums)
                if final:
                    first = (o_mm, o_mw, o_ma, o_mg, o_mb, o_mn, o_ww, o_wa, o_wg, o_wb, o_wn)
                    for row, sums in enumerate(first):
                        store(work, SCORES + row, sums)
                    second = (o_aa, o_ag, o_ab, o_an, o_gg, o_gb, o_gn, o_bb, o_bn, o_nn)
                    for row, sums in enumerate(second):
                        store(work, SCORES + 11 + row, sums)
                    store(work, LAST_VARIANCE, h)
                    store(work, LAST_SHOCK, e)
                stop = steps
                for lane in range(LANES):
                    if lengths[lane] == t + 1:
                        for row in range(ROWS if final else SCORES):
                            out[row, lane] = work[row, lane]
                    elif t + 1 < lengths[lane] < stop:
                        stop = lengths[lane]
            # on to the next return
            h_mm = beta * h_mm + 2.0 * alpha
            h_ma = beta * h_ma - 2.0 * e
            h_mb = beta * h_mb + h_m
            h_wb = beta * h_wb + h_w
            h_ab = beta * h_ab + h_a
            h_bb = beta * h_bb + 2.0 * h_b
            h_m = beta * h_m - 2.0 * alpha * e
            h_w = beta * h_w + 1.0
            h_a = beta * h_a + square
            h_b = beta * h_b + h
            if gjr:
                below = negative(e)
                down = below * square
                h_mm = h_mm + 2.0 * gamma * below
                h_mg = beta * h_mg - 2.0 * below * e
                h_gb = beta * h_gb + h_g
                h_m = h_m - 2.0 * gamma * below * e
                h_g = beta * h_g + down
                h = omega + alpha * square + gamma * down + beta * h
            else:
                h = omega + alpha * square + beta * h

    return evaluate


@inlined
def pair(i, j):
    """Place of (i, j) in a packed upper triangle."""
    low, high = min(i, j), max(i, j)
    return low * PARAMETERS - low * (low - 1) // 2 + high - low


@inlined
def digammas(x):
    """Digamma and trigamma of x > 0: recurrence up to 12, then the asymptotic series."""
    first, second = 0.0, 0.0
    while x < 12.0:
        first -= 1.0 / x
        second += 1.0 / (x * x)
        x += 1.0
    i = 1.0 / (x * x)
    first += (
        math.log(x)
        - 0.5 / x
        - i
        * (
            1.0 / 12
            - i * (1.0 / 120 - i * (1.0 / 252 - i * (1.0 / 240 - i * (1.0 / 132 - i * 691.0 / 32760))))
        )
    )
    second += (1.0 + 0.5 / x) / x + i / x * (
        1.0 / 6 - i * (1.0 / 30 - i * (1.0 / 42 - i * (1.0 / 30 - i * (5.0 / 66 - i * 691.0 / 2730))))
    )
    return first, second


@inlined
def complete_student(out, lane, count, nu, final):
    """Add what the constant of the Student-t density contributes to a lane's sums."""
    low1, low2 = digammas(0.5 * nu)
    high1, high2 = digammas(0.5 * (nu + 1.0))
    constant = math.lgamma(0.5 * (nu + 1.0)) - math.lgamma(0.5 * nu) - 0.5 * math.log(math.pi * (nu - 2.0))
    slope = 0.5 * (high1 - low1 - 1.0 / (nu - 2.0))
    bend = 0.25 * (high2 - low2) + 0.5 / (nu - 2.0) ** 2
    raw = out[GRADIENT + 5, lane]
    out[0, lane] += count * constant
    out[GRADIENT + 5, lane] += count * slope
    out[HESSIAN + 20, lane] += count * bend
    if final:
        for other in range(5):
            out[SCORES + pair(other, 5), lane] += slope * out[GRADIENT + other, lane]
        out[SCORES + 20, lane] += slope * (2.0 * raw + count * slope)
