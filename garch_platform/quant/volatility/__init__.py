"""GARCH fits, their health, and variance forecasts."""

from garch_platform.quant.volatility.batch import GarchBatch, fit_garch_batch
from garch_platform.quant.volatility.forecast import garch_variance, qlike

__all__ = ["GarchBatch", "fit_garch_batch", "garch_variance", "qlike"]
