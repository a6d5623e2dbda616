"""Kernel of the features: one pass over the rows of each symbol.

Rows are taken in chunks that stay in the processor's cache; each continues from the last ``tail`` rows of
the one before it, which is also how an append continues from stored rows. So the bits do not depend on
where a chunk or an append begins, provided that

- the expanding sums are added one row at a time, and
- the sum of a window depends on its own values only (`garch_platform.quant.window_kernels`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant import window_kernels
from garch_platform.quant.compiled import inlined, kernel
from garch_platform.quant.window_kernels import WORK_ROWS, window_moments, window_sums

__all__ = ["FEATURE_ROWS", "feature_rows", "first_disorder"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Sessions = NDArray[np.int32]
Entries = tuple[Floats, Integers, Floats, Integers]
"""Present closes and their rows, present returns and their rows, oldest first."""

FEATURE_ROWS = (
    "log_close",
    "log_return",
    "z_score",
    "rolling_mean",
    "rolling_std",
    "volatility_annualized",
    "ma_short",
    "ma_long",
    "rsi",
    "return_sum",
    "return_sum_squares",
)
"""Rows of the results of `feature_rows`."""

SESSIONS = "Array(i4, 1, 'C', readonly=True)"
CHUNK = 512
ROW, PRICES, RETURNS, LAST_ROW, SESSION = range(5)
"""Where a symbol stands: its next row, its numbers of entries, row and session of its last close."""
LOG_CLOSE = 3
"""State of a symbol: count, sum and sum of squares of its returns, and, here, its last log close."""
EPSILON = float(np.finfo(np.float64).eps)
NEARLY_CONSTANT = 1e-20
"""Squared deviations over the squared sum below which a window is looked at value by value."""


@inlined
def _forget(count: int, oldest: int, rows: Integers, values: Floats) -> int:
    """Drop the entries of rows before ``oldest``; the number that is left."""
    first = 0
    while first < count and rows[first] < oldest:
        first += 1
    rows[: count - first] = rows[first:count].copy()
    values[: count - first] = values[first:count].copy()
    return count - first


@inlined
def _recall(
    known: Floats, session: Sessions, tail: int, entries: Entries, place: Integers, state: Floats
) -> None:
    """Fill the entries and the state from stored rows (columns of ``known``), the last ``tail`` of them."""
    prices, price_rows, returns, return_rows = entries
    row, n_prices, n_returns = 0, 0, 0
    place[LAST_ROW], place[SESSION] = -tail - 1, 0
    state[:] = 0.0
    for k in range(max(0, len(session) - tail), len(session)):
        if math.isfinite(known[0, k]):
            prices[n_prices], price_rows[n_prices] = known[1, k], row
            n_prices += 1
            state[LOG_CLOSE], place[LAST_ROW], place[SESSION] = known[0, k], row, session[k]
        if math.isfinite(known[2, k]):
            returns[n_returns], return_rows[n_returns] = known[2, k], row
            n_returns += 1
        state[:LOG_CLOSE] = known[3:, k]
        row += 1
    place[ROW], place[PRICES], place[RETURNS] = row, n_prices, n_returns


@inlined
def _take(
    log_close: Floats,
    price: Floats,
    session: Sessions,
    tail: int,
    intraday: bool,
    entries: Entries,
    newest: Integers,
    place: Integers,
    state: Floats,
    before: Floats,
    log_returns: Floats,
    totals: Floats,
    sums: Floats,
    counts: Integers,
) -> None:
    """Append a chunk's closes and returns to the entries, row by row, with the expanding sums."""
    prices, price_rows, returns, return_rows = entries
    n_prices, n_returns, last_row, last_session = (
        place[PRICES],
        place[RETURNS],
        place[LAST_ROW],
        place[SESSION],
    )
    count, total, squares, last_log = state[0], state[1], state[2], state[LOG_CLOSE]
    for i in range(len(log_close)):
        row = place[ROW] + i
        before[0, i], before[1, i], before[2, i] = count, total, squares
        log_returns[i] = np.nan
        newest[0, i], newest[1, i] = -1, -1
        if math.isfinite(log_close[i]):
            if row - last_row <= tail and (not intraday or session[i] == last_session):
                change = log_close[i] - last_log
                log_returns[i] = change
                returns[n_returns], return_rows[n_returns] = change, row
                n_returns += 1
                count, total, squares = count + 1.0, total + change, squares + change * change
            prices[n_prices], price_rows[n_prices] = price[i], row
            n_prices += 1
            newest[0, i], newest[1, i] = n_prices - 1, n_returns - 1
            last_log, last_row, last_session = log_close[i], row, session[i]
        else:
            log_close[i] = np.nan
        totals[i], sums[i], counts[i] = total, squares, count
    place[PRICES], place[RETURNS], place[LAST_ROW], place[SESSION] = (
        n_prices,
        n_returns,
        last_row,
        last_session,
    )
    state[0], state[1], state[2], state[LOG_CLOSE] = count, total, squares, last_log


