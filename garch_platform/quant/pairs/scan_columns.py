"""Log prices as the pair kernels want them: one contiguous row a symbol, centred and of moderate size.

Rows are scaled by powers of two, which changes no digit, so that neither 1e-12 nor 1e12 as a unit of the
log prices leaves the range in which sums of squares and of sixth powers are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError

__all__ = ["ScanColumns", "even_slices", "require_at_least", "row_squares"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CONSTANT: Final = 1e-12
"""Standard deviation, as a share of a series' largest value, up to which it counts as constant."""
MOST_BINARY_PLACES: Final = 1000
"""A scale beyond 2 to this power would itself overflow."""
SLICES: Final = 4
"""Slices of work per thread."""


@dataclass(frozen=True)
class ScanColumns:
    """The series of a panel, one a row.

    Attributes:
        values: (N, T); NaN = absent. A log price is ``centre + values * 2 ** exponent``.
        complete: (N,) whether a series has every bar.
        squares: (N,) sum of squares of the present values.
        floor: (N,) mean square up to which a series counts as constant.
        centre: (N,) mean of the present log prices.
        exponent: (N,) power of two of the scale.
    """

    values: Floats
    complete: NDArray[np.bool_]
    squares: Floats
    floor: Floats
    centre: Floats
    exponent: NDArray[np.int32]

    @classmethod
    def read(cls, log_prices: Floats) -> ScanColumns:
        """Centre and scale the columns of a (T, N) panel.

        Raises:
            DataError: the panel is not two-dimensional.
        """
        panel = np.asarray(log_prices, np.float64)
        if panel.ndim != 2:
            raise DataError(
                f"log_prices have {panel.ndim} dimensions; give one row a bar, one column a series"
            )
        values = np.array(panel.T, order="C")
        present = np.isfinite(values)
        count = present.sum(axis=1)
        complete = count == values.shape[1]
        gaps = None if complete.all() else ~present
        _fill(values, gaps, 0.0)
        largest = _largest(values)
        centre = np.zeros(len(values))
        # The mean of large levels is rounded; what is left of it goes in a second step.
        for _ in range(2):
            step = values.sum(axis=1) / np.maximum(count, 1)
            centre += step
            values -= step[:, np.newaxis]
            _fill(values, gaps, 0.0)
        exponent = np.clip(np.frexp(_largest(values))[1], -MOST_BINARY_PLACES, MOST_BINARY_PLACES)
        values *= np.ldexp(1.0, -exponent)[:, np.newaxis]
        squares = row_squares(values)
        _fill(values, gaps, np.nan)
        floor = np.square(np.ldexp(CONSTANT * largest, -exponent))
        return cls(values, complete, squares, floor, centre, exponent)

    def pairs(self, pairs: Integers) -> Integers:
        """(P, 2) columns, checked.

        Raises:
            DataError: a column is not there, or is paired with itself.
        """
        chosen = np.ascontiguousarray(np.asarray(pairs, np.int64).reshape(-1, 2))
        count = len(self.values)
        wrong = (chosen < 0).any(axis=1) | (chosen >= count).any(axis=1) | (chosen[:, 0] == chosen[:, 1])
        if wrong.any():
            first = chosen[wrong][0].tolist()
            raise DataError(f"pairs name {first}; give two different columns of 0 to {count - 1}")
        return chosen

    def raw_regression(self, legs: Integers, slope: Floats, means: Floats) -> tuple[Floats, Floats]:
        """Hedge ratio and intercept of log prices, from a regression of scaled rows.

        Args:
            legs: (P, 2) dependent and independent row.
            slope: (P,) between the scaled rows.
            means: (P, 2) means of the scaled rows over the common bars; NaN = 0.

        Returns:
            (P,) each; NaN where there is no slope or the ratio exceeds the range of floats.
        """
        y, x = legs.T
        with np.errstate(over="ignore"):
            hedge_ratio = np.ldexp(slope, self.exponent[y] - self.exponent[x])
        hedge_ratio[np.isinf(hedge_ratio)] = np.nan
        level_y, level_x = (
            self.centre[leg] + np.ldexp(np.nan_to_num(means[:, at]), self.exponent[leg])
            for at, leg in enumerate((y, x))
        )
        return hedge_ratio, level_y - hedge_ratio * level_x


def row_squares(rows: Floats) -> Floats:
    """(N,) sums of squares of the rows, each summed alike wherever it stands."""
    return np.array([np.sum(row * row) for row in rows], np.float64)


def _fill(values: Floats, where: NDArray[np.bool_] | None, value: float) -> None:
    if where is not None:
        values[where] = value


def _largest(values: Floats) -> Floats:
    """(N,) largest magnitude of each row, 0 of none."""
    if not values.shape[1]:
        return np.zeros(len(values))
    return np.maximum(values.max(axis=1), -values.min(axis=1))


def require_at_least(least: int, **options: int) -> None:
    """Refuse an option below ``least``.

    Raises:
        ConfigurationError: one is.
    """
    for name, value in options.items():
        if value < least:
            raise ConfigurationError(f"{name} {value} is less than {least}; give {least} or more")


def even_slices(count: int, workers: int) -> list[slice]:
    """Slices of ``count`` items: one for one worker, else several a worker, so that none waits long."""
    size = max(1, -(-count // (SLICES * workers if workers > 1 else 1)))
    return [slice(start, start + size) for start in range(0, count, size)]
