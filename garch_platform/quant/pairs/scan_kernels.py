"""Kernels of the cointegration tests: regression of one leg on the other, Dickey-Fuller on its residual.

The residual u of a cointegrating regression is formed bar by bar, so that nothing cancels, and everything
else follows from few sums over it. With d_t = u_t - u_{t-1}, a Dickey-Fuller regression with p lags needs
the products sum d_t d_{t-m}, m = 0..p, of the whole sample; each entry of its normal equations is one of
them less a few products at the two edges. Eliminating the lagged differences one after the other, with the
level u_{t-1} and the response d_t last, leaves after each step the residual sum of squares of the
regression with the lags so far: one elimination serves every lag length. Where the normal equations have
lost too many digits, the regression is repeated by orthogonalisation of its columns.

The columns come centred and scaled by powers of two, which changes no bit of a statistic.
"""

from __future__ import annotations

import numpy as np

from garch_platform.quant.compiled import inlined, kernel

__all__ = [
    "CODE",
    "COLLINEAR",
    "CONSTANT",
    "CORRELATION",
    "COUNT",
    "FIRST",
    "HALF_LIFE",
    "KSS",
    "LAGS",
    "MEAN_X",
    "MEAN_Y",
    "PER_SIDE",
    "SHORT",
    "SINGULAR",
    "SLOPE",
    "STATISTIC",
    "WIDTH",
    "cointegrate_pairs",
    "dickey_fuller",
]

SUMS = frozenset({"reassoc", "contract"})
"""Sums in the order of the processor's vectors: the same for every pair, more exact than in sequence."""

SHORT, CONSTANT, COLLINEAR, SINGULAR = 1, 2, 3, 4
"""Why a pair was not tested; 0 = it was."""

CODE, COUNT, MEAN_Y, MEAN_X, CORRELATION, KSS, FIRST = range(7)
STATISTIC, LAGS, SLOPE, HALF_LIFE, PER_SIDE = range(5)
WIDTH = FIRST + 2 * PER_SIDE
"""Columns of a result: of the pair, then PER_SIDE of each direction from FIRST on."""

FEWEST = 30
"""Fewest common bars that are tested."""
SAME = 100.0 * np.sqrt(np.finfo(np.float64).eps)
"""1 - R^2 up to which two legs count as one series (1.5e-6, the limit of statsmodels)."""

LOST = 1e-6
"""Share of a column that elimination must leave; with less, the regression is done by orthogonalisation."""
DEPENDENT = 1e-22
"""Squared share of a column that orthogonalisation must leave for it to count as independent."""
LANES = 32
"""Columns of a matrix are rounded up to a multiple of this, so that its rows fill vectors."""
SHIFTS = 16
"""Lags whose products are summed in one pass."""


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


@kernel("UniTuple(f8, 4)(f8[::1], f8[::1], f8, f8[::1], f8[::1])", fastmath=SUMS)
def _residual(y, x, slope, u, d):  # type: ignore[no-untyped-def]
    """u = y - slope x and its changes d; returns the sums of u_t^2, u_{t-1} d_t, d_t^2 and d_t d_{t-1}."""
    u[0], u[1] = y[0] - slope * x[0], y[1] - slope * x[1]
    d[0] = u[1] - u[0]
    squares, cross, changes, lagged = u[0] * u[0] + u[1] * u[1], u[0] * d[0], d[0] * d[0], 0.0
    y1, x1, y2, x2, u2, d1 = y[1:], x[1:], y[2:], x[2:], u[2:], d[1:]
    for t in range(len(d1)):
        before = y1[t] - slope * x1[t]
        after = y2[t] - slope * x2[t]
        change = after - before
        u2[t], d1[t] = after, change
        squares += after * after
        cross += before * change
        changes += change * change
        lagged += change * (before - (y[t] - slope * x[t]))
    return squares, cross, changes, lagged


@kernel("void(f8[::1], f8[::1], f8[::1])", fastmath=SUMS)
def _sixteen_products(a, b, out):  # type: ignore[no-untyped-def]
    """out[4 q + m] = sum a[t + 4 q] b[t + 3 - m], q and m = 0..3: four loads by four make sixteen sums."""
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = 0.0
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = 0.0
    a1, a2, a3 = a[4:], a[8:], a[12:]
    b1, b2, b3 = b[1:], b[2:], b[3:]
    for t in range(len(a) - 12):
        s00 += a[t] * b3[t]
        s01 += a[t] * b2[t]
        s02 += a[t] * b1[t]
        s03 += a[t] * b[t]
        s10 += a1[t] * b3[t]
        s11 += a1[t] * b2[t]
        s12 += a1[t] * b1[t]
        s13 += a1[t] * b[t]
        s20 += a2[t] * b3[t]
        s21 += a2[t] * b2[t]
        s22 += a2[t] * b1[t]
        s23 += a2[t] * b[t]
        s30 += a3[t] * b3[t]
        s31 += a3[t] * b2[t]
        s32 += a3[t] * b1[t]
        s33 += a3[t] * b[t]
    out[0], out[1], out[2], out[3] = s00, s01, s02, s03
    out[4], out[5], out[6], out[7] = s10, s11, s12, s13
    out[8], out[9], out[10], out[11] = s20, s21, s22, s23
    out[12], out[13], out[14], out[15] = s30, s31, s32, s33


