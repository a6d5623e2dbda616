"""Pure statistics: numbers in, numbers out.

No file, clock, setting or calendar is known here; annualisation factors and windows are arguments.
"""

from garch_platform.quant.adequacy import model_adequacy
from garch_platform.quant.features import FEATURE_SCHEMA, FeatureWindows, compute_features
from garch_platform.quant.returns import annualised_volatility, log_prices, log_returns
from garch_platform.quant.score_tests import score_tests
from garch_platform.quant.series_tests import series_test
from garch_platform.quant.stability import StabilityGate, apply_gate, arch_lm, ljung_box, stability_tests

__all__ = [
    "FEATURE_SCHEMA",
    "FeatureWindows",
    "StabilityGate",
    "annualised_volatility",
    "apply_gate",
    "arch_lm",
    "compute_features",
    "ljung_box",
    "log_prices",
    "log_returns",
    "model_adequacy",
    "score_tests",
    "series_test",
    "stability_tests",
]
