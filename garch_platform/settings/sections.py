"""Sections of settings for research: universe, features, gates, stores and files."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from garch_platform.bars import Timeframe

__all__ = [
    "ALL_SYMBOLS",
    "Features",
    "Files",
    "Formation",
    "Garch",
    "Pairs",
    "Quality",
    "Section",
    "Simulated",
    "Stability",
    "Storage",
    "TradingDays",
    "Universe",
]

ALL_SYMBOLS = "all"
"""The sector that holds every symbol."""


class Section(BaseModel):
    """One section of settings: immutable, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sectors(Section):
    """Which sectors are ranked."""

    active: list[str] = Field(min_length=1)
    available: list[str]

    @model_validator(mode="after")
    def _active_is_available(self) -> Sectors:
        unknown = set(self.active) - set(self.available) - {ALL_SYMBOLS}
        if unknown:
            raise ValueError(
                f"active sectors {sorted(unknown)} are not among the available {self.available} or 'all'"
            )
        return self


class Universe(Section):
    """What is followed: exchange, bar length, source, sectors."""

    calendar: str
    timeframe: str
    source: Literal["alpaca", "files", "sample", "simulated", "yahoo"]
    sectors: Sectors

    @field_validator("timeframe")
    @classmethod
    def _known(cls, value: str) -> str:
        return Timeframe.parse(value).name


class TradingDays(Section):
    """The window that is kept a session at a time."""

    start: date
    end: date | None
    max_keys: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> TradingDays:
        if self.end is not None and self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")
        return self


class Features(Section):
    """Windows of the features, in bars."""

    rolling_window: int = Field(ge=2)
    min_periods: int = Field(ge=2)
    ma_short: PositiveInt
    ma_long: PositiveInt
    rsi_window: PositiveInt


class Formation(Section):
    """The bars on which stability and pairs are estimated."""

    timeframe: str | None
    sessions: PositiveInt
    out_of_sample_sessions: PositiveInt

    @field_validator("timeframe")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return None if value is None else Timeframe.parse(value).name


class StabilityGate(Section):
    """Thresholds of one stability gate."""

    arch_pvalue: float = Field(ge=0, le=1)
    rolling_std_cv: float = Field(gt=0)
    ljung_box_pvalue: float = Field(ge=0, le=1)


class Stability(Section):
    """The stability tests and their gates."""

    gate: Literal["strict", "relaxed"]
    test_window: int = Field(ge=2)
    arch_lags: PositiveInt
    ljung_box_lags: PositiveInt
    min_observations: int = Field(ge=20)
    gates: dict[Literal["strict", "relaxed"], StabilityGate]


class Garch(Section):
    """Windows and distributions of the GARCH fits."""

    sessions: PositiveInt
    distributions: list[Literal["normal", "t"]] = Field(min_length=1)
    min_observations: PositiveInt
    weak_observations: PositiveInt


class HonestPairs(Section):
    """Gates of the profile `honest`."""

    min_return_correlation: float = Field(ge=-1, le=1)
    max_pvalue: float = Field(gt=0, le=1)
    false_discovery: Literal["bh", "by", "by_all"]
    false_discovery_rate: float = Field(gt=0, lt=1)


class ClassicPairs(Section):
    """Gates of the profile `classic`."""

    min_price_correlation: float = Field(ge=-1, le=1)
    max_pvalue: float = Field(gt=0, le=1)
    min_score: float = Field(ge=0, le=1)


class Pairs(Section):
    """How pairs are selected and scored."""

    profile: Literal["honest", "classic"]
    formation_share: float = Field(gt=0, lt=1)
    preselection: Literal["none", "distance", "cluster"]
    lags: int = Field(ge=0)
    min_coverage: float = Field(gt=0, le=1)
    correlation_minutes: PositiveInt
    floor_draws: int = Field(ge=0)
    honest: HonestPairs
    classic: ClassicPairs
    entry_zscore: float = Field(gt=0)
    exit_zscore: float = Field(ge=0)
    cost_bps: float = Field(ge=0)


class Quality(Section):
    """Limits of a batch's and a bar's faults."""

    max_rejected_share: float = Field(ge=0, le=1)
    max_log_move: float = Field(gt=0)


class Storage(Section):
    """Where rows live and for how long."""

    lake_url: str | None
    database_url: str | None
    reproducibility_days: PositiveInt
    history_batch: PositiveInt


class Files(Section):
    """How the bar files are read."""

    path: Path | None
    columns: dict[str, str]
    timezone: str
    label: Literal["start", "end"]
    adjustment: Literal["raw", "split", "all"]
    feed: str
    resample: str | None


class Simulated(Section):
    """Size and seed of the simulated market."""

    symbols: int = Field(ge=2)
    sessions: PositiveInt
    last_session: date
    pairs: int = Field(ge=0)
    seed: int
