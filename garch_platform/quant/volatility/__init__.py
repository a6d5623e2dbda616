"""GARCH fits, their health, and variance forecasts."""

from garch_platform.quant.volatility.batch import GarchBatch, fit_garch_batch
from garch_platform.quant.volatility.forecast import ewma_variance, garch_variance, qlike

__all__ = ["GarchBatch", "ewma_variance", "fit_garch_batch", "garch_variance", "qlike"]
