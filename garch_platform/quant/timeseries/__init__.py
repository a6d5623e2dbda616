"""Time-series models and simulated markets with known truth."""

from garch_platform.quant.timeseries.generator import (
    MarketSpec,
    SimulatedMarket,
    simulate_garch,
    simulate_market,
)

__all__ = ["MarketSpec", "SimulatedMarket", "simulate_garch", "simulate_market"]
