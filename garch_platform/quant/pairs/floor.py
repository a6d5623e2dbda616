"""The floor beside a ranking: what the same selection passes on markets like this one without cointegration.

Each draw turns the market's own moves at random, x* = cumsum(mu + e_t (r_t - mu)), with one sign e_t = +-1
a bar *shared by all symbols* (a wild bootstrap [1]_). Cross-correlation, drift and the path of volatility
stay; every reversion of a spread is gone, because its change at t no longer answers to its level. Markets of
independent random walks are the wrong floor: hardly any of their pairs correlates, so they show too few
false ones.

References
----------
.. [1] Cavaliere, G., Rahbek, A. and Taylor, A. M. R. (2010), "Testing for co-integration in vector
   autoregressions with non-stationary volatility", Journal of Econometrics 158, 7-24.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.quant.compiled import in_threads
from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.rules import PROFILES, SelectionRules
from garch_platform.quant.pairs.selection import select_pairs

__all__ = ["FLOOR_SCHEMA", "SelectionFloor", "selection_floor", "wild_market"]

Floats = NDArray[np.float64]

FLOOR_SCHEMA: Final[dict[str, pl.DataType]] = {
    "profile": pl.String(),
    "floor_draws": pl.Int64(),
    "floor_median": pl.Float64(),
    "floor_q95": pl.Float64(),
    "floor_any": pl.Float64(),
}
"""Columns of `SelectionFloor.summary`, one row a profile: draws, median and 95 % quantile of the pairs
selected, share of draws with any."""


@dataclass(frozen=True)
class SelectionFloor:
    """Result of `selection_floor`.

    Attributes:
        counts: profile to (draws,) number of pairs selected in each market without cointegration.
    """

    counts: Mapping[str, NDArray[np.int64]]

    @property
    def summary(self) -> pl.DataFrame:
        """The columns of `FLOOR_SCHEMA`; null without draws."""
        rows = [
            (
                profile,
                len(counts),
                float(np.median(counts)) if len(counts) else None,
                float(np.quantile(counts, 0.95, method="higher")) if len(counts) else None,
                float(np.mean(counts > 0)) if len(counts) else None,
            )
            for profile, counts in self.counts.items()
        ]
        return pl.DataFrame(rows, schema=FLOOR_SCHEMA, orient="row")


def wild_market(log_prices: Floats, signs: Floats) -> Floats:
    """Log prices whose moves are turned by one sign a bar.

    Args:
        log_prices: (T, N) in time order, NaN = absent.
        signs: (T,) +1 or -1, shared by all symbols.

    Returns:
        (T, N): each symbol starts where it did, has the same bars absent, and moves by
        mu + sign (r - mu), r its move since its last present bar and mu the mean of those.
    """
    present = np.isfinite(log_prices)
    if not present.any():
        return log_prices
    rows = np.arange(len(log_prices))[:, np.newaxis]
    newest = np.maximum.accumulate(np.where(present, rows, -1), axis=0)
    first = np.argmax(present, axis=0)
    start = np.take_along_axis(log_prices, first[np.newaxis], axis=0)
    carried = np.where(newest >= 0, np.take_along_axis(log_prices, np.maximum(newest, 0), axis=0), start)
    moves = np.diff(carried, axis=0, prepend=carried[:1])
    moved = present & (rows > first)
    mean = moves.sum(axis=0) / np.maximum(moved.sum(axis=0), 1)
    turned = np.where(moved, mean + signs[:, np.newaxis] * (moves - mean), 0.0)
    return np.where(present, start + np.cumsum(turned, axis=0), np.nan)


def selection_floor(
    panel: PairPanel,
    *,
    rules: SelectionRules,
    draws: int,
    seed: int,
    unstable: Mapping[str, str] | None = None,
    silent: Mapping[str, str] | None = None,
    min_observations: int = 250,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SelectionFloor:
    """Count what a selection passes on wild-bootstrap markets made of its own prices.

    Args:
        panel: log prices and windows of the selection, without the symbols it excluded.
        rules: of the selection.
        draws: markets without cointegration.
        seed: of their signs; the same seed gives the same counts, whatever ``workers``.
        unstable, silent, min_observations: of the selection.
        workers: threads, one market each.
        progress: called with markets done and markets to do.
    """
    known = replace(
        panel.with_prices(panel.log_prices[: panel.confirmation_end]),
        session_index=None if panel.session_index is None else panel.session_index[: panel.confirmation_end],
    )
    done = 0

    def passes(child: np.random.SeedSequence) -> list[int]:
        nonlocal done
        signs = np.random.default_rng(child).choice([-1.0, 1.0], len(known.log_prices))
        market = known.with_prices(wild_market(known.log_prices, signs))
        selection = select_pairs(
            market,
            rules=rules,
            bars_per_year=1.0,
            unstable=unstable,
            silent=silent,
            min_observations=min_observations,
            every_pair=False,
        )
        done += 1
        if progress is not None:
            progress(done, draws)
        return selection.ledger["ranked"].to_list()

    children = np.random.SeedSequence(seed).spawn(draws)
    counts = np.array(in_threads(passes, children, workers=workers), np.int64).reshape(draws, len(PROFILES))
    return SelectionFloor({profile: counts[:, place] for place, profile in enumerate(PROFILES)})
