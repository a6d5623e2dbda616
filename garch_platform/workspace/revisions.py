"""Revised bars: noticing that a re-ingest changed the past, and naming what it made stale.

Nothing is remembered between runs. A revision is found by comparing the hash of the rows that are
stored with the hash of those that arrive; a stale estimate by comparing the input hash that it
recorded with the hash of the same window as the lake holds it now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

import polars as pl

from garch_platform.quant.adjustment import with_split_adjustment
from garch_platform.quant.bar_hash import content_hash
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet
from garch_platform.workspace.windows import Window, read_panel

__all__ = [
    "ABSENT",
    "record_late_features",
    "record_revisions",
    "stale_dates",
    "stale_results",
    "stored_bars",
]

ABSENT = "absent"
"""Hash that stands for "no bars"."""

LATE = "late"
"""Hash that stands for features that were computed after those of a later session."""

StaleRow = tuple[str, str, date, str]
STALE_SCHEMA = {"asset": pl.String, "name": pl.String, "date": pl.Date, "reason": pl.String}


def stored_bars(workspace: Workspace, keys: KeySet) -> pl.DataFrame:
    """The bars that the lake holds for ``keys``: of their sessions, or of the bulk past."""
    timeframe = workspace.settings.timeframe.name
    groups = (
        [(list(keys.names), start, end) for start, end in keys.stretches(workspace.calendar)]
        if keys.dates
        else [(names, None, last) for names, last in workspace.history_groups(keys.names)]
    )
    return pl.concat(
        workspace.lake.scan("bars", timeframe=timeframe, symbols=names, start=start, end=end).collect()
        for names, start, end in groups
    )


def record_revisions(
    workspace: Workspace, keys: KeySet, incoming: pl.DataFrame, *, asset: str
) -> pl.DataFrame:
    """Compare ``incoming`` with the stored bars of ``keys``; record and return what changed.

    Only sessions up to the last one with results count: after it there is nothing that could be stale.
    For bulk history only the first changed session of a symbol is kept. The rows are
    written before the bars are, so that a run killed in between leaves its trace.
    """
    old = content_hash(stored_bars(workspace, keys)).rename({"content_hash": "old_hash"})
    new = content_hash(incoming).rename({"content_hash": "new_hash"})
    changed = (
        old.join(new, on=["symbol", "session_date"], how="full", coalesce=True)
        .with_columns(pl.col("old_hash", "new_hash").fill_null(ABSENT))
        .filter(pl.col("old_hash") != pl.col("new_hash"))
        .join(_computed(workspace), on="symbol")
        .filter(pl.col("session_date") <= pl.col("last_session"))
        .sort("symbol", "session_date")
    )
    if not keys.dates:
        changed = changed.group_by("symbol", maintain_order=True).first()
    return _record(workspace, changed, asset)


def record_late_features(workspace: Workspace, keys: KeySet, computed: pl.DataFrame) -> pl.DataFrame:
    """Record the sessions whose features arrive after later ones: what rests on those lacked them.

    Bars that were stored in time, by a run that ended before its features, change no bar when the run is
    repeated, so `record_revisions` cannot see them.
    """
    stored = workspace.lake.scan(
        "features",
        timeframe=workspace.settings.timeframe.name,
        symbols=list(keys.names),
        start=keys.start,
        end=keys.end,
        columns=["symbol", "session_date"],
    )
    late = (
        computed.select("symbol", "session_date")
        .unique()
        .join(stored.unique().collect(), on=["symbol", "session_date"], how="anti")
        .join(_computed(workspace), on="symbol")
        .filter(pl.col("session_date") < pl.col("last_session"))
        .with_columns(old_hash=pl.lit(ABSENT), new_hash=pl.lit(LATE))
        .sort("symbol", "session_date")
    )
    return _record(workspace, late, "features")


def _record(workspace: Workspace, changed: pl.DataFrame, asset: str) -> pl.DataFrame:
    """Insert the changes (symbol, session_date, old_hash, new_hash) that are not the last known of their session."""
    key = ["symbol", "session_date"]
    known = workspace.database.read_table("revisions", symbol=changed["symbol"].unique().to_list())
    newest = known.sort("id").group_by(key).last().select(*key, "old_hash", "new_hash")
    counts = known.group_by(*key, "old_hash", "new_hash").agg(occurrence=pl.len().cast(pl.Int64))
    hashes = [*key, "old_hash", "new_hash"]
    rows = (
        changed.join(newest, on=hashes, how="anti")
        .join(counts, on=hashes, how="left")
        .select(
            *hashes,
            pl.col("occurrence").fill_null(0),
            timeframe=pl.lit(workspace.settings.timeframe.name),
            asset=pl.lit(asset),
            detected_at=pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC")),
        )
    )
    if not rows.is_empty():
        workspace.database.insert_missing("revisions", rows)
    return rows


def _computed(workspace: Workspace) -> pl.DataFrame:
    """The sessions of each symbol for which results may exist: those with features, and later verdicts."""
    verdicts = workspace.database.read_table("variance_stability_tracking")
    last = verdicts.group_by("symbol").agg(last_verdict=pl.col("test_date").max())
    return (
        workspace.lake.coverage("features", workspace.settings.timeframe.name)
        .join(last, on="symbol", how="left")
        .with_columns(last_session=pl.max_horizontal("last_session", "last_verdict"))
        .select("symbol", "first_session", "last_session")
    )


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
    """Results that do not follow from the bars that are stored now: asset, name, date, reason.

    Looks at the symbols with a recorded revision (or at ``symbols``). Features are stale from the first
    session on whose log close is not the stored bar's, or whose expanding state does not follow from the
    row before; bulk features are one row with that session. An estimate is stale if its input window
    holds such a bar or has another hash than the one recorded.
    """
    names = list(symbols) if symbols is not None else _revised(workspace)
    if not names:
        return pl.DataFrame(schema=STALE_SCHEMA)
    rows = _feature_rows(workspace, names)
    changed = rows.filter(~pl.col("fresh")).select("symbol", "session_date").unique()
    formation, garch = workspace.settings.formation, workspace.settings.garch
    verdicts = _stale_rows(
        workspace, names, changed, "variance_stability_tracking", "test_date", formation.sessions
    )
    fits = _stale_rows(workspace, names, changed, "garch_models", "fit_date", garch.sessions)
    found = [
        *_stale_features(workspace, rows),
        *(("stability", symbol, day, reason) for symbol, day, reason in verdicts),
        *(("garch_models", symbol, day, reason) for symbol, day, reason in fits),
        *_stale_rankings(workspace, names, changed),
    ]
    return pl.DataFrame(found, schema=STALE_SCHEMA, orient="row").sort("date", "asset", "name")


def _revised(workspace: Workspace) -> list[str]:
    return sorted(set(workspace.database.read_table("revisions")["symbol"]))


def _feature_rows(workspace: Workspace, names: list[str]) -> pl.DataFrame:
    """Every bar and feature row of ``names``: is the log close the bar's, does the state follow the row before."""
    timeframe = workspace.settings.timeframe.name
    key = ["symbol", "timestamp"]
    stored = workspace.lake.scan(
        "bars",
        timeframe=timeframe,
        symbols=names,
        columns=[*key, "session_date", "close", "adjustment", "split_factor"],
    )
    bars = with_split_adjustment(stored.collect()).lazy()
    columns = [*key, "session_date", "log_close", "log_return", "return_sum", "return_sum_squares"]
    features = workspace.lake.scan("features", timeframe=timeframe, symbols=names, columns=columns).sort(key)
    step = pl.col("log_return").fill_null(0.0)
    total, squares = (pl.col(name).shift(1).over("symbol").fill_null(0.0) for name in columns[-2:])
    follows = (pl.col("return_sum") == total + step) & (pl.col("return_sum_squares") == squares + step * step)
    joined = features.with_columns(follows=follows).join(
        bars.with_columns(in_bars=True), on=key, how="full", coalesce=True, suffix="_bar"
    )
    close = (pl.col("close") * pl.col("split_adjustment")).log()
    same = ((close - pl.col("log_close")).abs() <= 1e-12) | (close.is_null() & pl.col("log_close").is_null())
    in_both = pl.col("in_bars").is_not_null() & pl.col("session_date").is_not_null()
    return joined.select(
        "symbol",
        session_date=pl.coalesce("session_date", "session_date_bar"),
        fresh=(in_both & same).fill_null(False),
        follows=pl.col("follows").fill_null(True),
    ).collect()


