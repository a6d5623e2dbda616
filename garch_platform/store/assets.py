"""From the broker's list of assets to the tables `broker_assets` and `symbol_events`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple

import polars as pl

from garch_platform.errors import DataError
from garch_platform.store.database import Database

__all__ = ["AssetChanges", "record_assets"]

PLAUSIBLE_SHARE: Final = 0.5
PLAUSIBLE_LOSS: Final = (20, 0.05)
"""A list that has lost more than half of the last one, or more than 20 assets and 5 %, is not believed."""

FLAGS: Final = ("is_tradable", "is_shortable", "is_easy_to_borrow")
COLUMNS: Final = (
    *("asset_id", "symbol", "name", "exchange", "asset_class", "status"),
    *FLAGS,
    *("is_fractionable", "first_seen", "last_seen", "delisted_on"),
)


@dataclass(frozen=True)
class AssetChanges:
    """What a list says that the one before did not; a first list changes nothing.

    Attributes:
        delisted: symbols that ceased to be active, in order.
        relisted: symbols that are active again.
        renamed: (old symbol, new symbol) of assets that kept their id.
        permissions: symbols by event: ``tradable``, ``not_tradable``, ``shortable``, ``not_shortable``,
            ``easy_to_borrow``, ``not_easy_to_borrow``.
    """

    delisted: list[str]
    relisted: list[str]
    renamed: list[tuple[str, str]]
    permissions: dict[str, list[str]]


class _Event(NamedTuple):
    symbol: str
    event: str
    detail: str | None


def record_assets(
    database: Database, assets: pl.DataFrame, today: date, *, data_source: str = "alpaca"
) -> AssetChanges:
    """Record the broker's complete list of assets; the same list again changes nothing.

    An asset is delisted when it ceases to be active, or is absent from the list, and no other active
    asset bears its symbol. Its row stays, ``inactive``, with ``delisted_on``. Events are written before
    assets, so that an interrupted write is completed by the next one.

    Args:
        database: its tables ``broker_assets`` and ``symbol_events`` are written.
        assets: one row an asset: ``asset_id``, ``symbol``, ``status`` (``active``, ``inactive``), and
            where known ``name``, ``exchange``, ``asset_class``, ``is_tradable``, ``is_shortable``,
            ``is_easy_to_borrow``, ``is_fractionable``.
        today: the day on which the list was got; the date of the events.
        data_source: who keeps the list.

    Raises:
        DataError: the list is empty, implausibly short, older than the last one or malformed; nothing was
            changed.
    """
    stored = database.read_table("broker_assets")
    _require_plausible(assets, stored, today)
    before = {row["asset_id"]: row for row in stored.iter_rows(named=True)}
    rows = {row["asset_id"]: _row(row, before.get(row["asset_id"]), today) for row in assets.to_dicts()}
    for asset_id, old in before.items():
        if asset_id not in rows and old["status"] == "active":
            gone = {"status": "inactive", "delisted_on": today}
            rows[asset_id] = {name: old[name] for name in COLUMNS} | gone
    active = {row["symbol"] for row in rows.values() if row["status"] == "active"}
    known = [(before[key], row) for key, row in rows.items() if key in before]
    found = {event[:2]: event for old, new in known for event in _events(old, new, active)}
    events = [found[key] for key in sorted(found)]
    if events:
        frame = pl.DataFrame(events, schema=dict.fromkeys(_Event._fields, pl.String), orient="row")
        dated = frame.with_columns(event_date=pl.lit(today), data_source=pl.lit(data_source))
        database.insert_missing("symbol_events", dated)
    changed = [
        row for key, row in rows.items() if row != {name: before.get(key, {}).get(name) for name in row}
    ]
    if changed:
        schema = {name: stored.schema[name] for name in COLUMNS}
        database.upsert("broker_assets", pl.DataFrame(changed, schema=schema))
    return AssetChanges(
        delisted=[event.symbol for event in events if event.event == "delisted"],
        relisted=[event.symbol for event in events if event.event == "relisted"],
        renamed=sorted(
            (old["symbol"], new["symbol"]) for old, new in known if old["symbol"] != new["symbol"]
        ),
        permissions={
            name: [event.symbol for event in events if event.event == name]
            for flag in FLAGS
            for name in (_permission(flag, given=True), _permission(flag, given=False))
        },
    )


def _require_plausible(assets: pl.DataFrame, stored: pl.DataFrame, today: date) -> None:
    missing = [name for name in ("asset_id", "symbol", "status") if name not in assets.columns]
    if missing:
        raise DataError(f"the list of assets lacks {', '.join(missing)}; nothing was changed")
    if assets.is_empty():
        raise DataError("the list of assets is empty; nothing was changed, ask for it again")
    for name in ("asset_id", "symbol", "status"):
        if assets[name].null_count():
            raise DataError(f"the list of assets has {assets[name].null_count()} rows without {name}")
    if assets["asset_id"].is_duplicated().any():
        raise DataError("the list of assets holds an asset_id twice; nothing was changed")
    last = stored.filter(pl.col("last_seen") == pl.col("last_seen").max())
    if last.is_empty():
        return
    seen: date = last["last_seen"][0]
    if today < seen:
        raise DataError(f"the list of assets is of {today}, but one of {seen} is recorded; bring a newer one")
    counts = {
        what: [len(frame.filter(of_kind)) for frame in (assets, last)]
        for what, of_kind in {"assets": pl.lit(True), "active assets": pl.col("status") == "active"}.items()
    }
    for what, (new, old) in counts.items():
        few, share = PLAUSIBLE_LOSS
        if new < PLAUSIBLE_SHARE * old or old - new > max(few, share * old):
            raise DataError(
                f"the list of assets has {new} {what}, the one of {seen} had {old}: it cannot be "
                "complete; nothing was changed, ask for it again"
            )


def _row(listed: dict[str, Any], old: dict[str, Any] | None, today: date) -> dict[str, Any]:
    """The row of a listed asset; when an inactive one was delisted is known only if it was seen active."""
    row = {name: listed.get(name) for name in COLUMNS}
    row |= {"first_seen": old["first_seen"] if old else today, "last_seen": today, "delisted_on": None}
    if row["status"] == "inactive" and old:
        row["delisted_on"] = today if old["status"] == "active" else old["delisted_on"]
    return row


def _events(old: dict[str, Any], new: dict[str, Any], active: set[str]) -> Iterator[_Event]:
    renamed = old["symbol"] != new["symbol"]
    if renamed:
        yield _Event(old["symbol"], "renamed", f"{old['symbol']} → {new['symbol']}")
    if old["status"] == "active" and new["status"] != "active" and new["symbol"] not in active:
        yield _Event(new["symbol"], "delisted", new["name"])
    if new["status"] != "active":
        return
    if old["status"] != "active":
        yield _Event(new["symbol"], "relisted", new["name"])
    for flag in FLAGS:
        if None not in (old[flag], new[flag]) and old[flag] != new[flag]:
            yield _Event(new["symbol"], _permission(flag, given=new[flag]), None)


def _permission(flag: str, *, given: bool) -> str:
    return flag.removeprefix("is_") if given else f"not_{flag.removeprefix('is_')}"
