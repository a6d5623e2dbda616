"""Kernels of what two series have in common beside Engle and Granger: correlation, Hurst, Johansen.

The columns come centred and scaled by powers of two, which changes no bit of a statistic.
"""

from __future__ import annotations

import numpy as np

from garch_platform.quant.compiled import inlined, kernel

__all__ = ["correlate_pairs", "describe_spreads"]

SUMS = frozenset({"reassoc", "contract"})
"""Sums in the order of the processor's vectors: the same for every pair, more exact than in sequence."""


@kernel("f8(f8[::1], f8[::1])", fastmath=SUMS)
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for t in range(min(len(a), len(b))):
        total += a[t] * b[t]
    return total


@kernel("f8(f8[::1])", fastmath=SUMS)
def _sum(a):  # type: ignore[no-untyped-def]
    total = 0.0
    for t in range(len(a)):
        total += a[t]
    return total


@kernel("f8(f8[::1], f8[::1])", fastmath=SUMS)
def _square_moves(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for t in range(len(a)):
        total += (a[t] - b[t]) * (a[t] - b[t])
    return total


@kernel("UniTuple(f8, 4)(f8[::1], f8[::1], f8[::1], f8[::1])", fastmath=SUMS)
def _cross_products(a, b, c, d):  # type: ignore[no-untyped-def]
    """Sums of a c, a d, b c and b d."""
    ac = ad = bc = bd = 0.0
    for t in range(len(a)):
        ac += a[t] * c[t]
        ad += a[t] * d[t]
        bc += b[t] * c[t]
        bd += b[t] * d[t]
    return ac, ad, bc, bd


@kernel("UniTuple(f8, 10)(f8[::1], f8[::1], f8, f8[::1], f8[::1], f8[::1])", fastmath=SUMS)
def _residual(y, x, slope, u, d, e):  # type: ignore[no-untyped-def]
    """u = y - slope x, its changes d and those of x, e, with sums of products of a bar's levels and changes.

    Of the levels u, x before each change: u u, u x, x x, u d, u e, x d, x e; of the changes: d d, d e, e e.
    """
    y1, x1, u1 = y[1:], x[1:], u[1:]
    u[0] = y[0] - slope * x[0]
    uu = ux = xx = ud = ue = xd = xe = dd = de = ee = 0.0
    for t in range(len(d)):
        before, leg = y[t] - slope * x[t], x[t]
        after = y1[t] - slope * x1[t]
        change, move = after - before, x1[t] - leg
        u1[t], d[t], e[t] = after, change, move
        uu += before * before
        ux += before * leg
        xx += leg * leg
        ud += before * change
        ue += before * move
        xd += leg * change
        xe += leg * move
        dd += change * change
        de += change * move
        ee += move * move
    return uu, ux, xx, ud, ue, xd, xe, dd, de, ee


@inlined
def _common(y, x, sessions, ys, xs, ss):  # type: ignore[no-untyped-def]
    """Gather the bars that both legs have, and their sessions; returns their number."""
    n = 0
    for t in range(len(y)):
        ys[n], xs[n], ss[n] = y[t], x[t], sessions[t]
        n += np.isfinite(y[t]) & np.isfinite(x[t])
    return n


@inlined
def _centre(a):  # type: ignore[no-untyped-def]
    """Take the mean out of a, in place, in two steps for the sake of its last digits; returns it."""
    mean = 0.0
    for _ in range(2):
        step = _sum(a) / len(a)
        mean += step
        for t in range(len(a)):
            a[t] -= step
    return mean


@inlined
def _thin(ys, xs, sessions, n, horizon):  # type: ignore[no-untyped-def]
    """Moves, in place, between every ``horizon``-th bar of each session; returns their number."""
    moves, place = 0, 0
    last_y = last_x = 0.0
    for t in range(n):
        if t == 0 or sessions[t] != sessions[t - 1]:
            place = 0
        if place % horizon == 0:
            y, x = ys[t], xs[t]
            if place > 0:
                ys[moves], xs[moves] = y - last_y, x - last_x
                moves += 1
            last_y, last_x = y, x
        place += 1
    return moves


@inlined
def _hurst(u, n):  # type: ignore[no-untyped-def]
    """Slope of log root-mean-square u_{t+k} - u_t on log k, k = 1, 2, 4 .. n / 8."""
    points = 0
    mean_x = mean_y = power = cross = 0.0
    step = 1
    while 8 * step <= n:
        square = _square_moves(u[step:n], u[: n - step]) / (n - step)
        if not square > 0.0:
            return np.nan
        x, y = np.log(step), 0.5 * np.log(square)
        points += 1
        gap = x - mean_x
        mean_x += gap / points
        mean_y += (y - mean_y) / points
        power += gap * (x - mean_x)
        cross += gap * (y - mean_y)
        step *= 2
    return cross / power if points > 1 else np.nan


@inlined
def _sweep(m, j, size):  # type: ignore[no-untyped-def]
    """Eliminate row j of a symmetric matrix, of which the upper triangle counts, from the later rows."""
    for i in range(j + 1, size):
        factor = m[j, i] / m[j, j]
        for c in range(i, size):
            m[i, c] -= factor * m[j, c]


@inlined
def _enter(total, d, e, p, q, s, pad, n, lags, m):  # type: ignore[no-untyped-def]
    """Enter sum d_{t-i} e_{t-i-s} over t = lags + 1 .. n - 1 for every i, from the sum over all bars."""
    now = 2 * lags
    for t in range(pad + s + 1, pad + lags + 1):
        total -= d[t] * e[t - s]
    row, column = now + p, now + q if s == 0 else 2 * s - 2 + q
    m[row, column] = m[column, row] = total
    for i in range(1, lags + 1 - s):
        enters, leaves = pad + lags + 1 - i, pad + n - i
        total += d[enters] * e[enters - s] - d[leaves] * e[leaves - s]
        row, column = 2 * i - 2 + p, 2 * (i + s) - 2 + q
        m[row, column] = m[column, row] = total


@inlined
def _enter_level(total, u, d, p, q, pad, n, lags, m):  # type: ignore[no-untyped-def]
    """Enter sum u_{t-1} d_{t-j} over t = lags + 1 .. n - 1 for every j, from the sum of u_{t-1} d_t over all bars."""
    for t in range(1, lags + 1):
        total -= u[t - 1] * d[pad + t]
    m[2 * lags + q, 2 * lags + 2 + p] = total
    for j in range(1, lags + 1):
        total += u[lags - j] * d[pad + lags + 1 - j] - u[n - 1 - j] * d[pad + n - j]
        value = total
        for i in range(1, j + 1):
            value += m[2 * i - 2 + p, 2 * j - 2 + q]
        m[2 * j - 2 + q, 2 * lags + 2 + p] = value


@inlined
def _moments(u, x, d, e, pad, n, lags, sums, m):  # type: ignore[no-untyped-def]
    """Centred products of [lagged changes, changes, lagged levels] over t = lags + 1 .. n - 1, upper triangle.

    ``sums`` are those of `_residual`, over all bars; u and x have the mean 0.
    """
    now, before = 2 * lags, 2 * lags + 2
    uu, ux, xx, ud, ue, xd, xe, dd, de, ee = sums
    for s in range(lags + 1):
        if s > 0:
            late, early = slice(pad + s + 1, pad + n), slice(pad + 1, pad + n - s)
            dd, de, ed, ee = _cross_products(d[late], e[late], d[early], e[early])
            _enter(ed, e, d, 1, 0, s, pad, n, lags, m)
        _enter(dd, d, d, 0, 0, s, pad, n, lags, m)
        _enter(de, d, e, 0, 1, s, pad, n, lags, m)
        _enter(ee, e, e, 1, 1, s, pad, n, lags, m)
    for t in range(lags):
        uu, ux, xx = uu - u[t] * u[t], ux - u[t] * x[t], xx - x[t] * x[t]
    m[before, before], m[before, before + 1], m[before + 1, before + 1] = uu, ux, xx
    _enter_level(ud, u, d, 0, 0, pad, n, lags, m)
    _enter_level(ue, u, e, 0, 1, pad, n, lags, m)
    _enter_level(xd, x, d, 1, 0, pad, n, lags, m)
    _enter_level(xe, x, e, 1, 1, pad, n, lags, m)
    totals = np.empty(2 * lags + 4)
    for p in range(2):
        level = u if p == 0 else x
        totals[before + p] = -level[n - 1]
        for t in range(lags):
            totals[before + p] -= level[t]
        for i in range(lags + 1):
            totals[now + p if i == 0 else 2 * i - 2 + p] = level[n - 1 - i] - level[lags - i]
    for row in range(2 * lags + 4):
        for column in range(row, 2 * lags + 4):
            m[row, column] -= totals[row] * totals[column] / (n - 1 - lags)


@inlined
def _traces(m, lags, count):  # type: ignore[no-untyped-def]
    """Trace statistics of no and of at most one cointegrating relation, from `_moments`.

    Partialling out the lagged changes and whitening changes and levels leaves a 2 x 2 matrix, whose squared
    singular values are the squared canonical correlations.
    """
    for j in range(2 * lags):
        _sweep(m, j, 2 * lags + 4)
    a, c = 2 * lags, 2 * lags + 2
    h = m[a, a + 1] / m[a, a]
    r0, r1 = 1.0 / np.sqrt(m[a, a]), 1.0 / np.sqrt(m[a + 1, a + 1] - h * m[a, a + 1])
    g = m[c, c + 1] / m[c, c]
    k0, k1 = 1.0 / np.sqrt(m[c, c]), 1.0 / np.sqrt(m[c + 1, c + 1] - g * m[c, c + 1])
    b00, b01 = m[a, c] * r0 * k0, (m[a, c + 1] - g * m[a, c]) * r0 * k1
    b10 = (m[a + 1, c] - h * m[a, c]) * r1 * k0
    b11 = (m[a + 1, c + 1] - h * m[a, c + 1] - g * (m[a + 1, c] - h * m[a, c])) * r1 * k1
    first, second, mixed = b00 * b00 + b01 * b01, b10 * b10 + b11 * b11, b00 * b10 + b01 * b11
    greater = 0.5 * (first + second + np.sqrt((first - second) ** 2 + 4.0 * mixed * mixed))
    lesser = (b00 * b11 - b01 * b10) ** 2 / greater
    last = -count * np.log1p(-lesser)
    return last - count * np.log1p(-greater), last


@kernel("void(f8[:, ::1], b1[::1], f8[::1], f8[:, ::1], i8[::1], i8, i8[:, ::1], f8[::1])")
def correlate_pairs(values, complete, floor, moves, sessions, horizon, pairs, out):  # type: ignore[no-untyped-def]
    """Correlation of the returns of pairs of columns, or of their levels where ``horizon`` is 0.

    Args:
        values, complete, floor: as in `cointegrate_pairs`.
        moves: (N, K) returns of the complete columns, of mean 0 and sum of squares 1.
        sessions: (T,) session of each bar.
        horizon: common bars of one session from one price to the next.
        pairs: (P, 2) columns.
        out: (P,); NaN where one of the two does not move.
    """
    bars = values.shape[1]
    ys, xs, ss = np.empty(bars), np.empty(bars), np.empty(bars, np.int64)
    for row in range(len(pairs)):
        i, j = pairs[row]
        if complete[i] and complete[j]:
            out[row] = _dot(moves[i], moves[j])
            continue
        n = _common(values[i], values[j], sessions, ys, xs, ss)
        if horizon > 0:
            n = _thin(ys, xs, ss, n, horizon)
        y, x = ys[:n], xs[:n]
        _centre(y)
        _centre(x)
        yy, xx = _dot(y, y), _dot(x, x)
        moving = yy > n * floor[i] and xx > n * floor[j]
        out[row] = _dot(y, x) / np.sqrt(yy * xx) if moving else np.nan


@kernel("void(f8[:, ::1], b1[::1], i8[:, ::1], f8[::1], i8, b1, f8[:, ::1])")
def describe_spreads(values, complete, pairs, slopes, johansen, hurst, out):  # type: ignore[no-untyped-def]
    """Hurst exponent of spreads and Johansen test of their legs.

    The Johansen test does not change when the dependent leg is replaced by the residual, and the residual
    is nearly orthogonal to the other leg, however collinear the prices: no digits are lost.

    Args:
        values: (N, T) columns, centred and scaled; NaN = absent.
        complete: (N,) whether a column has every bar.
        pairs: (P, 2) dependent and independent column.
        slopes: (P,) regression slopes between them; NaN = nothing is computed.
        johansen: lagged differences of the Johansen test, 0 for none.
        hurst: whether to estimate the Hurst exponent.
        out: (P, 3) Hurst exponent and trace statistics, NaN before; values that do not exist stay NaN.
    """
    bars, pad = values.shape[1], johansen + 1
    ys, xs, ss, u = np.empty(bars), np.empty(bars), np.empty(bars, np.int64), np.empty(bars)
    d, e = np.empty(pad + bars), np.empty(pad + bars)
    m = np.empty((2 * johansen + 4, 2 * johansen + 4))
    for row in range(len(pairs)):
        if np.isnan(slopes[row]):
            continue
        i, j = pairs[row]
        y, x, n = values[i], values[j], bars
        if not (complete[i] and complete[j]):
            n = _common(y, x, ss, ys, xs, ss)
            y, x = ys[:n], xs[:n]
            _centre(y)
            _centre(x)
        sums = _residual(y, x, slopes[row], u[:n], d[pad + 1 : pad + n], e[pad + 1 : pad + n])
        if hurst:
            out[row, 0] = _hurst(u, n)
        if johansen > 0 and n > 3 * johansen + 10:
            _moments(u, x, d, e, pad, n, johansen, sums, m)
            out[row, 1], out[row, 2] = _traces(m, johansen, n - 1 - johansen)
