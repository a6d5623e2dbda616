"""What one list of assets says that the last one did not, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from garch_platform.errors import DataError, StoreError
from garch_platform.sources import AlpacaAssets
from garch_platform.sources.alpaca_assets import ASSETS_SCHEMA
from garch_platform.store.assets import AssetChanges, record_assets
from garch_platform.store.database import Database
from garch_platform_tests.sources.alpaca_server import AlpacaServer, Clock, access_to, serving

MONDAY = date(2024, 3, 25)
TUESDAY, WEDNESDAY = MONDAY + timedelta(days=1), MONDAY + timedelta(days=2)
NOTHING = {name: [] for flag in ("tradable", "shortable", "easy_to_borrow") for name in (flag, f"not_{flag}")}
SYMBOLS = ("AAPL", "FB", "GE", "MSFT", "SIVB", "TWTR")


def assets(**rows: dict[str, Any]) -> pl.DataFrame:
    """Assets by symbol; what is not said is that of an active, freely tradable one."""
    given = [
        {
            "asset_id": f"id-{symbol}",
            "symbol": symbol,
            "name": f"{symbol} Inc",
            "exchange": "NYSE",
            "asset_class": "us_equity",
            "status": "active",
            "is_tradable": True,
            "is_shortable": True,
            "is_easy_to_borrow": True,
            "is_fractionable": True,
        }
        | changes
        for symbol, changes in rows.items()
    ]
    return pl.DataFrame(given, schema=ASSETS_SCHEMA)


def listed(*, without: str = "", **changes: dict[str, Any]) -> pl.DataFrame:
    """The usual six assets with changes."""
    kept = {symbol: {} for symbol in SYMBOLS if symbol not in without.split()}
    return assets(**(kept | changes))


def events(database: Database) -> list[tuple[Any, ...]]:
    frame = database.read_table("symbol_events").sort("event_date", "symbol", "event")
    return frame.select("event_date", "symbol", "event", "detail").rows()


def contents(database: Database) -> tuple[pl.DataFrame, pl.DataFrame]:
    return database.content("broker_assets"), database.content("symbol_events")


def test_a_first_list_is_recorded_and_changes_nothing(database: Database) -> None:
    changes = record_assets(database, listed(SIVB={"status": "inactive"}), MONDAY)
    assert changes == AssetChanges([], [], [], NOTHING)
    stored = database.read_table("broker_assets")
    assert_frame_equal(
        stored.select(list(ASSETS_SCHEMA)).sort("symbol"), listed(SIVB={"status": "inactive"}).sort("symbol")
    )
    assert stored.select("first_seen", "last_seen", "delisted_on").unique().rows() == [(MONDAY, MONDAY, None)]
    assert events(database) == []


def test_twice_is_once(database: Database) -> None:
    record_assets(database, listed(), MONDAY)
    news = listed(without="TWTR", GE={"is_shortable": False}, FB={"symbol": "META"})
    first = record_assets(database, news, TUESDAY)
    after = contents(database)
    again = record_assets(database, news, TUESDAY)
    for before, now in zip(after, contents(database), strict=True):
        assert_frame_equal(before, now)
    assert first.delisted == ["TWTR"]
    assert again == AssetChanges([], [], [], NOTHING)


def test_delisted_by_status_and_by_absence(database: Database) -> None:
    record_assets(database, listed(), MONDAY)
    changes = record_assets(database, listed(without="TWTR", SIVB={"status": "inactive"}), TUESDAY)
    assert changes.delisted == ["SIVB", "TWTR"]
    assert events(database) == [
        (TUESDAY, "SIVB", "delisted", "SIVB Inc"),
        (TUESDAY, "TWTR", "delisted", "TWTR Inc"),
    ]
    gone = database.read_table("broker_assets", status="inactive").sort("symbol")
    assert gone.select("symbol", "last_seen", "delisted_on").rows() == [
        ("SIVB", TUESDAY, TUESDAY),
        ("TWTR", MONDAY, TUESDAY),
    ]
    later = record_assets(database, listed(without="TWTR", SIVB={"status": "inactive"}), WEDNESDAY)
    assert later.delisted == []
    dates = database.read_table("broker_assets", status="inactive")["delisted_on"]
    assert dates.unique().to_list() == [TUESDAY]


def test_relisted(database: Database) -> None:
    record_assets(database, listed(), MONDAY)
    record_assets(database, listed(without="TWTR"), TUESDAY)
    changes = record_assets(database, listed(), WEDNESDAY)
    assert (changes.delisted, changes.relisted) == ([], ["TWTR"])
    row = database.read_table("broker_assets", symbol="TWTR").row(0, named=True)
    assert (row["status"], row["delisted_on"], row["first_seen"]) == ("active", None, MONDAY)


def test_a_rename_is_no_delisting(database: Database) -> None:
    record_assets(database, listed(), MONDAY)
    changes = record_assets(database, listed(FB={"symbol": "META", "name": "Meta Platforms"}), TUESDAY)
    assert changes == AssetChanges([], [], [("FB", "META")], NOTHING)
    assert events(database) == [(TUESDAY, "FB", "renamed", "FB → META")]
    assert database.read_table("broker_assets", asset_id="id-FB")["symbol"].to_list() == ["META"]


def test_a_symbol_that_another_asset_takes_over_is_not_delisted(database: Database) -> None:
    record_assets(database, listed(), MONDAY)
    reissued = listed(GE={"status": "inactive"}, GE2={"symbol": "GE", "asset_id": "id-GE-new"})
    changes = record_assets(database, reissued, TUESDAY)
    assert changes.delisted == []
    assert database.read_table("broker_assets", symbol="GE").height == 2


def test_what_may_be_done_with_a_symbol(database: Database) -> None:
    record_assets(database, listed(AAPL={"is_easy_to_borrow": False}, FB={"is_shortable": None}), MONDAY)
    news = listed(
        AAPL={"is_easy_to_borrow": True},
        FB={"is_shortable": False},
        GE={"is_tradable": False, "is_shortable": False},
        MSFT={"is_shortable": None},
    )
    changes = record_assets(database, news, TUESDAY)
    assert changes.permissions == NOTHING | {
        "easy_to_borrow": ["AAPL"],
        "not_tradable": ["GE"],
        "not_shortable": ["GE"],
    }
    assert [(symbol, event) for _, symbol, event, _ in events(database)] == [
        ("AAPL", "easy_to_borrow"),
        ("GE", "not_shortable"),
        ("GE", "not_tradable"),
    ]


@pytest.mark.parametrize(
    ("news", "said"),
    [
        (listed().clear(), "is empty"),
        (listed(without="AAPL FB GE MSFT"), "has 2 assets, the one of 2024-03-25 had 6"),
        (
            listed(**{name: {"status": "inactive"} for name in SYMBOLS[:4]}),
            "has 2 active assets, the one of 2024-03-25 had 6",
        ),
        (listed().drop("status"), "lacks status"),
        (listed(AAPL={"symbol": None}), "1 rows without symbol"),
        (pl.concat([listed(), listed()]), "asset_id twice"),
    ],
    ids=["empty", "short", "inactive", "column", "null", "double"],
)
def test_a_list_that_cannot_be_true_changes_nothing(
    database: Database, news: pl.DataFrame, said: str
) -> None:
    record_assets(database, listed(), MONDAY)
    before = contents(database)
    with pytest.raises(DataError, match=said):
        record_assets(database, news, TUESDAY)
    for old, new in zip(before, contents(database), strict=True):
        assert_frame_equal(old, new)


def test_a_list_of_half_the_size_is_the_least_that_is_believed(database: Database) -> None:
    record_assets(database, listed(), MONDAY)
    assert record_assets(database, listed(without="AAPL FB GE"), TUESDAY).delisted == ["AAPL", "FB", "GE"]


@pytest.mark.parametrize(("left", "is_believed"), [(480, True), (475, True), (474, False), (260, False)])
def test_a_long_list_does_not_lose_much_at_once(database: Database, left: int, is_believed: bool) -> None:
    names = [f"A{number:03d}" for number in range(500)]
    record_assets(database, assets(**{name: {} for name in names}), MONDAY)
    rest = assets(**{name: {} for name in names[:left]})
    if is_believed:
        assert len(record_assets(database, rest, TUESDAY).delisted) == 500 - left
        return
    before = contents(database)
    with pytest.raises(DataError, match=f"has {left} assets, the one of 2024-03-25 had 500"):
        record_assets(database, rest, TUESDAY)
    assert [frame.equals(old) for frame, old in zip(contents(database), before, strict=True)] == [True, True]


def test_an_older_list_is_refused(database: Database) -> None:
    record_assets(database, listed(), TUESDAY)
    with pytest.raises(DataError, match="of 2024-03-25, but one of 2024-03-26 is recorded"):
        record_assets(database, listed(), MONDAY)


def test_an_interrupted_write_is_completed_by_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_assets(database, listed(), MONDAY)
    news = listed(without="TWTR")
    with monkeypatch.context() as patched:
        patched.setattr(database, "upsert", lambda *_: (_ for _ in ()).throw(StoreError("away")))
        with pytest.raises(StoreError, match="away"):
            record_assets(database, news, TUESDAY)
    assert record_assets(database, news, TUESDAY).delisted == ["TWTR"]
    assert events(database) == [(TUESDAY, "TWTR", "delisted", "TWTR Inc")]


def test_what_the_broker_lists_is_what_is_recorded(database: Database) -> None:
    clock = Clock()
    row = {"class": "us_equity", "exchange": "NYSE", "name": "General Electric", "status": "active"}
    flags = dict.fromkeys(("tradable", "shortable", "easy_to_borrow", "fractionable"), True)
    held = [{"id": f"id-{name}", "symbol": name, **row, **flags} for name in SYMBOLS]
    with serving(AlpacaServer(assets=held)) as server:
        source = AlpacaAssets(access_to(server, clock))
        record_assets(database, source.listed(), MONDAY)
        held[2]["status"] = "inactive"
        assert record_assets(database, source.listed(), TUESDAY).delisted == ["GE"]


def test_a_list_of_many_assets(database: Database) -> None:
    many = assets(**{f"S{number:05}": {} for number in range(3_000)})
    record_assets(database, many, MONDAY)
    assert record_assets(database, many.tail(-1), TUESDAY).delisted == ["S00000"]
    assert database.read_table("broker_assets", last_seen=TUESDAY).height == 2_999