def _stale_features(workspace: Workspace, rows: pl.DataFrame) -> list[StaleRow]:
    bad = rows.filter(~(pl.col("fresh") & pl.col("follows")))
    first = bad.group_by("symbol").agg(since=pl.col("session_date").min())
    ends = workspace.symbols().select("symbol", "history_end")
    later = (
        rows.join(first, on="symbol")
        .join(ends, on="symbol")
        .filter(pl.col("session_date") >= pl.col("since"))
    )
    bulk = later.filter(pl.col("since") < pl.col("history_end")).select("symbol", "since").unique()
    daily = later.filter(pl.col("session_date") >= pl.col("history_end"))
    reason = "the stored bars changed after these features were computed"
    return [
        *(("feature_history", symbol, since, reason) for symbol, since in bulk.iter_rows()),
        *(
            ("features", symbol, day, reason)
            for symbol, day in daily.select("symbol", "session_date").unique().iter_rows()
        ),
    ]


def _stale_rows(
    workspace: Workspace,
    names: list[str],
    changed: pl.DataFrame,
    table: str,
    date_column: str,
    sessions: int,
) -> list[tuple[str, date, str]]:
    rows = (
        workspace.database.read_table(table, symbol=names)
        .select("symbol", date_column, "input_hash")
        .unique()
    )
    if rows.is_empty():
        return []
    found = []
    whole = _panel(workspace, names, rows[date_column], sessions)
    for group in rows.partition_by(date_column):
        span = _span(workspace, group[date_column][0], sessions)
        window = whole.within(group["symbol"].to_list(), *span)
        touched = _touched(window, changed)
        found += [
            (symbol, window.end, _revised_input(window))
            for symbol, recorded in group.select("symbol", "input_hash").iter_rows()
            if symbol in touched or window.hashes[symbol] != recorded
        ]
    return found


