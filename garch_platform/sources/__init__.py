"""Sources of bars, each behind the `BarSource` protocol."""

from __future__ import annotations

from garch_platform.sources.directory import load_symbol_directory
from garch_platform.sources.files import FilesSource
from garch_platform.sources.sample import SampleSource
from garch_platform.sources.simulated import SimulatedSource
from garch_platform.sources.source import BarSource, require_symbols

__all__ = [
    "BarSource",
    "FilesSource",
    "SampleSource",
    "SimulatedSource",
    "load_symbol_directory",
    "require_symbols",
]
