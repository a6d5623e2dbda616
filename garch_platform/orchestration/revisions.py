"""Revised bars: noticing that a re-ingest changed the past, and naming what it made stale.

Nothing is remembered between runs. A revision is found by comparing the hash of the rows that are
stored with the hash of those that arrive; a stale estimate by comparing the input hash that it
recorded with the hash of the same window as the lake holds it now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import polars as pl

from garch_platform.orchestration.partitions import KeySet
from garch_platform.orchestration.windows import read_window
from garch_platform.orchestration.workspace import Workspace
from garch_platform.quant.bar_hash import content_hash

__all__ = ["ABSENT", "record_revisions", "stale_dates", "stale_results"]

ABSENT = "absent"
"""Hash that stands for "no bars"."""

STALE_SCHEMA = {"asset": pl.String, "name": pl.String, "date": pl.Date, "reason": pl.String}


def record_revisions(
    workspace: Workspace, keys: KeySet, incoming: pl.DataFrame, *, asset: str
) -> pl.DataFrame:
    """Compare ``incoming`` with the stored bars of ``keys``; record and return what changed.

    Only sessions on which features were already computed count: before that there is nothing that
    could be stale. For bulk history only the first changed session of a symbol is kept. The rows are
    written before the bars are, so that a run killed in between leaves its trace.
    """
    timeframe = workspace.settings.timeframe.name
    groups = (
        [(list(keys.names), start, end) for start, end in keys.stretches(workspace.calendar)]
        if keys.dates
        else [(names, None, last) for names, last in workspace.history_groups(keys.names)]
    )
    stored = pl.concat(
        workspace.lake.scan("bars", timeframe=timeframe, symbols=names, start=start, end=end).collect()
        for names, start, end in groups
    )
    old = content_hash(stored).rename({"content_hash": "old_hash"})
    new = content_hash(incoming).rename({"content_hash": "new_hash"})
    computed = workspace.lake.coverage("features", timeframe).select(
        "symbol", "first_session", "last_session"
    )
    changed = (
        old.join(new, on=["symbol", "session_date"], how="full", coalesce=True)
        .with_columns(pl.col("old_hash", "new_hash").fill_null(ABSENT))
        .filter(pl.col("old_hash") != pl.col("new_hash"))
        .join(computed, on="symbol")
        .filter(pl.col("session_date").is_between("first_session", "last_session"))
        .sort("symbol", "session_date")
    )
    if not keys.dates:
        changed = changed.group_by("symbol", maintain_order=True).first()
    rows = changed.select(
        "symbol",
        "session_date",
        "old_hash",
        "new_hash",
        timeframe=pl.lit(timeframe),
        asset=pl.lit(asset),
        detected_at=pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC")),
    )
    if not rows.is_empty():
        workspace.database.insert_missing("revisions", rows)
    return rows


def _daily_sessions(workspace: Workspace, since: date) -> list[date]:
    last = workspace.database.read("SELECT max(test_date) AS last FROM variance_stability_tracking")["last"][
        0
    ]
    if last is None:
        return []
    last = date.fromisoformat(last) if isinstance(last, str) else last
    first = max(since, workspace.settings.trading_days.start)
    return workspace.calendar.sessions(first, last) if first <= last else []


def stale_dates(workspace: Workspace, revisions: pl.DataFrame) -> list[tuple[date, list[str]]]:
    """Sessions to run again, each with its symbols, for ``revisions`` (symbol, session_date).

    Features carry an expanding state, so every later session of the symbol is affected.
    """
    firsts = revisions.group_by("symbol").agg(pl.col("session_date").min())
    plan: dict[date, list[str]] = {}
    for symbol, since in sorted(firsts.iter_rows()):
        for day in _daily_sessions(workspace, since):
            plan.setdefault(day, []).append(symbol)
    return sorted(plan.items())


def stale_results(workspace: Workspace, symbols: Sequence[str] | None = None) -> pl.DataFrame:
    """Results whose recorded input differs from the lake: asset, name, date, reason.

    Looks at the symbols with a recorded revision (or at ``symbols``). Feature rows are stale where
    their log close is not the stored bar's, or where the expanding sum does not follow from the row before.
    """
    names = list(symbols) if symbols is not None else _revised(workspace)
    if not names:
        return pl.DataFrame(schema=STALE_SCHEMA)
    return (
        pl.concat(
            [
                _stale_features(workspace, names),
                _stale_rows(
                    workspace,
                    names,
                    "variance_stability_tracking",
                    "stability",
                    "test_date",
                    workspace.settings.formation.sessions,
                ),
                _stale_rows(
                    workspace,
                    names,
                    "garch_models",
                    "garch_models",
                    "fit_date",
                    workspace.settings.garch.sessions,
                ),
                _stale_rankings(workspace, names),
            ]
        )
        .unique()
        .sort("date", "asset", "name")
    )


def _revised(workspace: Workspace) -> list[str]:
    return sorted(set(workspace.database.read_table("revisions")["symbol"]))


def _stale_features(workspace: Workspace, names: list[str]) -> pl.DataFrame:
    timeframe = workspace.settings.timeframe.name
    key = ["symbol", "timestamp"]
    bars = workspace.lake.scan(
        "bars", timeframe=timeframe, symbols=names, columns=[*key, "session_date", "close"]
    )
    columns = [*key, "session_date", "log_close", "log_return", "return_sum"]
    features = workspace.lake.scan("features", timeframe=timeframe, symbols=names, columns=columns).sort(key)
    before = pl.col("return_sum").shift(1).over("symbol").fill_null(0.0)
    joined = features.with_columns(
        follows=pl.col("return_sum") == before + pl.col("log_return").fill_null(0.0)
    ).join(bars, on=key, how="full", coalesce=True, suffix="_bar")
    fresh = (pl.col("close").log() - pl.col("log_close")).abs() <= 1e-12
    return (
        joined.filter(~(fresh & pl.col("follows")).fill_null(False))
        .select(
            asset=pl.lit("features"),
            name=pl.col("symbol"),
            date=pl.coalesce("session_date", "session_date_bar"),
            reason=pl.lit("the stored bars changed after these features were computed"),
        )
        .unique()
        .collect()
    )


def _stale_rows(
    workspace: Workspace, names: list[str], table: str, asset: str, date_column: str, sessions: int
) -> pl.DataFrame:
    rows = (
        workspace.database.read_table(table, symbol=names)
        .select("symbol", date_column, "input_hash")
        .unique()
    )
    found = []
    for (day,), group in rows.group_by(date_column):
        window = read_window(workspace, group["symbol"].to_list(), day, sessions=sessions)
        found += [
            (asset, symbol, day, f"input window {window.start} to {window.end} was revised")
            for symbol, recorded in group.select("symbol", "input_hash").iter_rows()
            if window.hashes[symbol] != recorded
        ]
    return pl.DataFrame(found, schema=STALE_SCHEMA, orient="row")


def _stale_rankings(workspace: Workspace, names: list[str]) -> pl.DataFrame:
    rows = workspace.database.read_table("pair_rankings")
    touched = rows.filter(pl.col("symbol_1").is_in(names) | pl.col("symbol_2").is_in(names))
    keys = touched.select("sector", "ranking_date").unique().sort("ranking_date", "sector")
    formation = workspace.settings.formation
    found = []
    for sector, day in keys.iter_rows():
        ranked = rows.filter(pl.col("sector") == sector, pl.col("ranking_date") == day)
        symbols = sorted({*ranked["symbol_1"], *ranked["symbol_2"]})
        window = read_window(
            workspace, symbols, day, sessions=formation.sessions + formation.out_of_sample_sessions
        )
        if window.panel_hash != ranked["input_hash"][0]:
            found.append(
                ("pair_rankings", sector, day, f"input window {window.start} to {window.end} was revised")
            )
    return pl.DataFrame(found, schema=STALE_SCHEMA, orient="row")