@inlined
def _lagged_products(d, pad, n, lags, out):  # type: ignore[no-untyped-def]
    """out[m] = sum of d[t] d[t - m], m = 0..lags and a few more; d is zero around its n values from pad."""
    base = 0
    while base <= lags:
        if lags - base < 5:
            out[base] = _dot(d[pad : pad + n], d[pad - base : pad - base + n])
            base += 1
        else:
            start = pad - base - 3
            _sixteen_products(d[pad : pad + n + 12], d[start : start + n + 3], out[base : base + SHIFTS])
            base += SHIFTS


@inlined
def _sweep(a, j, size):  # type: ignore[no-untyped-def]
    """Eliminate row j of a symmetric matrix, of which the upper triangle counts, from later rows and row 0."""
    pivot, inverse = a[j], 1.0 / a[j, j]
    for i in range(j + 1, size + 1):
        row = a[i if i < size else 0]
        factor = (pivot[i] if i < size else row[j]) * inverse
        for c in range(len(row)):
            row[c] -= factor * pivot[c]


@inlined
def _normal_equations(u, d, pad, n, lags, products, squares, cross, a, edges):  # type: ignore[no-untyped-def]
    """Upper triangle of the products of [d_t, d_{t-1} .. d_{t-lags}, u_{t-1}] over t = lags + 1 .. n - 1.

    ``products``, ``squares`` and ``cross`` are the sums of d_t d_{t-m}, u_t^2 and u_{t-1} d_t over all bars.
    Returns whether enough of each sum is left when the bars outside the window are taken out.
    """
    level, width = lags + 1, a.shape[1]
    head, tail = edges[0], edges[1]
    head[:] = 0.0
    for i in range(1, lags + 1):
        head[i], tail[i] = d[pad + lags + 1 - i], d[pad + n - i]
    first = a[0]
    first[:] = products[:width]
    for i in range(1, lags + 1):
        factor, shifted = head[i], head[i : i + width]
        for m in range(width):
            first[m] -= factor * shifted[m]
    for i in range(1, lags + 1):
        enters, leaves = head[i], tail[i]
        above, here, heads, tails = a[i - 1, : width - 1], a[i, 1:], head[1:width], tail[1:width]
        for c in range(width - 1):
            here[c] = above[c] + enters * heads[c] - leaves * tails[c]
    for t in range(1, lags + 1):
        cross -= u[t - 1] * d[pad + t]
    a[0, level] = cross
    for j in range(1, lags + 1):
        cross += u[lags - j] * head[j] - u[n - 1 - j] * tail[j]
        total = cross
        for i in range(1, j + 1):
            total += a[i, j]
        a[j, level] = total
    left = squares - u[n - 1] * u[n - 1]
    for t in range(lags):
        left -= u[t] * u[t]
    a[level, level] = left
    sound = left > LOST * squares
    for j in range(lags + 1):
        sound = sound and a[j, j] > LOST * products[0]
    return sound


@inlined
def _regress(a, lags, rss, diagonal):  # type: ignore[no-untyped-def]
    """Eliminate the lagged differences; rss[k] is then the residual sum of squares with k lags.

    Returns whether no column lost too many digits.
    """
    level, total = lags + 1, a[0, 0]
    for j in range(lags + 2):
        diagonal[j] = a[j, j]
    for j in range(lags + 1):
        left = a[level, level]
        rss[j] = total - a[0, level] * a[0, level] / left
        if not (left > LOST * diagonal[level] and rss[j] > LOST * diagonal[0]):
            return False
        if j < lags:
            if not a[j + 1, j + 1] > LOST * diagonal[j + 1]:
                return False
            total -= a[0, j + 1] * a[0, j + 1] / a[j + 1, j + 1]
            _sweep(a, j + 1, lags + 2)
    return True