def _panel(workspace: Workspace, symbols: Sequence[str], days: pl.Series, sessions: int) -> Window:
    """One read for the windows of all ``days``."""
    start, _ = _span(workspace, min(days), sessions)
    return read_panel(workspace, symbols, start, max(days))


def _span(workspace: Workspace, day: date, sessions: int) -> tuple[date, date]:
    return workspace.calendar.window_start(day, sessions), day


def _touched(window: Window, changed: pl.DataFrame) -> set[str]:
    return set(changed.filter(pl.col("session_date").is_between(window.start, window.end))["symbol"])


def _revised_input(window: Window) -> str:
    return f"input window {window.start} to {window.end} was revised"


def _stale_rankings(workspace: Workspace, names: list[str], changed: pl.DataFrame) -> list[StaleRow]:
    rows = workspace.database.read_table("pair_rankings")
    touched = rows.filter(pl.col("symbol_1").is_in(names) | pl.col("symbol_2").is_in(names))
    keys = touched.select("sector", "ranking_date").unique().sort("ranking_date", "sector")
    formation = workspace.settings.formation
    sessions = formation.sessions + formation.out_of_sample_sessions
    found: list[StaleRow] = []
    if keys.is_empty():
        return found
    members = sorted({*rows["symbol_1"], *rows["symbol_2"]})
    whole = _panel(workspace, members, keys["ranking_date"], sessions)
    for sector, day in keys.iter_rows():
        ranked = rows.filter(pl.col("sector") == sector, pl.col("ranking_date") == day)
        symbols = sorted({*ranked["symbol_1"], *ranked["symbol_2"]})
        window = whole.within(symbols, *_span(workspace, day, sessions))
        if _touched(window, changed) & set(symbols) or window.panel_hash != ranked["input_hash"][0]:
            found.append(("pair_rankings", sector, day, _revised_input(window)))
    return found
