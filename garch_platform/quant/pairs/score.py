"""Composite score of a pair: 40 % fit, 30 % volatility, 20 % trading, 10 % diagnostics.

Each component lies in [0, 1] and higher is better. F is the formation window, O the out-of-sample bars
after it; s is the spread, and d its one-bar shocks: the change beyond the expected return to the mean,
without which the residual tests would reject the very reversion that is looked for. Hedge ratio, mean,
standard deviation, autoregression and GARCH parameters come from F and stay frozen.

========== ==== ==========================================================================================
fit        0.4  1 / (1 + exp(-(BIC_0 - BIC_1) / 2)): Schwarz's approximation [1]_ to the posterior
                probability that d on F follows a normal GARCH(1,1) (BIC_1) and not a constant variance
                (BIC_0), prior odds 1.
volatility 0.3  Phi(DM) on O: DM is the Diebold-Mariano statistic [3]_ of the QLIKE losses of the constant
                variance of F and of the GARCH(1,1) forecast one bar ahead.
trading    0.2  Phi(sqrt(n) S): probability that the true Sharpe ratio is positive given the ratio S per bar
                of the backtest on the n bars of O, net of costs (Lo [2]_; normal returns). No trade
                scores 0: a spread that never reached the entry has shown no profit.
diagnostics 0.1 Share of two tests that the standardised residuals of the fit pass at 5 %: Ljung-Box (10
                lags) and ARCH-LM (5 lags).
========== ==== ==========================================================================================

The first three read 0.5 where the model does no better than its baseline. The score is a ranking device.
It reads O, so nothing measured on O is independent of a ranking by it.

References
----------
.. [1] Kass, R. E. and Raftery, A. E. (1995), "Bayes factors", Journal of the American Statistical
   Association 90, 773-795.
.. [2] Lo, A. W. (2002), "The statistics of Sharpe ratios", Financial Analysts Journal 58(4), 36-52.
.. [3] Diebold, F. X. and Mariano, R. S. (1995), "Comparing predictive accuracy", Journal of Business &
   Economic Statistics 13(3), 253-263. One-step forecasts: no autocorrelation correction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant.volatility.forecast import garch_variance, qlike_losses

__all__ = [
    "WEIGHTS",
    "Backtest",
    "backtest_spread",
    "composite_score",
    "constant_variance_bic",
    "diagnostics_score",
    "fit_score",
    "trading_score",
    "volatility_score",
]

Floats = NDArray[np.float64]

WEIGHTS: Final = MappingProxyType({"fit": 0.4, "volatility": 0.3, "trading": 0.2, "diagnostics": 0.1})
RESIDUAL_SIGNIFICANCE: Final = 0.05


def composite_score(*, fit: float, volatility: float, trading: float, diagnostics: float) -> float:
    """Weighted sum of the four components, in [0, 1]."""
    return (
        WEIGHTS["fit"] * fit
        + WEIGHTS["volatility"] * volatility
        + WEIGHTS["trading"] * trading
        + WEIGHTS["diagnostics"] * diagnostics
    )


def constant_variance_bic(shocks: Floats) -> float:
    """BIC of independent normal shocks with one mean and one variance; absent (NaN) ones are dropped."""
    present = shocks[np.isfinite(shocks)]
    count = len(present)
    return count * (math.log(2.0 * math.pi * float(present.var())) + 1.0) + 2.0 * math.log(count)


def fit_score(*, bic_garch: float, bic_constant: float) -> float:
    """Probability of the GARCH model against a constant variance, from their BIC."""
    return 0.5 * (1.0 + math.tanh((bic_constant - bic_garch) / 4.0))


def volatility_score(
    shocks: Floats,
    *,
    mu: float,
    omega: float,
    alpha: float,
    beta: float,
    initial_variance: float,
    constant_mean: float,
    constant_variance: float,
) -> float:
    """Phi of the Diebold-Mariano statistic of frozen GARCH forecasts against a frozen constant (QLIKE).

    0.5 says that neither is better; also where the losses do not differ or cannot be compared.

    Args:
        shocks: (T,) out-of-sample shocks of the spread in time order; NaN = absent, dropped.
        mu, omega, alpha, beta: GARCH parameters of the formation window.
        initial_variance: forecast for the first of ``shocks`` made at the end of formation.
        constant_mean, constant_variance: moments of the shocks in the formation window.
    """
    present = shocks[np.isfinite(shocks)]
    variance = garch_variance(
        present, mu=mu, omega=omega, alpha=alpha, beta=beta, initial_variance=initial_variance
    )
    constant = qlike_losses(constant_variance, (present - constant_mean) ** 2)
    gains = constant - qlike_losses(variance, (present - mu) ** 2)
    gains = gains[np.isfinite(gains)]
    spread_of_gains = float(gains.std(ddof=1)) if len(gains) > 1 else 0.0
    if spread_of_gains == 0.0:
        return 0.5
    return _normal_cdf(math.sqrt(len(gains)) * float(gains.mean()) / spread_of_gains)


def _normal_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2.0))


def diagnostics_score(*pvalues: float | None) -> float:
    """Share of residual tests with a p-value above 5 %; a test without one counts as failed."""
    return sum(p is not None and p > RESIDUAL_SIGNIFICANCE for p in pvalues) / len(pvalues)


@dataclass(frozen=True)
class Backtest:
    """Result of `backtest_spread`.

    Attributes:
        returns: (T - 1,) net return of each bar after the first, on the gross value of both legs.
        positions: (T - 1,) position held over that bar: 1 long the spread, -1 short, 0 flat.
        trades: positions opened.
    """

    returns: Floats
    positions: NDArray[np.int64]
    trades: int

    @property
    def sharpe(self) -> float:
        """Mean over standard deviation per bar; NaN without a trade."""
        deviation = float(self.returns.std(ddof=1)) if len(self.returns) > 1 else 0.0
        return float(self.returns.mean()) / deviation if self.trades and deviation > 0.0 else math.nan


def backtest_spread(
    spread: Floats,
    *,
    mean: float,
    std: float,
    hedge_ratio: float,
    entry_zscore: float,
    exit_zscore: float,
    cost_bps: float,
) -> Backtest:
    """Trade a spread by its z-score against a frozen mean and standard deviation.

    The z-score of bar t - 1 decides the position that earns the change from t - 1 to t. Flat, it sells at
    z >= entry and buys at z <= -entry; short, it closes at z <= exit, long at z >= -exit. A position still
    open at the end is closed there.

    Args:
        spread: (T,) without absent bars; the first bar only decides.
        mean, std: moments of the formation window.
        hedge_ratio: units of money of the second leg for one of the first.
        entry_zscore, exit_zscore: thresholds.
        cost_bps: one-way cost of each leg, basis points of the value traded.

    Returns:
        The net returns: (position * change) / (1 + |hedge_ratio|), less the cost at each opening and closing.
    """
    zscore = ((spread - mean) / std).tolist()
    positions = np.zeros(max(0, len(spread) - 1), dtype=np.int64)
    position = 0
    for t, z in enumerate(zscore[:-1]):
        if position * z >= -exit_zscore:
            position = 0
        if position == 0 and abs(z) >= entry_zscore:
            position = -1 if z > 0 else 1
        positions[t] = position
    gross = positions * np.diff(spread) / (1.0 + abs(hedge_ratio))
    turnover = np.abs(np.diff(positions, prepend=0)).astype(np.float64)
    if len(turnover):
        turnover[-1] += abs(int(positions[-1]))
    opened = (positions != 0) & (np.diff(positions, prepend=0) != 0)
    return Backtest(gross - turnover * cost_bps * 1e-4, positions, int(opened.sum()))


def trading_score(backtest: Backtest) -> float:
    """Probability that the true Sharpe ratio is positive; 0 without a trade."""
    sharpe = backtest.sharpe
    if math.isnan(sharpe):
        return 0.0
    return _normal_cdf(sharpe * math.sqrt(len(backtest.returns)))
