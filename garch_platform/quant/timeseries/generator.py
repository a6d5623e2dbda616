"""Markets whose truth is known: planted pairs, GARCH volatility, sessions and missing bars.

Every symbol's return within a session is a GARCH(1,1) [1]_ with constant conditional correlation [2]_:
r_it = sqrt(h_it) z_it, where z_it = sqrt(c) m_t + sqrt(1 - c) e_it shares the market's shock m_t, and
h_it is the symbol's own variance. A session's first bar opens after an overnight move of the same
correlation, which does not enter the variance recursion.

A planted pair replaces the price of its first symbol by log P_first = level + hedge_ratio * log P_second
+ u_t, with u_t = phi u_{t-1} + sqrt(g_t) w_t of half-life ln 2 / -ln phi and GARCH variance g_t. From
``breaks_at`` on, phi is 1: the spread becomes a random walk. Symbols are used in one pair at most, and
each has a unit root of its own, so no other pair is cointegrated.

Parts are drawn from streams of their own: the same seed gives the same market, bit for bit.

References
----------
.. [1] Bollerslev, T. (1986), Journal of Econometrics 31, 307-327.
.. [2] Bollerslev, T. (1990), "Modelling the coherence in short-run nominal exchange rates: a
   multivariate generalized ARCH model", Review of Economics and Statistics 72, 498-505.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError

__all__ = ["MarketSpec", "SimulatedMarket", "simulate_garch", "simulate_market"]

Floats = NDArray[np.float64]

ALPHA_RANGE: Final = 0.2


@dataclass(frozen=True)
class MarketSpec:
    """What to simulate. Volatilities are standard deviations of log moves, as fractions.

    Attributes:
        n_symbols: columns of the market.
        n_pairs: planted pairs; pair k is symbols 2k (dependent) and 2k + 1.
        bars_per_session: bars of each session in order (half days have fewer).
        half_lives: half-lives of the spreads in bars, used in turn.
        breaking_pairs: how many of the pairs, the last ones, break.
        break_share: share of the bars after which they break.
        garch_alpha, garch_beta: mean ARCH and GARCH coefficient; symbols differ by up to 20 % in alpha.
        bar_volatility: unconditional deviation of a one-bar return; symbols differ by up to 30 %.
        overnight_volatility: deviation of the move between sessions.
        spread_volatility: unconditional deviation of the spread's one-bar shock.
        market_correlation: correlation c between the shocks of any two symbols.
        missing_share: share of bars that are missing, independently.
        first_price: median price at the start; symbols differ by up to a factor of 2.

    Raises:
        ConfigurationError: a value is out of range.
    """

    n_symbols: int = 40
    n_pairs: int = 6
    bars_per_session: Sequence[int] = (390,) * 30
    half_lives: Sequence[float] = (20.0, 30.0, 45.0, 60.0, 90.0, 120.0)
    breaking_pairs: int = 1
    break_share: float = 0.7
    garch_alpha: float = 0.08
    garch_beta: float = 0.90
    bar_volatility: float = 6e-4
    overnight_volatility: float = 8e-3
    spread_volatility: float = 6e-4
    market_correlation: float = 0.3
    missing_share: float = 0.002
    first_price: float = 80.0

    def __post_init__(self) -> None:
        rules = {
            "n_symbols": self.n_symbols >= 1,
            "n_pairs": 0 <= 2 * self.n_pairs <= self.n_symbols,
            "bars_per_session": len(self.bars_per_session) > 0 and min(self.bars_per_session) >= 1,
            "half_lives": len(self.half_lives) > 0 and min(self.half_lives) > 0.0,
            "breaking_pairs": 0 <= self.breaking_pairs <= self.n_pairs,
            "break_share": 0.0 < self.break_share < 1.0,
            "garch_alpha": self.garch_alpha >= 0.0,
            "garch_beta": self.garch_beta >= 0.0
            and (1.0 + ALPHA_RANGE) * self.garch_alpha + self.garch_beta < 1.0,
            "bar_volatility": self.bar_volatility > 0.0,
            "overnight_volatility": self.overnight_volatility >= 0.0,
            "spread_volatility": self.spread_volatility > 0.0,
            "market_correlation": 0.0 <= self.market_correlation < 1.0,
            "missing_share": 0.0 <= self.missing_share < 1.0,
            "first_price": self.first_price > 0.0,
        }
        wrong = [name for name, right in rules.items() if not right]
        if wrong:
            given = ", ".join(f"{name}={getattr(self, name)!r}" for name in wrong)
            raise ConfigurationError(
                f"{given} of the simulated market is out of range "
                "(two symbols a pair; shares below 1; 1.2 alpha + beta below 1)"
            )


@dataclass(frozen=True)
class SimulatedMarket:
    """A market of T bars and N symbols.

    Attributes:
        session_index: (T,) number of the bar's session, from 0.
        open, high, low, close: (T, N) prices, currency; NaN where the bar is missing.
        volume: (T, N) whole shares; NaN where the bar is missing.
        truth: one row a planted pair: ``pair_id``, ``first`` and ``second`` (columns), ``hedge_ratio``,
            ``half_life_bars``, ``breaks_at`` (row, or null).
        garch: one row a symbol: ``symbol`` (column), ``omega``, ``alpha``, ``beta`` per bar, and
            ``is_spread``: whether they belong to the spread of the pair of which it is the first symbol
            (then its own returns are not a GARCH(1,1)).
    """

    session_index: NDArray[np.int64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    truth: pl.DataFrame
    garch: pl.DataFrame

    @property
    def log_closes(self) -> Floats:
        """(T, N) log closes; NaN where the bar is missing."""
        return np.log(self.close)


def simulate_garch(
    shocks: Floats, *, omega: float | Floats, alpha: float | Floats, beta: float | Floats
) -> Floats:
    """Returns sqrt(h_t) z_t of a GARCH(1,1) from its unconditional variance on.

    Args:
        shocks: (T,) or (T, N) shocks z of mean 0 and variance 1.
        omega, alpha, beta: scalars or (N,); alpha + beta < 1.

    Returns:
        An array of the shape of ``shocks``.
    """
    returns = np.empty_like(shocks)
    variance = omega / (1.0 - alpha - np.asarray(beta)) + np.zeros(shocks.shape[1:])
    for t, shock in enumerate(shocks):
        returns[t] = np.sqrt(variance) * shock
        variance = omega + alpha * returns[t] ** 2 + beta * variance
    return returns


def simulate_market(spec: MarketSpec, *, seed: int) -> SimulatedMarket:
    """Simulate a market; the same ``spec`` and ``seed`` give the same bits."""
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)]
    parameters, shocks, overnight, spreads, bars, missing = streams
    session_index = np.repeat(np.arange(len(spec.bars_per_session)), spec.bars_per_session)
    opens_session = np.diff(session_index, prepend=-1) > 0
    shape = (len(session_index), spec.n_symbols)

    garch = _garch_parameters(spec, parameters)
    start = math.log(spec.first_price) + parameters.uniform(-math.log(2.0), math.log(2.0), spec.n_symbols)
    truth = _planted_pairs(spec, shape[0], parameters)

    own = {name: garch[name].to_numpy().copy() for name in ("omega", "alpha", "beta")}
    within = simulate_garch(_correlated(shape, spec.market_correlation, shocks), **own)
    between = np.zeros(shape)
    gaps = (len(spec.bars_per_session), spec.n_symbols)
    between[opens_session] = spec.overnight_volatility * _correlated(gaps, spec.market_correlation, overnight)
    between[0] = 0.0
    log_close = start + np.cumsum(between + within, axis=0)
    log_open = log_close - within

    for row in truth.iter_rows(named=True):
        first, second, hedge_ratio = row["first"], row["second"], row["hedge_ratio"]
        shock = simulate_garch(
            spreads.standard_normal(shape[0]), **{name: float(own[name][first]) for name in own}
        )
        path = _reverting_path(shock, row["half_life_bars"], row["breaks_at"])
        level = start[first] - hedge_ratio * start[second]
        log_close[:, first] = level + hedge_ratio * log_close[:, second] + path
        log_open[:, first] = level + hedge_ratio * log_open[:, second] + np.append(path[:1], path[:-1])
    return _observed(spec, session_index, log_open, log_close, (bars, missing), truth, garch)


def _correlated(shape: tuple[int, int], correlation: float, rng: np.random.Generator) -> Floats:
    """Standard normal draws with the same correlation between any two columns."""
    market = rng.standard_normal((shape[0], 1))
    return math.sqrt(correlation) * market + math.sqrt(1.0 - correlation) * rng.standard_normal(shape)


def _garch_parameters(spec: MarketSpec, rng: np.random.Generator) -> pl.DataFrame:
    symbol = np.arange(spec.n_symbols)
    is_spread = (symbol < 2 * spec.n_pairs) & (symbol % 2 == 0)
    alpha = spec.garch_alpha * rng.uniform(1.0 - ALPHA_RANGE, 1.0 + ALPHA_RANGE, spec.n_symbols)
    own = spec.bar_volatility * rng.uniform(0.7, 1.3, spec.n_symbols)
    variance = np.where(is_spread, spec.spread_volatility, own) ** 2
    return pl.DataFrame(
        {
            "symbol": symbol,
            "omega": variance * (1.0 - alpha - spec.garch_beta),
            "alpha": alpha,
            "beta": np.full(spec.n_symbols, spec.garch_beta),
            "is_spread": is_spread,
        }
    )


def _planted_pairs(spec: MarketSpec, n_bars: int, rng: np.random.Generator) -> pl.DataFrame:
    pair_id = np.arange(spec.n_pairs)
    break_at = max(1, int(n_bars * spec.break_share))
    breaks = pair_id >= spec.n_pairs - spec.breaking_pairs
    half_lives = [float(spec.half_lives[pair % len(spec.half_lives)]) for pair in range(spec.n_pairs)]
    return pl.DataFrame(
        {
            "pair_id": pair_id,
            "first": 2 * pair_id,
            "second": 2 * pair_id + 1,
            "hedge_ratio": rng.uniform(0.7, 1.4, spec.n_pairs),
            "half_life_bars": pl.Series(half_lives, dtype=pl.Float64),
            "breaks_at": pl.Series([break_at if broken else None for broken in breaks], dtype=pl.Int64),
        }
    )


def _reverting_path(shocks: Floats, half_life: float, breaks_at: int | None) -> Floats:
    """(T,) u_t = phi u_{t-1} + shock_t, a random walk from ``breaks_at`` on.

    The first value is the first shock times the ratio of the stationary to the one-bar deviation.
    """
    phi = math.exp(-math.log(2.0) / half_life)
    path = np.empty_like(shocks)
    value = 0.0
    for t, shock in enumerate(shocks.tolist()):
        if t == 0:
            value = shock / math.sqrt(1.0 - phi * phi)
        else:
            value = (1.0 if breaks_at is not None and t >= breaks_at else phi) * value + shock
        path[t] = value
    return path


def _observed(
    spec: MarketSpec,
    session_index: NDArray[np.int64],
    log_open: Floats,
    log_close: Floats,
    streams: tuple[np.random.Generator, np.random.Generator],
    truth: pl.DataFrame,
    garch: pl.DataFrame,
) -> SimulatedMarket:
    """Add highs, lows and volume, and take the missing bars out."""
    bars, missing = streams
    shape = log_close.shape
    reach = 0.5 * spec.bar_volatility * np.abs(bars.standard_normal((2, *shape)))
    prices = {
        "open": np.exp(log_open),
        "high": np.exp(np.maximum(log_open, log_close) + reach[0]),
        "low": np.exp(np.minimum(log_open, log_close) - reach[1]),
        "close": np.exp(log_close),
    }
    counts = np.asarray(spec.bars_per_session)
    place = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])[:, np.newaxis]
    activity = (0.5 + 6.0 * (place - 0.5) ** 2) * (1.0 + np.abs(log_close - log_open) / spec.bar_volatility)
    prices["volume"] = np.ceil(1e4 * activity * np.exp(0.5 * bars.standard_normal(shape)))
    absent = missing.random(shape) < spec.missing_share
    for values in prices.values():
        values[absent] = np.nan
    return SimulatedMarket(session_index=session_index, truth=truth, garch=garch, **prices)
