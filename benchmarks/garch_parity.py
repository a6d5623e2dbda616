"""GARCH(1,1) fits beside `arch`: log-likelihood, parameters and robust errors, on its data and on simulations.

    python benchmarks/garch_parity.py [--series 300]

The log-likelihood of our parameters is computed by `arch` and compared with that of its default fit,
relatively; a fit of `arch` outside its own constraints (alpha + beta > 1) is counted apart. Parameters are
compared, in standard errors, with `arch` restarted from its own estimate at tolerance 1e-15, over fits inside
the parameter space where both reach the same top; robust errors likewise. 300 series a line take about ten
minutes, nearly all of it `arch`'s.
"""

from __future__ import annotations

import argparse
import math
import warnings
from typing import Any

import numpy as np
import polars as pl

from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility import fit_garch_batch

TOLERANCE = 1e-8
MARKETS = (
    ("sp500", "Adj Close"),
    ("nasdaq", "Adj Close"),
    ("wti", "DCOILWTICO"),
    ("vix", "vix"),
)


def compare(returns: np.ndarray, dist: str, ours: dict[str, Any]) -> dict[str, Any]:
    """One fit beside `arch`'s."""
    from arch import arch_model

    names = ["mu", "omega", "alpha", "beta", *["nu"] * (dist == "t")]
    model = arch_model(returns, dist=dist, rescale=False)
    options = {"disp": "off", "show_warning": False}
    default = model.fit(**options)
    tight = model.fit(
        **options, tol=1e-15, options={"maxiter": 5000}, starting_values=default.params.to_numpy()
    )
    params = np.array([ours[name] for name in names])
    likelihood = model.fix(params).loglikelihood
    errors = np.array([ours[f"{name}_se"] for name in names], dtype=np.float64)
    with np.errstate(all="ignore"):
        peers = tight.std_err.to_numpy()
        distance = np.abs(params - tight.params.to_numpy()) / peers
        ratio = np.abs(errors / peers - 1.0)
    volatile = default.params.to_numpy()[2:4]
    return {
        "above default": (likelihood - default.loglikelihood) / abs(default.loglikelihood),
        "above tight": (likelihood - tight.loglikelihood) / abs(tight.loglikelihood),
        "inside": not ours["at_boundary"],
        "arch outside": bool(volatile.sum() > 1.0 or volatile.min() < 0.0),
        "distance": float(distance.max()),
        "errors": ratio.tolist(),
    }


def line(label: str, panel: np.ndarray, dist: str) -> None:
    """Fit a panel both ways and print what differs."""
    table = fit_garch_batch(panel, dist=dist).table.to_dicts()
    rows = pl.DataFrame(
        [
            compare(panel[:, column], dist, fit)
            for column, fit in enumerate(table)
            if fit["status"] in {"ok", "weak"}
        ]
    )
    worse = rows.filter(pl.col("above default") < -TOLERANCE)
    same = rows.filter("inside", pl.col("above tight").abs() < TOLERANCE)
    distance = same["distance"].fill_nan(None).drop_nulls()
    ratio = same["errors"].explode().fill_nan(None).drop_nulls()
    cells = [
        f"{label:22} {dist:7} {len(rows):4}",
        f"{rows['inside'].sum():6}",
        f"{len(worse) - worse['arch outside'].sum():5} {worse['arch outside'].sum():7}",
        f"{(rows['above default'] > TOLERANCE).sum():6}",
        f"{distance.max() if len(distance) else math.nan:9.1e} {(distance > 2e-3).sum():5}",
        f"{ratio.median() if len(ratio) else math.nan:9.1e}",
        f"{ratio.quantile(0.99) if len(ratio) else math.nan:9.1e}",
    ]
    print("  ".join(cells), flush=True)


def markets() -> list[tuple[str, np.ndarray]]:
    """Percent returns of the series that come with `arch`."""
    import importlib

    found = []
    for name, column in MARKETS:
        data = importlib.import_module(f"arch.data.{name}").load()
        values = data[column].dropna()
        values = values[values > 0.0]
        found.append((name, 100.0 * np.diff(np.log(values.to_numpy(dtype=np.float64)))))
    return found


def simulated(count: int, series: int, alpha: float, beta: float, *, student: bool) -> np.ndarray:
    """(count, series) simulated returns of variance 1."""
    rng = np.random.default_rng([count, int(1000 * alpha), student])
    shocks = rng.standard_t(6.0, (count, series)) * math.sqrt(4.0 / 6.0) if student else None
    shocks = rng.standard_normal((count, series)) if shocks is None else shocks
    return simulate_garch(shocks, omega=1.0 - alpha - beta, alpha=alpha, beta=beta)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--series", type=int, default=50, help="simulated series a line")
    series = arguments.parse_args().series
    warnings.simplefilter("ignore")
    print(
        f"log-likelihood below or above default arch by more than {TOLERANCE:g}, relatively; `outside` are those"
    )
    print(
        "below an arch that is outside its own constraints; distance in standard errors from a tightened arch"
    )
    print(
        f"{'series':22} {'density':7} {'fits':>4}  {'inside':>6}  {'below':>5} {'outside':>7}  {'above':>6}"
        f"  {'distance':>9} {'>2e-3':>5}  {'errors':>9}  {'99 %':>9}"
    )
    for name, returns in markets():
        for dist in ("normal", "t"):
            line(f"{name}, n={len(returns)}", returns[:, np.newaxis], dist)
    for count in (250, 1000, 4000):
        for label, alpha, beta in (
            ("garch .08 .90", 0.08, 0.90),
            ("garch .10 .80", 0.10, 0.80),
            ("noise", 0.0, 0.0),
        ):
            for student, dist in ((False, "normal"), (True, "t")):
                line(f"{label}, n={count}", simulated(count, series, alpha, beta, student=student), dist)


if __name__ == "__main__":
    main()