@inlined
def _z_scores(log_return: Floats, before: Floats, min_periods: int, z_score: Floats) -> None:
    """Return in deviations of the returns before it; ``before`` are their count, sum and sum of squares.

    The sums lose about ``count`` units in the last place; a variance below that is no variance.
    """
    counts, totals, sums = before[0], before[1], before[2]
    for i in range(len(log_return)):
        count, total, squares = counts[i], totals[i], sums[i]
        n = max(count, 2.0)
        deviation = squares - total * total / n
        known = (count >= min_periods) & (deviation > 4.0 * EPSILON * n * squares)
        score = (log_return[i] - total / n) / math.sqrt(deviation / (n - 1.0))
        z_score[i] = score if known else np.nan


@inlined
def _mean_and_deviation(values: Floats, length: int, sums: Floats, work: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation (ddof 1; exactly 0 for equal values) of all runs of ``length`` values."""
    mean, deviation = window_moments(values, length, sums[0], sums[1], work)
    suspects = 0
    for i in range(len(mean)):
        suspects += deviation[i] <= NEARLY_CONSTANT * mean[i] * mean[i]
    if suspects:
        for i in range(len(mean)):
            constant = deviation[i] <= NEARLY_CONSTANT * mean[i] * mean[i]
            if constant and np.all(values[i : i + length] == values[i]):
                deviation[i] = 0.0
    for i in range(len(mean)):
        mean[i] /= length
        deviation[i] = math.sqrt(deviation[i] / (length - 1))
    return mean, deviation


@inlined
def _mean(values: Floats, length: int, sums: Floats, work: Floats) -> Floats:
    """Mean of all runs of ``length`` values."""
    mean = window_sums(values, length, sums[0], work)
    for i in range(len(mean)):
        mean[i] /= length
    return mean


@inlined
def _relative_strength(price: Floats, length: int, sums: Floats, work: Floats) -> Floats:
    """100 x gains / (gains + losses) of all runs of ``length`` price changes."""
    changes = max(0, len(price) - 1)
    gain, loss, later = sums[2][:changes], sums[3][:changes], price[1:]
    for i in range(changes):
        change = later[i] - price[i]
        gain[i], loss[i] = max(change, 0.0), max(-change, 0.0)
    gains = window_sums(gain, length, sums[0], work)
    losses = window_sums(loss, length, sums[1], work)
    for i in range(len(gains)):
        moves = gains[i] + losses[i]
        share = 100.0 * gains[i] / moves
        gains[i] = share if moves > 0.0 else np.nan
    return gains


@inlined
def _on_rows(
    windowed: Floats, length: int, newest: Integers, rows: Integers, row: int, tail: int, result: Floats
) -> None:
    """Give each row from ``row`` on the window that ends at its newest entry and is recent enough.

    ``windowed[k]`` spans entries k .. k + length - 1, which lie on ``rows``; a row without a close (newest
    entry -1) has none.
    """
    last, before = newest[len(result) - 1], newest[0] - (length - 1)
    if before >= 0 and last - before == row + len(result) - 1 - rows[before]:
        result[:] = windowed[before : before + len(result)]
        return
    for i in range(len(result)):
        oldest = newest[i] - (length - 1)
        known = oldest >= 0 and row + i - rows[oldest] <= tail
        result[i] = windowed[oldest] if known else np.nan


@inlined
def _windows(
    lengths: Integers,
    annual: float,
    entries: Entries,
    newest: Integers,
    place: Integers,
    sums: Floats,
    work: Floats,
    results: Floats,
    begin: int,
    end: int,
) -> None:
    """The windowed features of a chunk whose closes and returns have been taken."""
    rolling, _, ma_short, ma_long, rsi_window, tail = lengths
    prices, price_rows, returns, return_rows = entries
    prices, returns = prices[: place[PRICES]], returns[: place[RETURNS]]
    row = place[ROW]
    mean, deviation = _mean_and_deviation(returns, rolling, sums, work)
    _on_rows(mean, rolling, newest[1], return_rows, row, tail, results[3][begin:end])
    _on_rows(deviation, rolling, newest[1], return_rows, row, tail, results[4][begin:end])
    std, volatility = results[4][begin:end], results[5][begin:end]
    for i in range(len(std)):
        volatility[i] = std[i] * annual
    _on_rows(
        _mean(prices, ma_short, sums, work), ma_short, newest[0], price_rows, row, tail, results[6][begin:end]
    )
    _on_rows(
        _mean(prices, ma_long, sums, work), ma_long, newest[0], price_rows, row, tail, results[7][begin:end]
    )
    strength = _relative_strength(prices, rsi_window, sums, work)
    _on_rows(strength, rsi_window + 1, newest[0], price_rows, row, tail, results[8][begin:end])


@kernel("i8(i8[::1], Array(i8, 1, 'C', readonly=True))")
def first_disorder(starts: Integers, time: Integers) -> int:
    """First row whose time is not after the row before it in its symbol, or -1."""
    for symbol in range(len(starts) - 1):
        for row in range(starts[symbol] + 1, starts[symbol + 1]):
            if time[row] <= time[row - 1]:
                return row
    return -1


@kernel(
    f"void(f8[::1], {SESSIONS}, i8[::1], f8[:, ::1], {SESSIONS}, i8[::1], i8[::1], f8, b1, "
    "f8[:, ::1], i8[::1])",
    uses=(window_kernels,),
)
def feature_rows(
    price: Floats,
    session: Sessions,
    starts: Integers,
    known: Floats,
    known_session: Sessions,
    known_starts: Integers,
    lengths: Integers,
    annual: float,
    intraday: bool,
    results: Floats,
    counts: Integers,
) -> None:
    """Features of the rows of S symbols.

    Args:
        price, session: (T,) new rows in order of symbol and time.
        starts: (S + 1,) rows at which the symbols begin, and T.
        known: (6, M) earlier rows: log close, price, log return, and count, sum and sum of squares of the
            returns up to and including the row.
        known_session, known_starts: as ``session`` and ``starts``.
        lengths: rolling window, min_periods, short and long moving average, RSI window, tail.
        annual: square root of the bars in a year.
        intraday: whether a session's first present bar has no return.
        results: (11, T), filled with `FEATURE_ROWS`; NaN where there is no value. The first row holds the
            log closes, which count as absent where they are not finite.
        counts: (T,), filled with the number of returns up to and including each row.
    """
    tail = lengths[5]
    chunk = max(CHUNK, 2 * tail)
    room = chunk + tail
    entries = (np.empty(room), np.empty(room, np.int64), np.empty(room), np.empty(room, np.int64))
    sums, work = np.empty((4, room)), np.empty((WORK_ROWS, room))
    before, state = np.empty((3, chunk)), np.empty(4)
    newest, place = np.empty((2, chunk), np.int64), np.empty(5, np.int64)
    for symbol in range(len(starts) - 1):
        since, until = known_starts[symbol], known_starts[symbol + 1]
        _recall(known[:, since:until], known_session[since:until], tail, entries, place, state)
        for begin in range(starts[symbol], starts[symbol + 1], chunk):
            end = min(begin + chunk, starts[symbol + 1])
            place[PRICES] = _forget(place[PRICES], place[ROW] - tail, entries[1], entries[0])
            place[RETURNS] = _forget(place[RETURNS], place[ROW] - tail, entries[3], entries[2])
            log_return = results[1][begin:end]
            _take(
                results[0][begin:end],
                price[begin:end],
                session[begin:end],
                tail,
                intraday,
                entries,
                newest,
                place,
                state,
                before,
                log_return,
                results[9][begin:end],
                results[10][begin:end],
                counts[begin:end],
            )
            _z_scores(log_return, before, lengths[1], results[2][begin:end])
            _windows(lengths, annual, entries, newest, place, sums, work, results, begin, end)
            place[ROW] += end - begin
