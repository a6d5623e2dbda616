"""Tests of one series, by name: stationarity, unit root, normality, random walk, long memory.

The tests are those of statsmodels, scipy and arch, with one kind of result. Absent values are dropped; a
series that cannot be tested has a reason and no statistic. ``series_test("kpss", values)`` finds a test by
its name in `SERIES_TESTS`.

References
----------
.. [1] Said, S. E. and Dickey, D. A. (1984), "Testing for unit roots in autoregressive-moving average models
   of unknown order", Biometrika 71, 599-607.
.. [2] Kwiatkowski, D., Phillips, P. C. B., Schmidt, P. and Shin, Y. (1992), "Testing the null hypothesis of
   stationarity against the alternative of a unit root", Journal of Econometrics 54, 159-178.
.. [3] Phillips, P. C. B. and Perron, P. (1988), "Testing for a unit root in time series regression",
   Biometrika 75, 335-346.
.. [4] Jarque, C. M. and Bera, A. K. (1987), "A test for normality of observations and regression
   residuals", International Statistical Review 55, 163-172.
.. [5] Shapiro, S. S. and Wilk, M. B. (1965), "An analysis of variance test for normality (complete
   samples)", Biometrika 52, 591-611.
.. [6] Lo, A. W. and MacKinlay, A. C. (1988), "Stock market prices do not follow random walks: evidence from
   a simple specification test", Review of Financial Studies 1, 41-66.
.. [7] Di Matteo, T. (2007), "Multi-scaling in finance", Quantitative Finance 7, 21-36 (generalised Hurst
   exponent, q = 2).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError

__all__ = [
    "SERIES_TESTS",
    "SeriesTest",
    "adf",
    "hurst_exponent",
    "jarque_bera",
    "kpss",
    "phillips_perron",
    "series_test",
    "shapiro_wilk",
    "variance_ratio",
]

Floats = NDArray[np.float64]
Outcome = tuple[float, float | None, int | None, str | None]
"""Statistic, p-value, lags, note."""

LEAST: Final = 20
CONSTANT_TOLERANCE: Final = 1e-12
SHAPIRO_LIMIT: Final = 5000
KPSS_TABLE: Final = (0.01, 0.1)


@dataclass(frozen=True)
class SeriesTest:
    """Result of one test of one series.

    Attributes:
        null_hypothesis: what a small p-value speaks against, in words.
        count: values tested.
        statistic: the test statistic (or the estimate, for the Hurst exponent); None if not tested.
        pvalue: p-value; None if not tested, or where there is none.
        lags: lags used; None for tests without.
        note: what to know about this p-value, or None.
        reason: why there is no statistic, or None.
    """

    null_hypothesis: str
    count: int
    statistic: float | None = None
    pvalue: float | None = None
    lags: int | None = None
    note: str | None = None
    reason: str | None = None


def adf(
    values: Floats,
    *,
    trend: Literal["n", "c", "ct"] = "c",
    max_lags: int | None = None,
    selection: Literal["AIC", "BIC"] | None = "AIC",
) -> SeriesTest:
    """Augmented Dickey-Fuller test [1]_ (statsmodels ``adfuller``).

    Args:
        values: (T,) levels; NaN or infinite = absent, dropped.
        trend: no constant, constant, or constant and trend.
        max_lags: most lagged differences, or their number without a selection; None for 12 (T/100)^(1/4).
        selection: criterion that chooses the lags, None for ``max_lags`` of them.
    """

    def compute(present: Floats) -> Outcome:
        from statsmodels.tsa.stattools import adfuller

        result = adfuller(present, maxlag=max_lags, regression=trend, autolag=selection, result_object=False)
        return result[0], result[1], result[2], None

    return _tested(values, "the series has a unit root", compute)


def kpss(
    values: Floats, *, trend: Literal["c", "ct"] = "c", lags: int | Literal["auto", "legacy"] = "auto"
) -> SeriesTest:
    """Test of stationarity of Kwiatkowski, Phillips, Schmidt and Shin [2]_ (statsmodels ``kpss``).

    Args:
        values: (T,) levels; NaN or infinite = absent, dropped.
        trend: stationary about a constant, or about a trend.
        lags: of the long-run variance.

    Returns:
        The test. Its table of p-values spans 0.01 to 0.1; a note says where the p-value lies beyond it.
    """

    def compute(present: Floats) -> Outcome:
        from statsmodels.tsa.stattools import kpss as statsmodels_kpss

        statistic, pvalue, used, _ = statsmodels_kpss(
            present, regression=trend, nlags=lags, result_object=False
        )
        beyond = {KPSS_TABLE[0]: "the p-value is at most 0.01", KPSS_TABLE[1]: "the p-value is at least 0.1"}
        return statistic, pvalue, used, beyond.get(float(pvalue))

    return _tested(
        values, f"the series is stationary about a {'trend' if trend == 'ct' else 'constant'}", compute
    )


def phillips_perron(
    values: Floats, *, trend: Literal["n", "c", "ct"] = "c", lags: int | None = None
) -> SeriesTest:
    """Phillips-Perron test [3]_ (``arch.unitroot.PhillipsPerron``, tau).

    Args:
        values: (T,) levels; NaN or infinite = absent, dropped.
        trend: no constant, constant, or constant and trend.
        lags: of the long-run variance; None for 12 (T/100)^(1/4).
    """

    def compute(present: Floats) -> Outcome:
        from arch.unitroot import PhillipsPerron

        test = PhillipsPerron(present, lags=lags, trend=trend)
        return test.stat, test.pvalue, test.lags, None

    return _tested(values, "the series has a unit root", compute)


def jarque_bera(values: Floats) -> SeriesTest:
    """Jarque-Bera test [4]_ of skewness and kurtosis (scipy ``jarque_bera``).

    Args:
        values: (T,) returns or residuals; NaN or infinite = absent, dropped.
    """

    def compute(present: Floats) -> Outcome:
        from scipy.stats import jarque_bera as scipy_jarque_bera

        result = scipy_jarque_bera(present)
        return float(result.statistic), float(result.pvalue), None, None

    return _tested(values, "the values are normal", compute)


def shapiro_wilk(values: Floats) -> SeriesTest:
    """Shapiro-Wilk test [5]_ (scipy ``shapiro``).

    Args:
        values: (T,) returns or residuals; NaN or infinite = absent, dropped.

    Returns:
        The test; with more than 5,000 values a note says that the p-value may be inaccurate.
    """

    def compute(present: Floats) -> Outcome:
        from scipy.stats import shapiro

        result = shapiro(present)
        large = len(present) > SHAPIRO_LIMIT
        note = (
            f"{len(present)} values: above {SHAPIRO_LIMIT} the p-value may be inaccurate" if large else None
        )
        return float(result.statistic), float(result.pvalue), None, note

    return _tested(values, "the values are normal", compute)


def variance_ratio(values: Floats, *, lags: int = 2, trend: Literal["n", "c"] = "c") -> SeriesTest:
    """Lo and MacKinlay's test [6]_, robust to heteroskedasticity (``arch.unitroot.VarianceRatio``).

    Args:
        values: (T,) log prices; NaN or infinite = absent, dropped.
        lags: bars of the longer return, whose variance is compared with that of one bar; at least 2.
        trend: whether the log price may drift.
    """

    def compute(present: Floats) -> Outcome:
        from arch.unitroot import VarianceRatio

        test = VarianceRatio(present, lags=lags, trend=trend)
        return test.stat, test.pvalue, test.lags, None

    return _tested(values, "the series is a random walk", compute)


def hurst_exponent(values: Floats) -> SeriesTest:
    """Hurst exponent: the slope of log root-mean-square change over k bars on log k, k = 1, 2, 4 .. T/8 [7]_.

    0.5 is a random walk, less returns to its mean, more trends. An estimate without a p-value.

    Args:
        values: (T,) levels (log prices, a spread); NaN or infinite = absent, dropped.
    """

    def compute(present: Floats) -> Outcome:
        steps = 2 ** np.arange(int(math.log2(len(present) / 8)) + 1)
        sizes = [math.sqrt(np.mean((present[k:] - present[:-k]) ** 2)) for k in steps]
        return float(np.polyfit(np.log(steps), np.log(sizes), 1)[0]), None, None, None

    return _tested(values, "0.5: the series is a random walk", compute)


SERIES_TESTS: Final[dict[str, Callable[..., SeriesTest]]] = {
    "adf": adf,
    "hurst": hurst_exponent,
    "jarque_bera": jarque_bera,
    "kpss": kpss,
    "phillips_perron": phillips_perron,
    "shapiro_wilk": shapiro_wilk,
    "variance_ratio": variance_ratio,
}
"""The tests by name."""


def series_test(name: str, values: Floats, **options: object) -> SeriesTest:
    """Run a test by its name.

    Args:
        name: a key of `SERIES_TESTS`.
        values: (T,) levels or returns, as the test takes them.
        options: of the test.

    Raises:
        ConfigurationError: no test has this name.
    """
    if name not in SERIES_TESTS:
        raise ConfigurationError(f"series test {name!r} is not known; use one of {', '.join(SERIES_TESTS)}")
    return SERIES_TESTS[name](values, **options)


def _tested(values: Floats, null_hypothesis: str, compute: Callable[[Floats], Outcome]) -> SeriesTest:
    """Run a test on the present values, scaled by a power of two; what stops it is the reason."""
    series = np.ravel(np.asarray(values, dtype=np.float64))
    present = series[np.isfinite(series)]
    count = len(present)

    def untested(reason: str) -> SeriesTest:
        return SeriesTest(null_hypothesis, count, reason=reason)

    if count < LEAST:
        return untested(f"insufficient_data: {count} values, {LEAST} needed")
    largest = float(np.max(np.abs(present)))
    present = np.ldexp(present, -math.frexp(largest)[1])
    if np.ptp(present) <= CONSTANT_TOLERANCE:
        return untested("constant_series")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            statistic, pvalue, lags, note = compute(present)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            return untested(f"test_failed: {error}")
    if not math.isfinite(statistic) or (pvalue is not None and not math.isfinite(pvalue)):
        return untested(f"test_failed: statistic {statistic:g}")
    return SeriesTest(
        null_hypothesis,
        count,
        statistic=float(statistic),
        pvalue=None if pvalue is None else float(pvalue),
        lags=None if lags is None else int(lags),
        note=note,
    )
