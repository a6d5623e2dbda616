"""GARCH(1,1) over a universe against `arch`, `scivol` and `statsforecast`, one thread against one thread.

    python benchmarks/bench_garch.py [--quick]

Simulated GARCH(.08, .90) series, mean estimated (scivol: no mean term). Ours is `fit_garch_batch` as it is
called: fit, robust and Hessian errors, log-likelihood, residual tests and health of every series, over the
whole panel. The peers' times are medians over single series of the same panel: fit and robust errors, no
residual tests. Then time per series as the number and the length of the series grow, and what it takes to
compile the kernels and to load them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility import fit_garch_batch

LOAD = """
import time, numba
started = time.perf_counter()
import garch_platform.quant.volatility.garch_kernels, garch_platform.quant.volatility.variance_kernels
print(time.perf_counter() - started)
"""


def simulated(count: int, series: int, *, nu: float | None = None, alpha: float = 0.08) -> np.ndarray:
    """(count, series) returns with variance 1 and persistence .98 (0 where alpha is 0)."""
    rng = np.random.default_rng(count + series)
    if nu is None:
        shocks = rng.standard_normal((count, series))
    else:
        shocks = rng.standard_t(nu, (count, series)) * np.sqrt((nu - 2.0) / nu)
    beta = 0.98 - alpha if alpha else 0.0
    return simulate_garch(shocks, omega=1.0 - alpha - beta, alpha=alpha, beta=beta)


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def arch_seconds(panel: np.ndarray, dist: str, series: int) -> float:
    """Median time of `arch` for one fit with its robust errors."""
    from arch import arch_model

    def fit(column: int) -> None:
        result = arch_model(panel[:, column], dist=dist, rescale=False).fit(disp="off", show_warning=False)
        assert np.isfinite(result.params).all()
        assert len(result.std_err) == len(result.params)

    return float(
        np.median([median_seconds(lambda column=column: fit(column), 1) for column in range(series)])
    )


def scivol_seconds(panel: np.ndarray, dist: str, series: int) -> float | None:
    """Median time of `scivol` for one maximum likelihood fit; None where it is not installed."""
    if importlib.util.find_spec("scivol") is None:
        return None
    import scivol

    specification = scivol.GARCH(1, 1) + (scivol.Normal() if dist == "normal" else scivol.StudentT())

    def fit(column: int) -> None:
        result = specification.fit(panel[:, column], show_progress=False, n_jobs=1)
        assert np.isfinite(result.log_likelihood)

    return float(
        np.median([median_seconds(lambda column=column: fit(column), 3) for column in range(series)])
    )


def statsforecast_seconds(panel: np.ndarray, dist: str, series: int) -> float | None:
    """Median time of `statsforecast` for one fit without errors; None where absent, or for Student-t."""
    if dist != "normal" or importlib.util.find_spec("statsforecast") is None:
        return None
    from statsforecast.models import GARCH

    model = GARCH(p=1, q=1)
    model.fit(panel[:, 0])
    times = [median_seconds(lambda column=column: model.fit(panel[:, column]), 1) for column in range(series)]
    return float(np.median(times))


def ours_seconds(panel: np.ndarray, repeats: int = 5, **options: object) -> float:
    """Median time per series of `fit_garch_batch` over the panel."""
    return median_seconds(lambda: fit_garch_batch(panel, **options), repeats) / panel.shape[1]


def ratio(peer: float | None, ours: float) -> str:
    """``123x``, or that the peer is not there."""
    return "not installed" if peer is None else f"{peer / ours:.0f}x"


def against_peers(length: int, universe: int, peers: int) -> None:
    """The table of ratios."""
    print(f"\nGARCH(.08, .90), {length:,} returns, ours over {universe} series, peers on {peers}")
    print(
        f"{'density':8} {'starts':8} {'ours us':>9} {'arch us':>9} {'vs arch':>8} {'scivol us':>10} {'vs scivol':>10}"
        f" {'statsforecast':>14}"
    )
    for dist, nu in (("normal", None), ("t", 6.0)):
        panel = simulated(length, universe, nu=nu)
        arch, scivol = arch_seconds(panel, dist, peers), scivol_seconds(panel, dist, peers)
        forecasters = statsforecast_seconds(panel, dist, peers)
        for starts in ("several", "single"):
            ours = ours_seconds(panel, dist=dist, starts=starts)
            versus = "-" if dist != "normal" else ratio(forecasters, ours)
            c_library = "-" if scivol is None else f"{1e6 * scivol:.0f}"
            print(
                f"{dist:8} {starts:8} {1e6 * ours:9.0f} {1e6 * arch:9.0f} {ratio(arch, ours):>8}"
                f" {c_library:>10} {ratio(scivol, ours):>10} {versus:>14}",
                flush=True,
            )


def growth(quick: bool) -> None:
    """Time per series as N and n grow (single start, so that the work is the same), and by model."""
    print("\ntime per series (us) at 1,000 returns as the universe grows, single start")
    for series in (1, 8, 64, 512) if quick else (1, 8, 64, 512, 4096):
        print(
            f"  {series:>5} series {1e6 * ours_seconds(simulated(1000, series), 3, starts='single'):9.0f}",
            flush=True,
        )
    print("time per series and 1,000 returns (us), 64 series, single start, as they get longer")
    for length in (500, 2000, 8000) if quick else (500, 1000, 2000, 4000, 8000, 16000, 32000):
        each = 1e6 * ours_seconds(simulated(length, 64), 3, starts="single") * 1000 / length
        print(f"  {length:>6} returns {each:9.1f}", flush=True)
    print("time per series (us), 2,000 returns, 64 series: the models, and noise, where every start is tried")
    for model in ("GARCH", "GJR"):
        for dist in ("normal", "t"):
            nu = None if dist == "normal" else 6.0
            plain, noise = simulated(2000, 64, nu=nu), simulated(2000, 64, nu=nu, alpha=0.0)
            times = [1e6 * ours_seconds(panel, 3, model=model, dist=dist) for panel in (plain, noise)]
            print(f"  {model:6} {dist:7} GARCH {times[0]:7.0f}   noise {times[1]:7.0f}", flush=True)


def compilation() -> None:
    """Cold compile, then the load from the cache, each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        cold, cached = (
            float(
                subprocess.run(
                    [sys.executable, "-c", LOAD], env=environment, check=True, capture_output=True, text=True
                ).stdout
            )
            for _ in range(2)
        )
    print(
        f"\nkernels of quant/volatility: compiled cold in {cold:.1f} s, loaded from the cache in {cached:.2f} s"
    )


def main() -> None:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="smaller, about half a minute")
    quick = arguments.parse_args().quick
    warnings.simplefilter("ignore")
    threadpool_limits(1)
    fit_garch_batch(simulated(300, 8))
    against_peers(2000, 100 if quick else 500, 8 if quick else 40)
    if not quick:
        against_peers(1000, 500, 40)
    growth(quick)
    compilation()


if __name__ == "__main__":
    main()
