"""What the compiled estimator may search: parameters, constraints and starts of a GARCH model.

The constraints are those of `arch` [1]_: omega > 0, alpha >= 0, beta >= 0, alpha + gamma >= 0,
alpha + gamma/2 + beta <= 1 and 2.05 <= nu <= 500, for returns of variance 1.

References
----------
.. [1] Sheppard, K., arch, https://bashtage.github.io/arch/univariate/univariate.html
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRID", "LEAST_OMEGA", "NU_BOUNDS", "SLOTS", "START_NAMES", "Specification", "specification"]

Floats = NDArray[np.float64]

SLOTS: Final = ("mu", "omega", "alpha", "gamma", "beta", "nu")
"""Order of the parameters in the kernels."""
NU_BOUNDS: Final = (2.05, 500.0)
"""The range in which `arch` searches the degrees of freedom."""
LEAST_OMEGA: Final = 1e-8
"""Least omega of a series of variance 1."""
START_NU: Final = 8.0
LASTING: Final = 0.85
STRONG: Final = 0.15
"""Persistence and alpha that part the grid in three zones: ``grid`` is the best point, ``second`` and
``third`` are the best of the other zones."""
LEVEL_SHARES: Final = np.array([0.0, 0.0, 1.0, 0.5, 1.0, 0.0])
"""How the parameters add to the level omega + alpha + gamma/2 + beta."""

GRID: Final = (
    (0.0, 0.0), (0.02, 0.97), (0.02, 0.99), (0.05, 0.5), (0.05, 0.8), (0.05, 0.95), (0.05, 0.98), (0.05, 0.995),
    (0.1, 0.7), (0.1, 0.9), (0.1, 0.97), (0.1, 0.99), (0.2, 0.5), (0.2, 0.9), (0.2, 0.98), (0.4, 0.8),
)  # fmt: skip
"""(alpha, alpha + beta) of the coarse grid; omega keeps the variance at 1. The first is no GARCH at all."""

FURTHER_STARTS: Final = {
    "faint": (0.98, 0.001, 0.019),
    "fading": (0.9, 0.01, 0.09),
    "brief": (0.1, 0.6, 0.3),
    "middling": (0.4, 0.03, 0.57),
}
"""(omega, alpha, beta) of the starts that are tried where the likelihood is flat."""
START_NAMES: Final = ("grid", "second", "third", "drifting", *FURTHER_STARTS)


@dataclass(frozen=True)
class Specification:
    """A model as the kernels take it.

    Attributes:
        kind: 0 normal, 1 Student-t; plus 2 for GJR.
        names: parameters that are estimated, in the order of `SLOTS`.
        slots: their places in `SLOTS`.
        free: the same places in the order of the search, the flattest direction last.
        limits, bounds: (M, 6) and (M,): ``limits x >= bounds`` with 1/nu in place of nu.
        slopes: (M, 6) derivatives of ``limits x`` by the search variables, where the level stands in
            place of omega.
    """

    kind: int
    names: tuple[str, ...]
    slots: NDArray[np.int64]
    free: NDArray[np.int64]
    limits: Floats
    bounds: Floats
    slopes: Floats

    @property
    def student(self) -> bool:
        """Whether the shocks are Student-t."""
        return self.kind % 2 == 1

    def starts(self, values: Floats, counts: NDArray[np.int64]) -> Floats:
        """(N, starts, 6) starts in the order of `START_NAMES`.

        Args:
            values: (N, 16) log-likelihoods on the grid.
            counts: (N,) returns; ``drifting`` starts from a variance that changes once over the sample.
        """
        rows = np.zeros((len(values), len(START_NAMES), len(SLOTS)))
        alpha, persistence = np.array(GRID).T
        lasting, strong = persistence > LASTING, alpha > STRONG
        zones = (lasting, ~lasting & strong, ~lasting & ~strong & (alpha > 0.0))
        points = np.stack([np.where(zone, values, -np.inf).argmax(axis=1) for zone in zones], axis=1)
        heights = np.take_along_axis(values, points, axis=1)
        points = np.take_along_axis(points, np.argsort(-heights, axis=1, kind="stable"), axis=1)
        rows[:, : len(zones), 1] = 1.0 - persistence[points]
        rows[:, : len(zones), 2] = alpha[points]
        rows[:, : len(zones), 4] = (persistence - alpha)[points]
        drifting = len(zones)
        rows[:, drifting, (1, 2)] = np.array([0.5, 1.0]) / counts[:, np.newaxis]
        rows[:, drifting, 4] = 1.0 - 1.5 / counts
        for number, start in enumerate(FURTHER_STARTS.values(), start=drifting + 1):
            rows[:, number, (1, 2, 4)] = start
        rows[:, :, 5] = 1.0 / START_NU
        return rows


@cache
def specification(model: str, dist: str) -> Specification:
    """The specification of ``GARCH`` or ``GJR`` with ``normal`` or ``t`` shocks."""
    gjr, student = model == "GJR", dist == "t"
    rows = [
        ({"omega": 1.0}, LEAST_OMEGA),
        ({"alpha": 1.0}, 0.0),
        ({"beta": 1.0}, 0.0),
        ({"alpha": -1.0, "gamma": -0.5 if gjr else 0.0, "beta": -1.0}, -1.0),
    ]
    if gjr:
        rows += [({"alpha": 1.0, "gamma": 1.0}, 0.0), ({"alpha": -1.0}, -1.0)]
    if student:
        rows += [({"nu": 1.0}, 1.0 / NU_BOUNDS[1]), ({"nu": -1.0}, -1.0 / NU_BOUNDS[0])]
    limits = np.array([[row.get(name, 0.0) for name in SLOTS] for row, _ in rows])
    order = ["mu", "omega", *["nu"] * student, "beta", *["gamma"] * gjr, "alpha"]
    free = np.array([SLOTS.index(name) for name in order])
    slots = np.sort(free)
    return Specification(
        kind=student + 2 * gjr,
        names=tuple(SLOTS[slot] for slot in slots),
        slots=slots,
        free=free,
        limits=limits,
        bounds=np.array([bound for _, bound in rows]),
        slopes=limits - limits[:, 1:2] * LEVEL_SHARES,
    )
