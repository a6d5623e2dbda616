"""Composite score of a pair: 40 % fit, 30 % volatility, 20 % trading, 10 % diagnostics.

A rank among pairs, never a substitute for the test. Each component lies in [0, 1], higher is better, and
does not change when prices are scaled. F is the formation window, O the bars after it; s is the spread with
hedge ratio and mean m of F, and e its innovations e_t = (s_t - m) - phi (s_{t-1} - m), phi of F, to which a
GARCH(1,1) with Student-t shocks is fitted on F. Everything is frozen at the end of F; h is the GARCH
variance forecast one bar ahead.

=========== === ==========================================================================================
fit         .4  L / (1 + L): L is the ratio of predictive likelihoods [1]_ on O, of the AR(1)-GARCH over a
                random walk with the same variances h and degrees of freedom: does the spread return as it
                did? The AR(1)'s is averaged over what F leaves open about phi (corrected for bias) and m.
volatility  .3  mean of Phi(DM) over two rivals, EWMA(.94) and the constant variance of F: DM is the
                Diebold-Mariano statistic [2]_ of the QLIKE losses on O.
trading     .2  probabilistic Sharpe ratio [3]_ of the backtest on O net of costs; 0 without a trade.
diagnostics .1  min(1, 2 min(p, p2) / .05): p and p2 are the Ljung-Box p-values of the standardised
                residuals on F and of their squares. 1 unless one of them rejects at 5 % (Bonferroni).
=========== === ==========================================================================================

The score reads O, so nothing measured on O is independent of a ranking by it.

References
----------
.. [1] Geweke, J. and Amisano, G. (2010), "Comparing and evaluating Bayesian predictive distributions of
   asset returns", International Journal of Forecasting 26, 216-230.
.. [2] Diebold, F. X. and Mariano, R. S. (1995), "Comparing predictive accuracy", Journal of Business &
   Economic Statistics 13(3), 253-263. One-step forecasts: no autocorrelation correction.
.. [3] Bailey, D. H. and Lopez de Prado, M. (2012), "The Sharpe ratio efficient frontier", Journal of Risk
   15(2), 3-44.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.quant.pairs.backtest import backtest_spreads, carried
from garch_platform.quant.pairs.rules import SelectionRules
from garch_platform.quant.pairs.spread import autoregression, corrected_autoregression, spread_shocks
from garch_platform.quant.stability import ljung_box
from garch_platform.quant.volatility import fit_garch_batch
from garch_platform.quant.volatility.forecast import ewma_variance, garch_variance, qlike_losses

__all__ = ["MIN_OUT_OF_SAMPLE", "SCORE_COLUMNS", "WEIGHTS", "score_spreads"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WEIGHTS: Final = MappingProxyType({"fit": 0.4, "volatility": 0.3, "trading": 0.2, "diagnostics": 0.1})
MIN_OUT_OF_SAMPLE: Final = 20
"""Fewest bars of a spread after the formation window on which it is scored."""
NODES: Final = 3
"""Points of the Gauss-Hermite rule for each of phi and the mean."""
HEDGE_UNCERTAINTY: Final = 1.5
LJUNG_BOX_LAGS: Final = 10
RESIDUAL_SIGNIFICANCE: Final = 0.05

SCORE_COLUMNS: Final[dict[str, pl.DataType]] = {
    **{f"{name}_score": pl.Float64() for name in WEIGHTS},
    "score": pl.Float64(),
    "aic": pl.Float64(),
    "bic": pl.Float64(),
    "score_reason": pl.String(),
}
"""Columns of `score_spreads`: the components, their weighted sum, AIC and BIC of the GARCH fit, and why
there is no score (null where there is one)."""


def score_spreads(
    spreads: Floats,
    *,
    formation_end: int,
    mean: Floats,
    std: Floats,
    hedge_ratio: Floats,
    rules: SelectionRules,
    session_index: Integers | None = None,
    min_observations: int = 250,
) -> pl.DataFrame:
    """Score spreads that were formed on the first ``formation_end`` bars by the bars after them.

    Args:
        spreads: (T, P) in time order, NaN = absent; no bar after the confirmation window.
        formation_end: first row of the bars that judge.
        mean, std, hedge_ratio: (P,) of the formation window.
        rules: thresholds and costs of the backtest.
        session_index: (T,) session of each bar, for intraday bars: innovations across sessions are left out.
        min_observations: fewest innovations to which GARCH is fitted.

    Returns:
        P rows with the columns of `SCORE_COLUMNS`.
    """
    if spreads.shape[1] == 0:
        return pl.DataFrame(schema=SCORE_COLUMNS)
    phi = np.array([autoregression(spread[:formation_end]) for spread in spreads.T])
    innovations = _shocks(spreads, mean, phi, session_index)
    batch = fit_garch_batch(innovations[:formation_end], dist="t", min_observations=min_observations)
    fits = batch.table
    bars = np.isfinite(innovations[formation_end:]).sum(axis=0)
    usable = fits["status"].is_in(["ok", "weak"])
    reason = fits.select(
        pl.when(~usable)
        .then(pl.format("garch {}: {}", "status", "reason"))
        .when(pl.Series(bars) < MIN_OUT_OF_SAMPLE)
        .then(pl.format("out_of_sample_bars {} < {}", pl.Series(bars), pl.lit(MIN_OUT_OF_SAMPLE)))
    ).to_series()
    scored = np.flatnonzero(reason.is_null().to_numpy())
    columns = {name: np.full(len(fits), np.nan) for name in SCORE_COLUMNS if name.endswith("score")}
    if len(scored):
        parameters = {
            name: fits[name].to_numpy()[scored]
            for name in ("mu", "omega", "alpha", "beta", "nu", "forecast_variance")
        }
        nu = parameters.pop("nu")
        changes = _shocks(spreads[:, scored], mean[scored], np.ones(len(scored)), session_index)
        shocks = innovations[:, scored] - parameters.pop("mu")
        later = shocks[formation_end:]
        starts = parameters.pop("forecast_variance")
        forecast = np.column_stack(
            [
                garch_variance(
                    later[:, column],
                    mu=0.0,
                    initial_variance=starts[column],
                    **{name: values[column] for name, values in parameters.items()},
                )
                for column in range(len(scored))
            ]
        )
        backtest = backtest_spreads(
            spreads[max(formation_end - 1, 0) :, scored],
            mean=mean[scored],
            std=std[scored],
            hedge_ratio=hedge_ratio[scored],
            entry_zscore=rules.entry_zscore,
            exit_zscore=rules.exit_zscore,
            cost_bps=rules.cost_bps,
        )
        components = {
            "fit": _fit(
                carried(spreads[:, scored])[formation_end - 1 :],
                changes[formation_end:],
                _Autoregression.of(phi[scored], mean[scored], innovations[:formation_end, scored]),
                forecast,
                nu,
            ),
            "volatility": _volatility(shocks[:formation_end], later, forecast),
            "trading": backtest.probabilistic_sharpe,
            "diagnostics": _diagnostics(batch.standardised_residuals[:, scored]),
        }
        for name, values in components.items():
            columns[f"{name}_score"][scored] = values
        columns["score"][scored] = sum(WEIGHTS[name] * values for name, values in components.items())
    return pl.DataFrame(columns | {"aic": fits["aic"], "bic": fits["bic"], "score_reason": reason}).select(
        pl.col(name).cast(dtype).fill_nan(None) if dtype == pl.Float64 else pl.col(name).cast(dtype)
        for name, dtype in SCORE_COLUMNS.items()
    )


@dataclass(frozen=True)
class _Autoregression:
    """AR(1) of each spread on the formation window, with what it leaves open.

    The errors are those of an AR(1), times 1.5: a residual of an estimated hedge ratio is known less well
    than a series that was observed (see `corrected_half_life`).
    """

    phi: Floats
    phi_error: Floats
    mean: Floats
    mean_error: Floats

    @classmethod
    def of(cls, phi: Floats, mean: Floats, innovations: Floats) -> _Autoregression:
        count = np.maximum(np.isfinite(innovations).sum(axis=0), 2)
        known = np.minimum(corrected_autoregression(phi, count), 0.999)
        inflated = HEDGE_UNCERTAINTY / np.sqrt(count)
        deviation = np.nanstd(innovations, axis=0)
        return cls(known, np.sqrt(1.0 - known**2) * inflated, mean, deviation / (1.0 - known) * inflated)


def _shocks(spreads: Floats, mean: Floats, phi: Floats, session_index: Integers | None) -> Floats:
    columns = [
        spread_shocks(spread, mean=mean[place], phi=phi[place], session_index=session_index)
        for place, spread in enumerate(spreads.T)
    ]
    return np.column_stack(columns)


def _fit(
    spreads: Floats, changes: Floats, autoregression: _Autoregression, variance: Floats, nu: Floats
) -> Floats:
    """(P,) L / (1 + L), L the predictive likelihood ratio of the autoregression over a random walk.

    Args:
        spreads: (O + 1, P) the last bar of the formation window and the later ones.
        changes: (O, P) their one-bar changes, NaN where they do not count.
        autoregression: of the formation window.
        variance: (O, P) forecasts of the shocks' variances.
        nu: (P,) degrees of freedom.
    """
    from scipy.special import expit, logsumexp

    def log_density(shocks: Floats) -> Floats:
        values: Floats = -0.5 * (nu + 1.0) * np.log1p(shocks**2 / ((nu - 2.0) * variance))
        return np.nansum(values, axis=0)

    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    log_weights = np.log(weights / weights.sum())
    counted = np.where(np.isfinite(changes), 0.0, np.nan)
    now, before = spreads[1:], spreads[:-1]
    terms = []
    for step, log_weight in zip(nodes, log_weights, strict=True):
        phi = np.clip(autoregression.phi + step * autoregression.phi_error, -0.999, 0.9999)
        for shift, other in zip(nodes, log_weights, strict=True):
            mean = autoregression.mean + shift * autoregression.mean_error
            terms.append(log_weight + other + log_density(now - mean - phi * (before - mean) + counted))
    result: Floats = expit(logsumexp(terms, axis=0) - log_density(changes))
    return result


def _volatility(formation: Floats, later: Floats, forecast: Floats) -> Floats:
    """(P,) mean of Phi(Diebold-Mariano) of the forecast against EWMA and against a constant variance."""
    from scipy.stats import norm

    constant = np.nanvar(formation, axis=0)
    paths = zip(np.vstack([formation, later]).T, constant, strict=True)
    smoothed = [ewma_variance(path, initial_variance=start) for path, start in paths]
    rolled = np.column_stack(smoothed)[len(formation) :]
    losses = qlike_losses(forecast, later**2)
    scores = []
    for rival in (rolled, np.broadcast_to(constant, later.shape)):
        gain = qlike_losses(rival, later**2) - losses
        count = np.maximum(np.isfinite(gain).sum(axis=0), 2)
        mean = np.nansum(gain, axis=0) / count
        deviation = np.sqrt(np.nansum((gain - mean) ** 2, axis=0) / (count - 1))
        differs = deviation > 0.0
        scores.append(
            np.where(differs, norm.cdf(np.sqrt(count) * mean / np.where(differs, deviation, 1.0)), 0.5)
        )
    return np.asarray(np.mean(scores, axis=0))


def _diagnostics(residuals: Floats) -> Floats:
    """(P,) 1 where neither the residuals nor their squares are autocorrelated at 5 %, falling to 0."""
    pvalues = [ljung_box(residuals, lags=LJUNG_BOX_LAGS, squared=squared).pvalue for squared in (False, True)]
    worst = np.min(np.nan_to_num(pvalues, nan=0.0), axis=0)
    return np.minimum(1.0, 2.0 * worst / RESIDUAL_SIGNIFICANCE)
