"""Sources of bars, each behind the `BarSource` protocol."""

from __future__ import annotations

from garch_platform.sources.alpaca import AlpacaSource
from garch_platform.sources.alpaca_assets import AlpacaAssets
from garch_platform.sources.directory import load_symbol_directory
from garch_platform.sources.files import FilesSource
from garch_platform.sources.sample import SampleSource
from garch_platform.sources.simulated import SimulatedSource
from garch_platform.sources.source import BarSource, require_symbols
from garch_platform.sources.yahoo import YahooSource

__all__ = [
    "AlpacaAssets",
    "AlpacaSource",
    "BarSource",
    "FilesSource",
    "SampleSource",
    "SimulatedSource",
    "YahooSource",
    "load_symbol_directory",
    "require_symbols",
]
