"""Tables of the database: entities, verdicts and events.

Bars and features live in the lake (`garch_platform.store.lake`). Numbers are double precision, because
a value that is read must equal the value written to the bit; timestamps are UTC and timezone-aware.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    false,
    true,
)
from sqlalchemy.types import TypeEngine

from garch_platform.errors import DataError

__all__ = ["METADATA", "RECORDED_AT", "UtcDateTime", "polars_type", "unique_key"]

NAMING_CONVENTION: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

RECORDED_AT: Final = frozenset({"created_at", "recorded_at", "detected_at", "received_at", "added_at"})
"""Columns that say when a row was written; they are no part of what it states."""


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: stored in UTC, returned timezone-aware; a naive datetime is refused with `DataError`."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC (SQLite keeps it without an offset)."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise DataError(f"datetime {value} has no time zone; give it in UTC (tzinfo=datetime.UTC)")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware UTC datetime."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _now() -> datetime:
    return datetime.now(UTC)


SYMBOL: Final = String(16).with_variant(String(16, collation="C"), "postgresql")
ANY_SYMBOL: Final = String().with_variant(String(collation="C"), "postgresql")
"""Symbols compare by code point on every dialect, as in Python: pairs hold symbol_1 < symbol_2."""


def _id() -> Column[Any]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _symbol(name: str = "symbol") -> Column[Any]:
    return Column(name, SYMBOL, ForeignKey("symbols.symbol"), nullable=False)


def _text(name: str, length: int | None = None, *, required: bool = False) -> Column[Any]:
    return Column(name, String(length), nullable=not required)


def _numbers(names: str) -> list[Column[Any]]:
    return [Column(name, Double) for name in names.split()]


def _dates(names: str) -> list[Column[Any]]:
    return [Column(name, Date) for name in names.split()]


def _written(name: str) -> Column[Any]:
    return Column(name, UtcDateTime, nullable=False, default=_now)


def _lineage() -> list[Column[Any]]:
    return [Column("lake_version", Integer), Column("input_hash", String(64)), _written("created_at")]


def _probability(name: str) -> CheckConstraint:
    return CheckConstraint(f"{name} IS NULL OR ({name} >= 0 AND {name} <= 1)", name=name)


def _counts(names: str) -> list[Column[Any]]:
    return [Column(name, Integer) for name in names.split()]


def _flags(names: str) -> list[Column[Any]]:
    return [Column(name, Boolean) for name in names.split()]


def _verdict(profile: str) -> list[Column[Any]]:
    return [Column(f"{profile}_rank", Integer), _text(f"{profile}_gate", 32), _text(f"{profile}_reason")]


METADATA = MetaData(naming_convention=NAMING_CONVENTION)

Table(
    "symbols",
    METADATA,
    Column("symbol", SYMBOL, primary_key=True),
    _text("name"),
    _text("sector", 64),
    _text("asset_class", 32),
    Column("is_active", Boolean, nullable=False, server_default=true()),
    *_dates("first_session last_session history_end"),
    _written("added_at"),
    Column("retired_at", UtcDateTime),
    Index(None, "sector"),
    Index(None, "is_active"),
    comment="What may be held: one row a symbol, never deleted; bulk past ends before history_end.",
)

Table(
    "market_data",
    METADATA,
    _id(),
    _symbol(),
    Column("timestamp", UtcDateTime, nullable=False),
    _text("timeframe", 8, required=True),
    *_numbers("open high low close volume vwap"),
    Column("trade_count", BigInteger),
    _text("feed", 32, required=True),
    _text("data_source", 32, required=True),
    Column("is_proxy", Boolean, nullable=False, server_default=false()),
    _text("channel", 16),
    _written("received_at"),
    UniqueConstraint("symbol", "timeframe", "timestamp", "feed", "data_source"),
    Index(None, "symbol", "timestamp"),
    Index(None, "received_at"),
    comment="Live bars as they arrive.",
)

Table(
    "variance_stability_tracking",
    METADATA,
    _id(),
    _symbol(),
    Column("test_date", Date, nullable=False),
    Column("record_count", Integer, nullable=False),
    *_numbers("arch_test_pvalue rolling_std_cv ljung_box_pvalue"),
    Column("is_stable", Boolean, nullable=False),
    _text("filter_reason"),
    Column("test_window", Integer, nullable=False, server_default="30"),
    Column("arch_lags", Integer, nullable=False, server_default="5"),
    Column("ljung_box_lags", Integer),
    _text("gate", 16),
    *_dates("window_start window_end"),
    *_lineage(),
    UniqueConstraint("symbol", "test_date"),
    Index(None, "test_date", "is_stable"),
    Index(None, "filter_reason"),
    _probability("arch_test_pvalue"),
    _probability("ljung_box_pvalue"),
    CheckConstraint("rolling_std_cv IS NULL OR rolling_std_cv >= 0", name="rolling_std_cv"),
    CheckConstraint("record_count >= 0", name="record_count"),
    CheckConstraint("test_window >= 2", name="test_window"),
    CheckConstraint("arch_lags >= 1", name="arch_lags"),
    CheckConstraint("gate IN ('strict', 'relaxed')", name="gate"),
    comment="One verdict a symbol and day: is its variance stable enough to be modelled.",
)

Table(
    "garch_models",
    METADATA,
    _id(),
    _symbol(),
    Column("fit_date", Date, nullable=False),
    _text("model", 32, required=True),
    _text("distribution", 16, required=True),
    _text("timeframe", 8),
    *_numbers("mu omega alpha beta nu se_mu se_omega se_alpha se_beta se_nu log_likelihood aic bic"),
    *_numbers("persistence variance_half_life volatility_annualized forecast_variance last_variance"),
    _text("status", 16, required=True),
    _text("reason"),
    Column("n_observations", Integer),
    Column("scale", Double),
    Column("converged", Boolean),
    Column("iterations", Integer),
    Column("at_boundary", Boolean),
    _text("boundary"),
    *_numbers("ljung_box_pvalue arch_lm_pvalue"),
    _text("start", 16),
    Column("gradient_norm", Double),
    _text("fallback", 8),
    _text("fallback_reason"),
    _text("adequacy", 16),
    _text("adequacy_failing"),
    *_numbers("joint_sign_bias_pvalue cusum_squares_pvalue"),
    Column("is_selected", Boolean),
    *_dates("window_start window_end"),
    *_lineage(),
    UniqueConstraint("symbol", "fit_date", "model", "distribution"),
    Index(None, "fit_date", "status"),
    CheckConstraint("status IN ('ok', 'weak', 'insufficient', 'failed')", name="status"),
    _probability("ljung_box_pvalue"),
    _probability("arch_lm_pvalue"),
    comment="One fit a symbol, day, model and distribution, with its health.",
)

Table(
    "pair_rankings",
    METADATA,
    _id(),
    _text("sector", 64, required=True),
    Column("ranking_date", Date, nullable=False),
    _symbol("symbol_1"),
    _symbol("symbol_2"),
    Column("symbol_y", SYMBOL),
    Column("symbol_x", SYMBOL),
    _text("profile", 32),
    Column("n_observations", Integer),
    *_numbers("coverage price_correlation return_correlation"),
    *_numbers("statistic_1_on_2 pvalue_1_on_2 statistic_2_on_1 pvalue_2_on_1 coint_statistic coint_pvalue"),
    Column("coint_lags", Integer),
    *_numbers("johansen_trace_0 johansen_trace_1 kss_statistic kss_pvalue hurst"),
    Column("johansen_rank", Integer),
    *_numbers("hedge_ratio intercept half_life spread_mean spread_std spread_zscore"),
    Column("confirmation_observations", Integer),
    *_numbers("confirmation_statistic confirmation_pvalue confirmation_qvalue"),
    *_numbers("fit_score volatility_score trading_score diagnostics_score score aic bic"),
    *_numbers("oos_sharpe oos_probabilistic_sharpe"),
    Column("oos_trades", Integer),
    *_verdict("honest"),
    *_verdict("classic"),
    Column("rank", Integer),
    Column("passed", Boolean),
    _text("gate", 32),
    _text("rejection_reason"),
    *_dates("formation_start formation_end confirmation_start confirmation_end"),
    *_dates("out_of_sample_start out_of_sample_end"),
    *_lineage(),
    UniqueConstraint("sector", "ranking_date", "symbol_1", "symbol_2"),
    Index(None, "ranking_date", "sector", "rank"),
    CheckConstraint("symbol_1 < symbol_2", name="ordered"),
    comment="One row a pair, sector and day: estimates, scores, rank, and why it was rejected.",
)

Table(
    "scan_ledger",
    METADATA,
    _id(),
    _text("sector", 64, required=True),
    Column("ranking_date", Date, nullable=False),
    _text("profile", 32, required=True),
    *_counts("pairs tested correlated significant confirmed ranked floor_draws"),
    *_numbers("floor_median floor_q95 floor_any detectable_half_life"),
    *_counts("formation_bars confirmation_bars"),
    *_lineage(),
    UniqueConstraint("sector", "ranking_date", "profile"),
    Index(None, "ranking_date"),
    _probability("floor_any"),
    comment="One row a ranking and profile: pairs left by each stage, and what chance alone passes.",
)

Table(
    "rejections",
    METADATA,
    _id(),
    Column("symbol", ANY_SYMBOL),
    _text("timeframe"),
    Column("timestamp", UtcDateTime),
    Column("session_date", Date),
    _text("feed"),
    _text("data_source"),
    _text("reason", 64, required=True),
    _text("detail"),
    _text("asset", 32, required=True),
    _text("partition_key", 64, required=True),
    _written("recorded_at"),
    Index(None, "symbol", "session_date"),
    Index(None, "asset", "partition_key", "symbol"),
    comment="Bars that were quarantined at ingest; replaced by (asset, partition_key, symbol).",
)

Table(
    "revisions",
    METADATA,
    _id(),
    _symbol(),
    _text("timeframe", 8, required=True),
    Column("session_date", Date, nullable=False),
    _text("old_hash", 64, required=True),
    _text("new_hash", 64, required=True),
    Column("occurrence", Integer, nullable=False, server_default="0"),
    _text("asset", 32),
    _written("detected_at"),
    UniqueConstraint(
        *("symbol", "timeframe", "session_date", "new_hash", "old_hash", "occurrence"),
        name="uq_revisions_change",
    ),
    comment="Sessions whose bars changed after they had been stored.",
)


Table(
    "broker_assets",
    METADATA,
    Column("asset_id", String(64), primary_key=True),
    Column("symbol", ANY_SYMBOL, nullable=False),
    _text("name"),
    _text("exchange", 32),
    _text("asset_class", 32),
    _text("status", 16, required=True),
    *_flags("is_tradable is_shortable is_easy_to_borrow is_fractionable"),
    *_dates("first_seen last_seen delisted_on"),
    Index(None, "symbol"),
    CheckConstraint("status IN ('active', 'inactive')", name="status"),
    comment="The broker's list of assets as last seen; an asset keeps its id when its symbol changes.",
)

Table(
    "symbol_events",
    METADATA,
    _id(),
    Column("symbol", ANY_SYMBOL, nullable=False),
    _text("event", 32, required=True),
    Column("event_date", Date, nullable=False),
    _text("detail"),
    _text("data_source", 32, required=True),
    _written("recorded_at"),
    UniqueConstraint("symbol", "event", "event_date", "data_source"),
    comment="Delistings, renames and changes of what may be traded, each with the day that it was seen.",
)

Table(
    "corporate_actions",
    METADATA,
    _id(),
    Column("symbol", ANY_SYMBOL, nullable=False),
    Column("ex_date", Date, nullable=False),
    _text("action", 16, required=True),
    Column("value", Double, nullable=False),
    _text("data_source", 32, required=True),
    _written("recorded_at"),
    UniqueConstraint("symbol", "ex_date", "action", "data_source"),
    CheckConstraint("action IN ('split', 'dividend')", name="action"),
    CheckConstraint("value > 0", name="value"),
    comment="Splits (new shares for one old) and cash dividends (currency per share).",
)

Table(
    "company_info",
    METADATA,
    _id(),
    Column("symbol", ANY_SYMBOL, nullable=False),
    *(_text(name) for name in "name sector industry exchange currency country".split()),
    *_numbers("market_cap shares_outstanding"),
    _text("data_source", 32, required=True),
    _written("recorded_at"),
    UniqueConstraint("symbol", "data_source"),
    comment="What a vendor says of a company, as last asked.",
)

Table(
    "stream_gaps",
    METADATA,
    _id(),
    _symbol(),
    _text("timeframe", 8, required=True),
    _text("feed", 32, required=True),
    _text("data_source", 32, required=True),
    Column("gap_start", UtcDateTime, nullable=False),
    Column("gap_end", UtcDateTime, nullable=False),
    _text("cause", 32, required=True),
    Column("bars_filled", Integer, nullable=False),
    _written("detected_at"),
    UniqueConstraint("symbol", "timeframe", "feed", "data_source", "gap_start"),
    comment="Spans that the stream did not deliver, and how many bars the REST interface had for them.",
)

Table(
    "replay_sessions",
    METADATA,
    Column("session_id", String(64), primary_key=True),
    _text("data_source", 32, required=True),
    _text("replay_mode", 16),
    _text("replay_speed", 16),
    _text("clock", 16),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    *_dates("first_session last_session"),
    *_counts("symbols proxied_symbols bars_expected bars_received bars_written bars_filled duplicates"),
    *_counts("gaps reconnects"),
    *_numbers("latency_p50_ms latency_p99_ms latency_max_ms"),
    _text("status", 16, required=True),
    _text("reason"),
    CheckConstraint("status IN ('complete', 'incomplete', 'failed')", name="status"),
    comment="One row a recorded session of the stream client: what was expected and what arrived.",
)


def unique_key(table: Table) -> tuple[str, ...]:
    """Columns of the table's natural key: its unique constraint, or a primary key of the caller's own.

    Empty for tables whose rows have no key of their own (`rejections`).
    """
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            return tuple(column.name for column in constraint.columns)
    return () if "id" in table.columns else tuple(column.name for column in table.primary_key.columns)


def polars_type(kind: TypeEngine[Any]) -> pl.DataType | type[pl.DataType] | None:
    """The Polars type that holds values of the SQL type ``kind``; None where it is unknown."""
    match kind:
        case UtcDateTime():
            return pl.Datetime("us", "UTC")
        case Boolean():
            return pl.Boolean
        case Date():
            return pl.Date
        case Integer():
            return pl.Int64
        case String():
            return pl.String
        case Double():
            return pl.Float64
        case _:
            return None
