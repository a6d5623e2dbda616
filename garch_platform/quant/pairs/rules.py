"""What a selection asks of a pair: the gates of both profiles, and what they share.

``classic`` holds the thresholds of the original documents as they stand: correlation of log *prices*,
Engle-Granger at 5 %, composite score. Log prices of unrelated random walks correlate, so these gates pass
pairs by chance. ``honest`` asks for correlation of *returns* and Engle-Granger at 1 % on the formation
window, then tests what survives again on later bars with everything frozen, and controls the false
discovery rate over the survivors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from garch_platform.errors import ConfigurationError

__all__ = ["PROFILES", "ClassicGates", "FalseDiscovery", "HonestGates", "Profile", "SelectionRules"]

Profile = Literal["honest", "classic"]
PROFILES: Final[tuple[Profile, ...]] = ("honest", "classic")
FalseDiscovery = Literal["bh", "by", "by_all"]
Preselected = Literal["none", "distance", "cluster"]


@dataclass(frozen=True)
class ClassicGates:
    """Gates of the original documents.

    Attributes:
        min_price_correlation: least correlation of log prices, formation window.
        max_pvalue: greatest Engle-Granger p-value of the better direction, same bars.
        min_score: least composite score.
    """

    min_price_correlation: float = 0.8
    max_pvalue: float = 0.05
    min_score: float = 0.7


@dataclass(frozen=True)
class HonestGates:
    """Gates of the two-stage selection.

    Attributes:
        min_return_correlation: least correlation of returns, formation window.
        max_pvalue: greatest Engle-Granger p-value of the better direction, formation window.
        false_discovery: ``bh`` (Benjamini-Hochberg) or ``by`` (Benjamini-Yekutieli) over the pairs that
            reach the confirmation, on its p-values; ``by_all`` has one stage only: Benjamini-Yekutieli
            over both Engle-Granger tests of every pair, in place of ``max_pvalue`` and the confirmation.
        false_discovery_rate: share of false pairs among the selected that is tolerated on average.
    """

    min_return_correlation: float = 0.7
    max_pvalue: float = 0.01
    false_discovery: FalseDiscovery = "bh"
    false_discovery_rate: float = 0.05

    def __post_init__(self) -> None:
        if self.false_discovery not in get_args(FalseDiscovery):
            raise ConfigurationError(
                f"false_discovery {self.false_discovery!r} is not known; "
                f"use one of {', '.join(get_args(FalseDiscovery))}"
            )
        if not 0.0 < self.false_discovery_rate < 1.0:
            raise ConfigurationError(
                f"false_discovery_rate is {self.false_discovery_rate}; give a share between 0 and 1"
            )


@dataclass(frozen=True)
class SelectionRules:
    """All that a selection depends on beside the prices.

    Attributes:
        profile: whose verdict is ``rank`` and ``passed``; both are always computed.
        classic, honest: the gates.
        preselection: ``none`` tests every pair; ``distance`` and ``cluster`` only those that
            `preselect_pairs` chooses on the formation window.
        lags: lagged differences in every Dickey-Fuller regression.
        min_coverage: least share of the formation bars on which both legs have a close.
        correlation_horizon: bars over which returns are taken for their correlation. Short horizons
            understate it (Epps effect): use an hour for intraday bars.
        entry_zscore, exit_zscore: thresholds of the backtests.
        cost_bps: one-way cost of each leg, basis points of the value traded.
    """

    profile: Profile = "honest"
    classic: ClassicGates = field(default_factory=ClassicGates)
    honest: HonestGates = field(default_factory=HonestGates)
    preselection: Preselected = "none"
    lags: int = 1
    min_coverage: float = 0.9
    correlation_horizon: int = 1
    entry_zscore: float = 2.0
    exit_zscore: float = 0.5
    cost_bps: float = 5.0

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ConfigurationError(
                f"profile {self.profile!r} is not known; use one of {', '.join(PROFILES)}"
            )
        if self.preselection not in get_args(Preselected):
            raise ConfigurationError(
                f"preselection {self.preselection!r} is not known; use one of {', '.join(get_args(Preselected))}"
            )
        for name, least in (("lags", 0), ("correlation_horizon", 1), ("exit_zscore", 0.0), ("cost_bps", 0.0)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; use at least {least}")
        if self.entry_zscore <= self.exit_zscore:
            raise ConfigurationError(
                f"entry_zscore {self.entry_zscore} is not above exit_zscore {self.exit_zscore}: "
                "a position would be closed as it is opened"
            )
