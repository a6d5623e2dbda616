"""Size and power of the tests of model adequacy on residuals of fitted GARCH(1,1) models.

    python benchmarks/adequacy_power.py [--simulations 500] [--quick]

Each row: draw series from the truth, fit a GARCH(1,1), test the standardised residuals at 5 %. The first
rows are true GARCH: rejections are false. `verdict` is any of Ljung-Box on residuals and squares and ARCH-LM
under Holm's correction; the three are also shown alone at 5 %. `sign` is the joint sign-bias test, `cusum`
that of squares. `nyblom`, of all four parameters, and `asymmetry`, against a GJR model, are the tests on the
scores of `garch_platform.quant.score_tests`, which need the returns and not only the residuals.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import math
from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.quant.adequacy import model_adequacy
from garch_platform.quant.score_tests import score_tests
from garch_platform.quant.volatility import fit_garch_batch

Floats = NDArray[np.float64]
Truth = Callable[[int], tuple[float, float, float, float]]
"""Omega, alpha, gamma and beta from the share of the sample (in 256ths) on."""

BURN = 300


def constant(omega: float, alpha: float, gamma: float, beta: float) -> Truth:
    """The same parameters throughout."""
    return lambda _: (omega, alpha, gamma, beta)


def switch(first: Truth, then: Truth) -> Truth:
    """Other parameters from the middle of the sample on."""
    return lambda part: first(part) if part < 128 else then(part)


def simulate(truth: Truth, count: int, series: int, rng: np.random.Generator, nu: float | None) -> Floats:
    """(count, series) returns."""
    size = (count + BURN, series)
    shocks = rng.standard_normal(size) if nu is None else rng.standard_t(nu, size) * math.sqrt(1.0 - 2.0 / nu)
    variance, returns = np.ones(series), np.empty(size)
    for t in range(len(shocks)):
        omega, alpha, gamma, beta = truth(256 * max(0, t - BURN) // count)
        if t > 0:
            before = returns[t - 1]
            variance = omega + (alpha + gamma * (before < 0.0)) * before**2 + beta * variance
        returns[t] = np.sqrt(variance) * shocks[t]
    return returns[BURN:]


def residuals(returns: Floats, params: pl.DataFrame) -> Floats:
    """Standardised residuals with `arch`'s backcast."""
    mu, omega, alpha, beta = (params[name].to_numpy() for name in ("mu", "omega", "alpha", "beta"))
    errors = returns - mu
    weights = 0.94 ** np.arange(75.0)
    start = (weights / weights.sum()) @ errors[:75] ** 2
    variance, result = omega + (alpha + beta) * start, np.empty_like(errors)
    for t in range(len(errors)):
        result[t] = errors[t] / np.sqrt(variance)
        variance = omega + alpha * errors[t] ** 2 + beta * variance
    return result


def rates(returns: Floats, fitted: bool = True) -> dict[str, float]:
    """Share of series that each test rejects at 5 %."""
    params = fit_garch_batch(returns).params
    usable = params["omega"].is_not_null()
    params, returns = params.filter(usable), returns[:, usable.to_numpy()]
    z = residuals(returns, params) if fitted else (returns - returns.mean(axis=0)) / returns.std(axis=0)
    report = model_adequacy(z)
    shares = {
        "verdict": (report["verdict"] == "inadequate").mean(),
        "LB": (report["ljung_box_pvalue"] < 0.05).mean(),
        "LB z2": (report["ljung_box_squares_pvalue"] < 0.05).mean(),
        "ARCH-LM": (report["arch_lm_pvalue"] < 0.05).mean(),
        "sign": (report["joint_sign_bias_pvalue"] < 0.05).mean(),
        "cusum": (report["cusum_squares_pvalue"] < 0.05).mean(),
    }
    if fitted:
        scores = score_tests(returns, params)
        shares |= {name: (scores[f"{name}_pvalue"] < 0.05).mean() for name in ("nyblom", "asymmetry")}
    return {name: float(share) for name, share in shares.items()}  # type: ignore[arg-type]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="100 simulations")
    options = parser.parse_args()
    series = 100 if options.quick else options.simulations
    usual, slow = constant(0.02, 0.08, 0.0, 0.90), constant(0.05, 0.05, 0.0, 0.90)
    doubled, fourfold = (switch(slow, constant(factor * 0.05, 0.05, 0.0, 0.90)) for factor in (2.0, 4.0))
    quicker = switch(slow, constant(0.05, 0.30, 0.0, 0.65))
    leverage, strong = constant(0.02, 0.03, 0.10, 0.90), constant(0.02, 0.0, 0.16, 0.90)
    cases: list[tuple[str, Truth, int, float | None]] = [
        ("true GARCH(.08,.90), normal", usual, 500, None),
        ("true GARCH(.08,.90), normal", usual, 1000, None),
        ("true GARCH(.08,.90), normal", usual, 2000, None),
        ("true GARCH(.08,.90), normal", usual, 4000, None),
        ("true GARCH(.08,.90), t6", usual, 2000, 6.0),
        ("true GARCH(.10,.80), normal", constant(0.10, 0.10, 0.0, 0.80), 2000, None),
        ("true GARCH(.05,.90), t6", slow, 1000, 6.0),
        ("GJR(.03,.10,.90), normal", leverage, 1000, None),
        ("GJR(.03,.10,.90), normal", leverage, 2000, None),
        ("GJR(.03,.10,.90), t6", leverage, 2000, 6.0),
        ("GJR(0,.16,.90), normal", strong, 2000, None),
        ("variance x2 half-way", doubled, 1000, None),
        ("variance x2 half-way", doubled, 2000, None),
        ("variance x4 half-way", fourfold, 1000, None),
        ("variance x4 half-way, t6", fourfold, 1000, 6.0),
        ("(.05,.90) to (.30,.65) half-way", quicker, 1000, None),
        ("(.05,.90) to (.30,.65) half-way", quicker, 2000, None),
    ]
    names = ("verdict", "LB", "LB z2", "ARCH-LM", "sign", "cusum", "nyblom", "asymmetry")
    print(
        f"rejections at 5 % in {series} simulations; their standard error near 5 % is {math.sqrt(0.0475 / series):.3f}"
    )
    print(f"{'truth':<34}{'n':>6}" + "".join(f"{name:>10}" for name in names))
    for number, (label, truth, count, nu) in enumerate(cases):
        returns = simulate(truth, count, series, np.random.default_rng(number), nu)
        shares = rates(returns)
        print(f"{label:<34}{count:>6}" + "".join(f"{shares[name]:>10.3f}" for name in names), flush=True)
    returns = simulate(usual, 2000, series, np.random.default_rng(99), None)
    shares = rates(returns, fitted=False)
    print(
        f"{'GARCH(.08,.90), no model fitted':<34}{2000:>6}"
        + "".join(f"{shares[name]:>10.3f}" for name in names[:-2])
    )


if __name__ == "__main__":
    main()
