"""Pairs: hedge ratio, spread, cointegration, score and ranking."""

from garch_platform.quant.pairs.cointegration import CointegrationTest, engle_granger
from garch_platform.quant.pairs.hedge import hedge_ratio_ols
from garch_platform.quant.pairs.ranking import PairGates, rank_pairs
from garch_platform.quant.pairs.score import backtest_spread, composite_score
from garch_platform.quant.pairs.spread import half_life, spread

__all__ = [
    "CointegrationTest",
    "PairGates",
    "backtest_spread",
    "composite_score",
    "engle_granger",
    "half_life",
    "hedge_ratio_ols",
    "rank_pairs",
    "spread",
]
