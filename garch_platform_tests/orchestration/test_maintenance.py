"""What delistings and renames do to the registry, and that nothing else does."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from garch_platform.errors import DataError
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform.workspace.maintenance import Maintained, maintain_symbols

FIRST, SECOND, THIRD = date(2026, 11, 18), date(2026, 11, 19), date(2026, 11, 20)
SECTORS = {"AAA": "technology", "BBB": "healthcare", "CCC": "financial", "LOCAL": "financial"}


def listed(*symbols: str, **changes: dict[str, Any]) -> pl.DataFrame:
    """The broker's list: ``symbols``, and the changed fields of some; ids follow the first letter."""
    rows = [
        {
            "asset_id": f"id-{symbol[0]}",
            "symbol": symbol,
            "name": f"{symbol} Inc.",
            "status": "active",
            **dict.fromkeys(("is_tradable", "is_shortable", "is_easy_to_borrow"), True),
            **changes.get(symbol, {}),
        }
        for symbol in symbols
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def workspace(tmp_path: Path, sqlite_template: Path) -> Workspace:
    shutil.copy(sqlite_template, tmp_path / "garch.db")
    opened = Workspace(load_settings(tmp_path))
    opened.prepare()
    opened.registry.write_new(pl.DataFrame({"symbol": list(SECTORS), "sector": list(SECTORS.values())}))
    maintain_symbols(opened, listed("AAA", "BBB", "CCC"), FIRST)
    return opened


def registered(workspace: Workspace) -> dict[str, date | None]:
    return dict(workspace.registry.entries().select("symbol", "retired").iter_rows())


def test_first_list_retires_nobody(workspace: Workspace) -> None:
    assert set(registered(workspace).values()) == {None}


@pytest.mark.parametrize(
    "assets",
    [listed("AAA", "CCC"), listed("AAA", "BBB", "CCC", BBB={"status": "inactive"})],
    ids=["absent", "inactive"],
)
def test_delisted_symbol_is_retired_once_with_the_day_on_which_it_was_seen(
    workspace: Workspace, assets: pl.DataFrame
) -> None:
    done = maintain_symbols(workspace, assets, SECOND)
    assert (done.retired, done.renamed) == (["BBB"], {})
    assert registered(workspace) == {"AAA": None, "BBB": SECOND, "CCC": None, "LOCAL": None}
    again = maintain_symbols(workspace, assets, THIRD)
    assert (again.retired, registered(workspace)["BBB"]) == ([], SECOND)


def test_renamed_symbol_continues_under_its_new_name_with_its_sector(workspace: Workspace) -> None:
    done = maintain_symbols(workspace, listed("AAA", "BETA", "CCC"), SECOND)
    assert (done.retired, done.renamed) == ([], {"BBB": "BETA"})
    entries = {row["symbol"]: row for row in workspace.registry.entries().iter_rows(named=True)}
    assert (entries["BBB"]["retired"], entries["BETA"]["sector"]) == (SECOND, "healthcare")
    assert maintain_symbols(workspace, listed("AAA", "BETA", "CCC"), THIRD).renamed == {}


def test_name_that_another_asset_took_over_is_retired_and_the_company_continues_under_its_new_name(
    workspace: Workspace,
) -> None:
    """AAA becomes BBB on the day on which BBB becomes WWW: what is stored under BBB is WWW's past."""
    swapped = listed("BBB", "WWW", "CCC").with_columns(asset_id=pl.Series(["id-A", "id-B", "id-C"]))
    done = maintain_symbols(workspace, swapped, SECOND)
    assert (done.renamed, done.passed_on) == ({"AAA": "BBB", "BBB": "WWW"}, ["BBB"])
    expected = {"AAA": SECOND, "BBB": SECOND, "CCC": None, "LOCAL": None, "WWW": None}
    assert registered(workspace) == expected
    entries = {row["symbol"]: row for row in workspace.registry.entries().iter_rows(named=True)}
    assert entries["WWW"]["sector"] == "healthcare"
    again = maintain_symbols(workspace, swapped, THIRD)
    assert (again.renamed, again.passed_on, again.retired) == ({}, [], [])
    assert registered(workspace) == expected


def test_symbol_that_is_renamed_back_returns(workspace: Workspace) -> None:
    maintain_symbols(workspace, listed("AAA", "BETA", "CCC"), SECOND)
    assert maintain_symbols(workspace, listed("AAA", "BBB", "CCC"), THIRD).renamed == {"BETA": "BBB"}
    assert registered(workspace) == {"AAA": None, "BBB": None, "CCC": None, "LOCAL": None, "BETA": THIRD}


def test_run_that_died_between_record_and_registry_is_completed_by_the_next(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(workspace.registry), "retire", killed)
        with pytest.raises(KeyboardInterrupt):
            maintain_symbols(workspace, listed("AAA", "CCC"), SECOND)
    assert registered(workspace)["BBB"] is None
    assert maintain_symbols(workspace, listed("AAA", "CCC"), THIRD).retired == ["BBB"]
    assert registered(workspace)["BBB"] == SECOND


@pytest.mark.parametrize("assets", [listed("AAA"), listed("AAA").clear()], ids=["short", "empty"])
def test_implausible_list_changes_nothing(workspace: Workspace, assets: pl.DataFrame) -> None:
    before = workspace.database.content("broker_assets")
    with pytest.raises(DataError, match="nothing was changed"):
        maintain_symbols(workspace, assets, SECOND)
    assert workspace.database.content("broker_assets").equals(before)
    assert set(registered(workspace).values()) == {None}


def test_symbols_that_may_not_be_traded_now_are_named_and_stay(workspace: Workspace) -> None:
    done: Maintained = maintain_symbols(
        workspace, listed("AAA", "BBB", "CCC", CCC={"is_tradable": False}), SECOND
    )
    assert (done.untradable, done.changes.permissions["not_tradable"]) == (["CCC"], ["CCC"])
    assert registered(workspace)["CCC"] is None


def test_retirement_reaches_the_symbols_table(workspace: Workspace) -> None:
    maintain_symbols(workspace, listed("AAA", "CCC"), SECOND)
    workspace.sync_symbols(datetime(2026, 11, 20, tzinfo=UTC))
    assert workspace.retired() == {"BBB": SECOND}


def test_symbol_that_is_listed_again_returns(workspace: Workspace) -> None:
    maintain_symbols(workspace, listed("AAA", "CCC"), SECOND)
    done = maintain_symbols(workspace, listed("AAA", "BBB", "CCC"), THIRD)
    assert (done.returned, registered(workspace)["BBB"]) == (["BBB"], None)


def test_retirement_by_hand_is_not_undone(workspace: Workspace) -> None:
    workspace.registry.retire("BBB", SECOND)
    assert maintain_symbols(workspace, listed("AAA", "BBB", "CCC"), THIRD).returned == []
    assert registered(workspace)["BBB"] == SECOND


def test_many_registered_symbols_do_not_vanish_at_once(tmp_path: Path) -> None:
    opened = Workspace(load_settings(tmp_path))
    opened.prepare()
    names = [f"{letter}XX" for letter in "ABCDEFGHIJ"]
    opened.registry.write_new(pl.DataFrame({"symbol": names}))
    maintain_symbols(opened, listed(*names), FIRST)
    with pytest.raises(
        DataError, match=r"would retire 4 of 10 registered symbols at once \(such as AXX\): none was"
    ):
        maintain_symbols(opened, listed(*names[4:]), SECOND)
    assert set(registered(opened).values()) == {None}
    assert maintain_symbols(opened, listed(*names[2:]), SECOND).retired == ["AXX", "BXX"]
