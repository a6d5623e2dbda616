"""Tables of the live edge: assets and their events, actions, companies, stream gaps, replay sessions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
SYMBOL = sa.String(16).with_variant(sa.String(16, collation="C"), "postgresql")
ANY_SYMBOL = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def _texts(**lengths: int | None) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.String(length=length), nullable=True) for name, length in lengths.items()]


def _columns(kind: type[sa.types.TypeEngine[Any]], names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind(), nullable=True) for name in names.split()]


def _required(**kinds: sa.types.TypeEngine[Any]) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name, kind in kinds.items()]


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.Integer(), autoincrement=True, nullable=False)


def upgrade() -> None:
    """Add the tables, and to each live bar the channel that it came by."""
    op.add_column("market_data", sa.Column("channel", sa.String(length=16), nullable=True))
    op.create_index("ix_market_data_received_at", "market_data", ["received_at"])
    op.create_table(
        "broker_assets",
        *_required(asset_id=sa.String(64), symbol=ANY_SYMBOL),
        *_texts(name=None, exchange=32, asset_class=32),
        *_required(status=sa.String(16)),
        *_columns(sa.Boolean, "is_tradable is_shortable is_easy_to_borrow is_fractionable"),
        *_columns(sa.Date, "first_seen last_seen delisted_on"),
        sa.PrimaryKeyConstraint("asset_id", name=op.f("pk_broker_assets")),
        sa.CheckConstraint("status IN ('active', 'inactive')", name=op.f("ck_broker_assets_status")),
        comment="The broker's list of assets as last seen; an asset keeps its id when its symbol changes.",
    )
    op.create_index("ix_broker_assets_symbol", "broker_assets", ["symbol"])
    op.create_table(
        "symbol_events",
        _id(),
        *_required(symbol=ANY_SYMBOL, event=sa.String(32), event_date=sa.Date()),
        *_texts(detail=None),
        *_required(data_source=sa.String(32), recorded_at=INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_symbol_events")),
        sa.UniqueConstraint(
            *("symbol", "event", "event_date", "data_source"),
            name=op.f("uq_symbol_events_symbol_event_event_date_data_source"),
        ),
        comment="Delistings, renames and changes of what may be traded, each with the day that it was seen.",
    )
    op.create_table(
        "corporate_actions",
        _id(),
        *_required(symbol=ANY_SYMBOL, ex_date=sa.Date(), action=sa.String(16), value=sa.Double()),
        *_required(data_source=sa.String(32), recorded_at=INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_corporate_actions")),
        sa.UniqueConstraint(
            *("symbol", "ex_date", "action", "data_source"),
            name=op.f("uq_corporate_actions_symbol_ex_date_action_data_source"),
        ),
        sa.CheckConstraint("action IN ('split', 'dividend')", name=op.f("ck_corporate_actions_action")),
        sa.CheckConstraint("value > 0", name=op.f("ck_corporate_actions_value")),
        comment="Splits (new shares for one old) and cash dividends (currency per share).",
    )
    op.create_table(
        "company_info",
        _id(),
        *_required(symbol=ANY_SYMBOL),
        *_texts(name=None, sector=None, industry=None, exchange=None, currency=None, country=None),
        *_columns(sa.Double, "market_cap shares_outstanding"),
        *_required(data_source=sa.String(32), recorded_at=INSTANT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_company_info")),
        sa.UniqueConstraint("symbol", "data_source", name=op.f("uq_company_info_symbol_data_source")),
        comment="What a vendor says of a company, as last asked.",
    )
    op.create_table(
        "stream_gaps",
        _id(),
        *_required(symbol=SYMBOL, timeframe=sa.String(8), feed=sa.String(32), data_source=sa.String(32)),
        *_required(gap_start=INSTANT, gap_end=INSTANT, cause=sa.String(32), bars_filled=sa.Integer()),
        *_required(detected_at=INSTANT),
        sa.ForeignKeyConstraint(["symbol"], ["symbols.symbol"], name=op.f("fk_stream_gaps_symbol_symbols")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stream_gaps")),
        sa.UniqueConstraint(
            *("symbol", "timeframe", "feed", "data_source", "gap_start"),
            name=op.f("uq_stream_gaps_symbol_timeframe_feed_data_source_gap_start"),
        ),
        comment="Spans that the stream did not deliver, and how many bars the REST interface had for them.",
    )
    op.create_table(
        "replay_sessions",
        *_required(session_id=sa.String(64), data_source=sa.String(32)),
        *_texts(replay_mode=16, replay_speed=16, clock=16),
        *_required(started_at=INSTANT),
        sa.Column("ended_at", INSTANT, nullable=True),
        *_columns(sa.Date, "first_session last_session"),
        *_columns(
            sa.Integer,
            "symbols proxied_symbols bars_expected bars_received bars_written bars_filled duplicates "
            "gaps reconnects",
        ),
        *_columns(sa.Double, "latency_p50_ms latency_p99_ms latency_max_ms"),
        *_required(status=sa.String(16)),
        *_texts(reason=None),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_replay_sessions")),
        sa.CheckConstraint(
            "status IN ('complete', 'incomplete', 'failed')", name=op.f("ck_replay_sessions_status")
        ),
        comment="One row a recorded session of the stream client: what was expected and what arrived.",
    )


def downgrade() -> None:
    """Take them out again."""
    for table in (
        *("replay_sessions", "stream_gaps", "company_info", "corporate_actions", "symbol_events"),
        "broker_assets",
    ):
        op.drop_table(table)
    op.drop_index("ix_market_data_received_at", "market_data")
    op.drop_column("market_data", "channel")
