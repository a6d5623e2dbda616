"""Pairs: hedge ratio, spread, cointegration, score and selection."""

from garch_platform.quant.pairs.cointegration import CointegrationTest, engle_granger
from garch_platform.quant.pairs.hedge import hedge_ratio_ols
from garch_platform.quant.pairs.spread import half_life, spread

__all__ = [
    "CointegrationTest",
    "engle_granger",
    "half_life",
    "hedge_ratio_ols",
    "spread",
]