@inlined
def _orthogonalise(u, d, pad, n, lags, rss):  # type: ignore[no-untyped-def]
    """The same regression by modified Gram-Schmidt; the level's t-statistic, NaN if columns are dependent."""
    count = n - 1 - lags
    level, response = lags, lags + 1
    columns = np.empty((lags + 2, count))
    whole = np.empty(lags + 2)
    for j in range(lags + 2):
        for t in range(count):
            if j == level:
                columns[j, t] = u[lags + t]
            else:
                columns[j, t] = d[pad + lags + t - (-1 if j == response else j)]
        whole[j] = _dot(columns[j], columns[j])
    slope = left = 0.0
    for j in range(lags + 1):
        left = _dot(columns[level], columns[level])
        if not left > DEPENDENT * whole[level]:
            return np.nan
        slope = _dot(columns[level], columns[response]) / left
        rss[j] = 0.0
        for t in range(count):
            error = columns[response, t] - slope * columns[level, t]
            rss[j] += error * error
        if not rss[j] > DEPENDENT * whole[response]:
            return np.nan
        if j < lags:
            norm = _dot(columns[j], columns[j])
            if not norm > DEPENDENT * whole[j]:
                return np.nan
            for i in range(j + 1, lags + 2):
                share = _dot(columns[j], columns[i]) / norm
                for t in range(count):
                    columns[i, t] -= share * columns[j, t]
    return slope * np.sqrt(left * (count - lags - 1) / rss[lags])


@inlined
def _dickey_fuller(u, d, pad, n, lags, criterion, sums, products, a, edges, rss, diagonal):  # type: ignore[no-untyped-def]
    """t-statistic of u_{t-1} and the lags used; NaN if the regression is singular.

    Lags are compared on the bars that all of them have, and the regression is then fitted to every bar
    that the chosen number allows, as in statsmodels' adfuller.
    """
    squares, cross, products[0], products[1] = sums
    if lags > 1:
        _lagged_products(d, pad, n, lags, products)
    used, statistic = lags, np.nan
    for stage in range(2 if criterion > 0 else 1):
        sound = _normal_equations(u, d, pad, n, used, products, squares, cross, a, edges)
        if sound and _regress(a, used, rss, diagonal):
            freedom = n - 2 - 2 * used
            statistic = a[0, used + 1] / np.sqrt(a[used + 1, used + 1] * rss[used] / freedom)
        else:
            statistic = _orthogonalise(u, d, pad, n, used, rss)
        if not np.isfinite(statistic):
            return np.nan, used
        if criterion > 0 and stage == 0:
            count = n - 1 - lags
            penalty = 2.0 if criterion == 1 else np.log(count)
            best = np.inf
            for k in range(lags + 1):
                value = count * np.log(rss[k]) + penalty * (k + 1)
                if value < best:
                    best, used = value, k
    return statistic, used


@inlined
def _smooth_transition(u, n, lags, d, pad, products, squares, cube, a, edges, rss, diagonal):  # type: ignore[no-untyped-def]
    """t-statistic of u_{t-1}^3 in the regression of d_t on it and ``lags`` earlier changes."""
    for t in range(n - 1):
        cube[t] = u[t] * u[t] * u[t]
    _normal_equations(u, d, pad, n, lags, products, squares, 0.0, a, edges)
    seen = cube[lags : n - 1]
    level = lags + 1
    a[level, level] = _dot(seen, seen)
    for j in range(lags + 1):
        a[j, level] = _dot(seen, d[pad + level - j : pad + n - j])
    if not _regress(a, lags, rss, diagonal):
        return np.nan
    return a[0, level] / np.sqrt(a[level, level] * rss[lags] / (n - 2 - 2 * lags))


@inlined
def _common(y, x, ys, xs):  # type: ignore[no-untyped-def]
    """Gather the bars that both legs have; returns their number."""
    n = 0
    for t in range(len(y)):
        ys[n], xs[n] = y[t], x[t]
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
def _half_life(u, n, squares, cross):  # type: ignore[no-untyped-def]
    """ln 2 / -ln phi of the autoregression with a constant of a residual whose sum is 0."""
    before = squares - u[n - 1] * u[n - 1]
    power = before - u[n - 1] * u[n - 1] / (n - 1)
    slack = (cross + u[n - 1] * (u[n - 1] - u[0]) / (n - 1)) / power
    return np.log(2.0) / -np.log1p(slack) if -1.0 < slack < 0.0 else np.nan


