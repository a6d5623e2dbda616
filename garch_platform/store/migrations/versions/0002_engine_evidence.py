"""Start, fallback and adequacy of each fit; evidence and both verdicts of each pair; the ledger of each scan."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
FIT_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "start": sa.String(length=16),
    "gradient_norm": sa.Double(),
    "fallback": sa.String(length=8),
    "fallback_reason": sa.String(),
    "adequacy": sa.String(length=16),
    "adequacy_failing": sa.String(),
    "joint_sign_bias_pvalue": sa.Double(),
    "cusum_squares_pvalue": sa.Double(),
}
PAIR_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "coint_lags": sa.Integer(),
    "johansen_trace_0": sa.Double(),
    "johansen_trace_1": sa.Double(),
    "johansen_rank": sa.Integer(),
    "kss_statistic": sa.Double(),
    "kss_pvalue": sa.Double(),
    "hurst": sa.Double(),
    "confirmation_observations": sa.Integer(),
    "confirmation_statistic": sa.Double(),
    "confirmation_pvalue": sa.Double(),
    "confirmation_qvalue": sa.Double(),
    "aic": sa.Double(),
    "bic": sa.Double(),
    "oos_probabilistic_sharpe": sa.Double(),
    "oos_trades": sa.Integer(),
    "honest_rank": sa.Integer(),
    "honest_gate": sa.String(length=32),
    "honest_reason": sa.String(),
    "classic_rank": sa.Integer(),
    "classic_gate": sa.String(length=32),
    "classic_reason": sa.String(),
    "gate": sa.String(length=32),
    "confirmation_start": sa.Date(),
    "confirmation_end": sa.Date(),
}


def upgrade() -> None:
    """Add columns and table; rankings made before keep their verdict as that of `classic`."""
    for table, columns in (("garch_models", FIT_COLUMNS), ("pair_rankings", PAIR_COLUMNS)):
        for name, kind in columns.items():
            op.add_column(table, sa.Column(name, kind, nullable=True))
    op.execute(
        "UPDATE pair_rankings SET classic_rank = rank, classic_reason = rejection_reason, "
        "classic_gate = CASE WHEN passed THEN NULL ELSE 'not_recorded' END, "
        "gate = CASE WHEN passed THEN NULL ELSE 'not_recorded' END, "
        "honest_gate = 'not_judged', honest_reason = 'ranked before this profile; run garch refresh --again'"
    )
    op.create_table(
        "scan_ledger",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("sector", sa.String(length=64), nullable=False),
        sa.Column("ranking_date", sa.Date(), nullable=False),
        sa.Column("profile", sa.String(length=32), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=True)
            for name in ("pairs", "tested", "correlated", "significant", "confirmed", "ranked", "floor_draws")
        ),
        *(
            sa.Column(name, sa.Double(), nullable=True)
            for name in ("floor_median", "floor_q95", "floor_any", "detectable_half_life")
        ),
        sa.Column("formation_bars", sa.Integer(), nullable=True),
        sa.Column("confirmation_bars", sa.Integer(), nullable=True),
        sa.Column("lake_version", sa.Integer(), nullable=True),
        sa.Column("input_hash", sa.String(length=64), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "floor_any IS NULL OR (floor_any >= 0 AND floor_any <= 1)", name=op.f("ck_scan_ledger_floor_any")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scan_ledger")),
        sa.UniqueConstraint(
            "sector", "ranking_date", "profile", name=op.f("uq_scan_ledger_sector_ranking_date_profile")
        ),
        comment="One row a ranking and profile: pairs left by each stage, and what chance alone passes.",
    )
    op.create_index("ix_scan_ledger_ranking_date", "scan_ledger", ["ranking_date"])


def downgrade() -> None:
    """Take them out again."""
    op.drop_table("scan_ledger")
    for table, columns in (("pair_rankings", PAIR_COLUMNS), ("garch_models", FIT_COLUMNS)):
        for name in reversed(columns):
            op.drop_column(table, name)
