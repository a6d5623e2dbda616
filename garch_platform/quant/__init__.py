"""Pure statistics: numbers in, numbers out.

No file, clock, setting or calendar is known here; annualisation factors and windows are arguments.
"""

from garch_platform.quant.features import FEATURE_SCHEMA, FeatureWindows, compute_features
from garch_platform.quant.returns import annualised_volatility, log_prices, log_returns
from garch_platform.quant.stability import StabilityGate, apply_gate, stability_tests

__all__ = [
    "FEATURE_SCHEMA",
    "FeatureWindows",
    "StabilityGate",
    "annualised_volatility",
    "apply_gate",
    "compute_features",
    "log_prices",
    "log_returns",
    "stability_tests",
]
