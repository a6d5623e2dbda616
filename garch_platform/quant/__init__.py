"""Pure statistics: numbers in, numbers out.

No file, clock, setting or calendar is known here; annualisation factors and windows are arguments. These
names are the interface; ``docs/api.md`` shows them at work.
"""

from garch_platform.quant.adequacy import model_adequacy
from garch_platform.quant.features import FeatureWindows, compute_features
from garch_platform.quant.pairs.floor import selection_floor
from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.rules import SelectionRules
from garch_platform.quant.pairs.scan import scan_pairs
from garch_platform.quant.pairs.selection import select_pairs
from garch_platform.quant.series_tests import series_test
from garch_platform.quant.stability import StabilityGate, apply_gate, stability_tests
from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility.batch import fit_garch_batch

__all__ = [
    "FeatureWindows",
    "PairPanel",
    "SelectionRules",
    "StabilityGate",
    "apply_gate",
    "compute_features",
    "fit_garch_batch",
    "model_adequacy",
    "scan_pairs",
    "select_pairs",
    "selection_floor",
    "series_test",
    "simulate_garch",
    "stability_tests",
]