@kernel("void(f8[:, ::1], b1[::1], f8[::1], f8[::1], i8[:, ::1], i8, i8, b1, b1, f8[:, ::1])")
def cointegrate_pairs(  # type: ignore[no-untyped-def]  # noqa: C901
    values, complete, squares, floor, pairs, criterion, lags, both, kss, out
):
    """Test pairs of columns; one row of ``out`` each, see `WIDTH`.

    Args:
        values: (N, T) columns, centred and scaled; NaN = absent.
        complete: (N,) whether a column has every bar.
        squares: (N,) sum of squares of the complete columns.
        floor: (N,) mean square up to which a column counts as constant.
        pairs: (P, 2) dependent and independent column.
        criterion: 0 for ``lags`` lagged differences, 1 or 2 to choose at most ``lags`` by AIC or BIC.
        lags: as above; -1 stands for Schwert's ceil(12 (n / 100)^(1/4)).
        both: test the other direction too.
        kss: whether to test the better direction for smooth-transition reversion.
        out: (P, `WIDTH`), NaN before; values that do not exist stay NaN.
    """
    bars = values.shape[1]
    most = lags if lags >= 0 else int(np.ceil(12.0 * (bars / 100.0) ** 0.25))
    pad = most + SHIFTS + 4
    ys, xs, cube = np.empty(bars), np.empty(bars), np.empty(bars)
    levels, changes, squared = np.empty((2, bars)), np.zeros((2, pad + bars + SHIFTS)), np.empty(2)
    width = LANES * ((most + 2 + LANES - 1) // LANES)
    products, edges, rss = np.zeros((2, width + SHIFTS)), np.zeros((2, 2 * width)), np.empty(most + 1)
    a, diagonal = np.zeros((most + 2, width)), np.empty(most + 2)
    for row in range(len(pairs)):
        i, j = pairs[row]
        y, x = values[i], values[j]
        n, yy, xx = bars, squares[i], squares[j]
        result = out[row]
        if not (complete[i] and complete[j]):
            n = _common(y, x, ys, xs)
            y, x = ys[:n], xs[:n]
            result[MEAN_Y], result[MEAN_X] = _centre(y), _centre(x)
            yy, xx = _dot(y, y), _dot(x, x)
        result[COUNT] = n
        chosen = lags
        if lags < 0:
            chosen = min(n // 2 - 1, int(np.ceil(12.0 * (n / 100.0) ** 0.25)))
        if n < max(FEWEST, 3 * lags + 10):
            result[CODE] = SHORT
            continue
        if not (yy > n * floor[i] and xx > n * floor[j]):
            result[CODE] = CONSTANT
            continue
        yx = _dot(y, x)
        result[CORRELATION] = yx / np.sqrt(yy * xx)
        better, code = 0, 0.0
        for side in range(2 if both else 1):
            target, other_leg, total, power = (y, x, yy, xx) if side == 0 else (x, y, xx, yy)
            u, at = levels[side], FIRST + side * PER_SIDE
            slope = yx / power
            d = changes[side]
            d[pad + n : pad + n + SHIFTS] = 0.0
            sums = _residual(target, other_leg, slope, u[:n], d[pad + 1 : pad + n])
            left = sums[0]
            squared[side], result[at + SLOPE] = left, slope
            if not left > SAME * total:
                code = COLLINEAR
                break
            statistic, used = _dickey_fuller(
                u, d, pad, n, chosen, criterion, sums, products[side], a, edges, rss, diagonal
            )
            if np.isnan(statistic):
                code = SINGULAR
                break
            result[at + STATISTIC], result[at + LAGS] = statistic, used
            result[at + HALF_LIFE] = _half_life(u, n, left, sums[1])
            if side == 1 and statistic < result[FIRST + STATISTIC]:
                better = 1
        result[CODE] = code
        if code > 0.0:
            for side in range(2):
                at = FIRST + side * PER_SIDE
                result[at + STATISTIC] = result[at + LAGS] = result[at + HALF_LIFE] = np.nan
        elif kss:
            used = int(result[FIRST + better * PER_SIDE + LAGS])
            result[KSS] = _smooth_transition(
                levels[better], n, used, changes[better], pad, products[better], squared[better],
                cube, a, edges, rss, diagonal,
            )  # fmt: skip


@kernel("void(f8[:, ::1], i8, f8[::1])")
def dickey_fuller(values, lags, out):  # type: ignore[no-untyped-def]
    """Dickey-Fuller statistic, without constant, of each row's present bars; NaN where there is none."""
    bars = values.shape[1]
    pad = lags + SHIFTS + 4
    present, copy, d = np.empty(bars), np.empty(bars), np.zeros(pad + bars + SHIFTS)
    width = LANES * ((lags + 2 + LANES - 1) // LANES)
    products, edges, rss = np.zeros(width + SHIFTS), np.zeros((2, 2 * width)), np.empty(lags + 1)
    a, diagonal = np.zeros((lags + 2, width)), np.empty(lags + 2)
    for row in range(len(values)):
        u, n = values[row], bars
        if not np.isfinite(_sum(u)):
            u, n = present, 0
            for t in range(bars):
                u[n] = values[row, t]
                n += np.isfinite(u[n])
        out[row] = np.nan
        if n >= max(FEWEST, 3 * lags + 10):
            d[pad + n : pad + n + SHIFTS] = 0.0
            sums = _residual(u[:n], u[:n], 0.0, copy[:n], d[pad + 1 : pad + n])
            statistic, _ = _dickey_fuller(u, d, pad, n, lags, 0, sums, products, a, edges, rss, diagonal)
            out[row] = statistic
