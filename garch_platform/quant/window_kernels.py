"""Sums and squared deviations of rolling windows, compiled into the kernels that use them.

The sum of a window depends on its own values only: it is put together from sums of 1, 2, 4, 8 ...
consecutive values, always in the same way, at about 2 log2(length) additions for each window. So a window
has the same bits wherever it is computed, nothing drifts, and rounding errors stay small. Sums of squared
deviations are merged likewise, with the update of Chan, Golub and LeVeque [1]_: nothing cancels.

References
----------
.. [1] Chan, T. F., Golub, G. H. and LeVeque, R. J. (1983), "Algorithms for computing the sample variance:
   analysis and recommendations", The American Statistician 37, 242-247.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant.compiled import inlined

__all__ = ["WORK_ROWS", "window_moments", "window_sums"]

Floats = NDArray[np.float64]

WORK_ROWS = 4
"""Rows of the scratch array, each as long as the values."""
ALTERNATE = 0x5555555555555555
"""Every other power of two: doublings write to one array and the other in turn."""


@inlined
def window_sums(values: Floats, length: int, sums: Floats, work: Floats) -> Floats:
    """Sums of all runs of ``length`` values; a view of ``sums``."""
    result = sums[: max(0, len(values) - length + 1)]
    result[:] = 0.0
    power, other = values, work[0]
    width, offset = 1, 0
    while width <= length:
        if length & width:
            part = power[offset : offset + len(result)]
            for i in range(len(result)):
                result[i] += part[i]
            offset += width
        doubled, later = other[: max(0, len(power) - width)], power[width:]
        for i in range(len(doubled)):
            doubled[i] = power[i] + later[i]
        other = work[1] if width & ALTERNATE else work[0]
        power = doubled
        width *= 2
    return result


@inlined
def window_moments(
    values: Floats, length: int, sums: Floats, deviations: Floats, work: Floats
) -> tuple[Floats, Floats]:
    """Sums, and sums of squared deviations from the mean, of all runs of ``length`` values."""
    windows = max(0, len(values) - length + 1)
    total, deviation = sums[:windows], deviations[:windows]
    total[:] = 0.0
    deviation[:] = 0.0
    power, other = values, work[0]
    squares, spare = work[2][: len(values)], work[3]
    squares[:] = 0.0
    width, offset = 1, 0
    while width <= length:
        if length & width:
            part, inside = power[offset : offset + windows], squares[offset : offset + windows]
            weight, scale, share = offset * width / (offset + width), 1.0 / max(offset, 1), 1.0 / width
            for i in range(windows):
                gap = total[i] * scale - part[i] * share
                deviation[i] += inside[i] + weight * gap * gap
                total[i] += part[i]
            offset += width
        doubled, within = other[: max(0, len(power) - width)], spare[: max(0, len(power) - width)]
        later, inside = power[width:], squares[width:]
        weight = 0.5 / width
        for i in range(len(doubled)):
            gap = power[i] - later[i]
            within[i] = squares[i] + inside[i] + weight * gap * gap
            doubled[i] = power[i] + later[i]
        other, spare = (work[1], work[2]) if width & ALTERNATE else (work[0], work[3])
        power, squares = doubled, within
        width *= 2
    return total, deviation
