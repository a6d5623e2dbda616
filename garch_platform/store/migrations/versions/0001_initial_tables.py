"""Tables of the first stage: symbols, live bars, verdicts, fits, pair rankings, rejections, revisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SYMBOL = sa.String(16).with_variant(sa.String(16, collation="C"), "postgresql")
ANY_SYMBOL = sa.String().with_variant(sa.String(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "rejections",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("symbol", ANY_SYMBOL, nullable=True),
        sa.Column("timeframe", sa.String(), nullable=True),
        sa.Column("timestamp", INSTANT, nullable=True),
        sa.Column("session_date", sa.Date(), nullable=True),
        sa.Column("feed", sa.String(), nullable=True),
        sa.Column("data_source", sa.String(), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(), nullable=True),
        sa.Column("asset", sa.String(length=32), nullable=False),
        sa.Column("partition_key", sa.String(length=64), nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejections")),
        comment="Bars that were quarantined at ingest; replaced by (asset, partition_key, symbol).",
    )
    op.create_index(
        "ix_rejections_asset_partition_key_symbol", "rejections", ["asset", "partition_key", "symbol"]
    )
    op.create_index("ix_rejections_symbol_session_date", "rejections", ["symbol", "session_date"])

    op.create_table(
        "symbols",
        sa.Column("symbol", SYMBOL, nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("sector", sa.String(length=64), nullable=True),
        sa.Column("asset_class", sa.String(length=32), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("first_session", sa.Date(), nullable=True),
        sa.Column("last_session", sa.Date(), nullable=True),
        sa.Column("history_end", sa.Date(), nullable=True),
        sa.Column("added_at", INSTANT, nullable=False),
        sa.Column("retired_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("symbol", name=op.f("pk_symbols")),
        comment="What may be held: one row a symbol, never deleted; bulk past ends before history_end.",
    )
    op.create_index("ix_symbols_is_active", "symbols", ["is_active"])
    op.create_index("ix_symbols_sector", "symbols", ["sector"])

    op.create_table(
        "garch_models",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("symbol", SYMBOL, nullable=False),
        sa.Column("fit_date", sa.Date(), nullable=False),
        sa.Column("model", sa.String(length=32), nullable=False),
        sa.Column("distribution", sa.String(length=16), nullable=False),
        sa.Column("timeframe", sa.String(length=8), nullable=True),
        sa.Column("mu", sa.Double(), nullable=True),
        sa.Column("omega", sa.Double(), nullable=True),
        sa.Column("alpha", sa.Double(), nullable=True),
        sa.Column("beta", sa.Double(), nullable=True),
        sa.Column("nu", sa.Double(), nullable=True),
        sa.Column("se_mu", sa.Double(), nullable=True),
        sa.Column("se_omega", sa.Double(), nullable=True),
        sa.Column("se_alpha", sa.Double(), nullable=True),
        sa.Column("se_beta", sa.Double(), nullable=True),
        sa.Column("se_nu", sa.Double(), nullable=True),
        sa.Column("log_likelihood", sa.Double(), nullable=True),
        sa.Column("aic", sa.Double(), nullable=True),
        sa.Column("bic", sa.Double(), nullable=True),
        sa.Column("persistence", sa.Double(), nullable=True),
        sa.Column("variance_half_life", sa.Double(), nullable=True),
        sa.Column("volatility_annualized", sa.Double(), nullable=True),
        sa.Column("forecast_variance", sa.Double(), nullable=True),
        sa.Column("last_variance", sa.Double(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("n_observations", sa.Integer(), nullable=True),
        sa.Column("scale", sa.Double(), nullable=True),
        sa.Column("converged", sa.Boolean(), nullable=True),
        sa.Column("iterations", sa.Integer(), nullable=True),
        sa.Column("at_boundary", sa.Boolean(), nullable=True),
        sa.Column("boundary", sa.String(), nullable=True),
        sa.Column("ljung_box_pvalue", sa.Double(), nullable=True),
        sa.Column("arch_lm_pvalue", sa.Double(), nullable=True),
        sa.Column("is_selected", sa.Boolean(), nullable=True),
        sa.Column("window_start", sa.Date(), nullable=True),
        sa.Column("window_end", sa.Date(), nullable=True),
        sa.Column("lake_version", sa.Integer(), nullable=True),
        sa.Column("input_hash", sa.String(length=64), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "status IN ('ok', 'weak', 'insufficient', 'failed')", name=op.f("ck_garch_models_status")
        ),
        sa.CheckConstraint(
            "arch_lm_pvalue IS NULL OR (arch_lm_pvalue >= 0 AND arch_lm_pvalue <= 1)",
            name=op.f("ck_garch_models_arch_lm_pvalue"),
        ),
        sa.CheckConstraint(
            "ljung_box_pvalue IS NULL OR (ljung_box_pvalue >= 0 AND ljung_box_pvalue <= 1)",
            name=op.f("ck_garch_models_ljung_box_pvalue"),
        ),
        sa.ForeignKeyConstraint(["symbol"], ["symbols.symbol"], name=op.f("fk_garch_models_symbol_symbols")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_garch_models")),
        sa.UniqueConstraint(
            "symbol",
            "fit_date",
            "model",
            "distribution",
            name=op.f("uq_garch_models_symbol_fit_date_model_distribution"),
        ),
        comment="One fit a symbol, day, model and distribution, with its health.",
    )
    op.create_index("ix_garch_models_fit_date_status", "garch_models", ["fit_date", "status"])

    op.create_table(
        "market_data",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("symbol", SYMBOL, nullable=False),
        sa.Column("timestamp", INSTANT, nullable=False),
        sa.Column("timeframe", sa.String(length=8), nullable=False),
        sa.Column("open", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("close", sa.Double(), nullable=True),
        sa.Column("volume", sa.Double(), nullable=True),
        sa.Column("vwap", sa.Double(), nullable=True),
        sa.Column("trade_count", sa.BigInteger(), nullable=True),
        sa.Column("feed", sa.String(length=32), nullable=False),
        sa.Column("data_source", sa.String(length=32), nullable=False),
        sa.Column("is_proxy", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["symbol"], ["symbols.symbol"], name=op.f("fk_market_data_symbol_symbols")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_market_data")),
        sa.UniqueConstraint(
            "symbol",
            "timeframe",
            "timestamp",
            "feed",
            "data_source",
            name=op.f("uq_market_data_symbol_timeframe_timestamp_feed_data_source"),
        ),
        comment="Live bars as they arrive.",
    )
    op.create_index("ix_market_data_symbol_timestamp", "market_data", ["symbol", "timestamp"])

    op.create_table(
        "pair_rankings",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("sector", sa.String(length=64), nullable=False),
        sa.Column("ranking_date", sa.Date(), nullable=False),
        sa.Column("symbol_1", SYMBOL, nullable=False),
        sa.Column("symbol_2", SYMBOL, nullable=False),
        sa.Column("symbol_y", SYMBOL, nullable=True),
        sa.Column("symbol_x", SYMBOL, nullable=True),
        sa.Column("profile", sa.String(length=32), nullable=True),
        sa.Column("n_observations", sa.Integer(), nullable=True),
        sa.Column("coverage", sa.Double(), nullable=True),
        sa.Column("price_correlation", sa.Double(), nullable=True),
        sa.Column("return_correlation", sa.Double(), nullable=True),
        sa.Column("statistic_1_on_2", sa.Double(), nullable=True),
        sa.Column("pvalue_1_on_2", sa.Double(), nullable=True),
        sa.Column("statistic_2_on_1", sa.Double(), nullable=True),
        sa.Column("pvalue_2_on_1", sa.Double(), nullable=True),
        sa.Column("coint_statistic", sa.Double(), nullable=True),
        sa.Column("coint_pvalue", sa.Double(), nullable=True),
        sa.Column("hedge_ratio", sa.Double(), nullable=True),
        sa.Column("intercept", sa.Double(), nullable=True),
        sa.Column("half_life", sa.Double(), nullable=True),
        sa.Column("spread_mean", sa.Double(), nullable=True),
        sa.Column("spread_std", sa.Double(), nullable=True),
        sa.Column("spread_zscore", sa.Double(), nullable=True),
        sa.Column("fit_score", sa.Double(), nullable=True),
        sa.Column("volatility_score", sa.Double(), nullable=True),
        sa.Column("trading_score", sa.Double(), nullable=True),
        sa.Column("diagnostics_score", sa.Double(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("oos_sharpe", sa.Double(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("passed", sa.Boolean(), nullable=True),
        sa.Column("rejection_reason", sa.String(), nullable=True),
        sa.Column("formation_start", sa.Date(), nullable=True),
        sa.Column("formation_end", sa.Date(), nullable=True),
        sa.Column("out_of_sample_start", sa.Date(), nullable=True),
        sa.Column("out_of_sample_end", sa.Date(), nullable=True),
        sa.Column("lake_version", sa.Integer(), nullable=True),
        sa.Column("input_hash", sa.String(length=64), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("symbol_1 < symbol_2", name=op.f("ck_pair_rankings_ordered")),
        sa.ForeignKeyConstraint(
            ["symbol_1"], ["symbols.symbol"], name=op.f("fk_pair_rankings_symbol_1_symbols")
        ),
        sa.ForeignKeyConstraint(
            ["symbol_2"], ["symbols.symbol"], name=op.f("fk_pair_rankings_symbol_2_symbols")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pair_rankings")),
        sa.UniqueConstraint(
            "sector",
            "ranking_date",
            "symbol_1",
            "symbol_2",
            name=op.f("uq_pair_rankings_sector_ranking_date_symbol_1_symbol_2"),
        ),
        comment="One row a pair, sector and day: estimates, scores, rank, and why it was rejected.",
    )
    op.create_index(
        "ix_pair_rankings_ranking_date_sector_rank", "pair_rankings", ["ranking_date", "sector", "rank"]
    )

    op.create_table(
        "revisions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("symbol", SYMBOL, nullable=False),
        sa.Column("timeframe", sa.String(length=8), nullable=False),
        sa.Column("session_date", sa.Date(), nullable=False),
        sa.Column("old_hash", sa.String(length=64), nullable=False),
        sa.Column("new_hash", sa.String(length=64), nullable=False),
        sa.Column("occurrence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("asset", sa.String(length=32), nullable=True),
        sa.Column("detected_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["symbol"], ["symbols.symbol"], name=op.f("fk_revisions_symbol_symbols")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
        sa.UniqueConstraint(
            "symbol",
            "timeframe",
            "session_date",
            "new_hash",
            "old_hash",
            "occurrence",
            name="uq_revisions_change",
        ),
        comment="Sessions whose bars changed after they had been stored.",
    )
    op.create_table(
        "variance_stability_tracking",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("symbol", SYMBOL, nullable=False),
        sa.Column("test_date", sa.Date(), nullable=False),
        sa.Column("record_count", sa.Integer(), nullable=False),
        sa.Column("arch_test_pvalue", sa.Double(), nullable=True),
        sa.Column("rolling_std_cv", sa.Double(), nullable=True),
        sa.Column("ljung_box_pvalue", sa.Double(), nullable=True),
        sa.Column("is_stable", sa.Boolean(), nullable=False),
        sa.Column("filter_reason", sa.String(), nullable=True),
        sa.Column("test_window", sa.Integer(), server_default="30", nullable=False),
        sa.Column("arch_lags", sa.Integer(), server_default="5", nullable=False),
        sa.Column("ljung_box_lags", sa.Integer(), nullable=True),
        sa.Column("gate", sa.String(length=16), nullable=True),
        sa.Column("window_start", sa.Date(), nullable=True),
        sa.Column("window_end", sa.Date(), nullable=True),
        sa.Column("lake_version", sa.Integer(), nullable=True),
        sa.Column("input_hash", sa.String(length=64), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("gate IN ('strict', 'relaxed')", name=op.f("ck_variance_stability_tracking_gate")),
        sa.CheckConstraint("arch_lags >= 1", name=op.f("ck_variance_stability_tracking_arch_lags")),
        sa.CheckConstraint(
            "arch_test_pvalue IS NULL OR (arch_test_pvalue >= 0 AND arch_test_pvalue <= 1)",
            name=op.f("ck_variance_stability_tracking_arch_test_pvalue"),
        ),
        sa.CheckConstraint(
            "ljung_box_pvalue IS NULL OR (ljung_box_pvalue >= 0 AND ljung_box_pvalue <= 1)",
            name=op.f("ck_variance_stability_tracking_ljung_box_pvalue"),
        ),
        sa.CheckConstraint("record_count >= 0", name=op.f("ck_variance_stability_tracking_record_count")),
        sa.CheckConstraint(
            "rolling_std_cv IS NULL OR rolling_std_cv >= 0",
            name=op.f("ck_variance_stability_tracking_rolling_std_cv"),
        ),
        sa.CheckConstraint("test_window >= 2", name=op.f("ck_variance_stability_tracking_test_window")),
        sa.ForeignKeyConstraint(
            ["symbol"], ["symbols.symbol"], name=op.f("fk_variance_stability_tracking_symbol_symbols")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variance_stability_tracking")),
        sa.UniqueConstraint(
            "symbol", "test_date", name=op.f("uq_variance_stability_tracking_symbol_test_date")
        ),
        comment="One verdict a symbol and day: is its variance stable enough to be modelled.",
    )
    op.create_index(
        "ix_variance_stability_tracking_filter_reason", "variance_stability_tracking", ["filter_reason"]
    )
    op.create_index(
        "ix_variance_stability_tracking_test_date_is_stable",
        "variance_stability_tracking",
        ["test_date", "is_stable"],
    )


def downgrade() -> None:
    """Drop all tables."""
    for table in (
        "variance_stability_tracking",
        "revisions",
        "pair_rankings",
        "market_data",
        "garch_models",
        "symbols",
        "rejections",
    ):
        op.drop_table(table)
