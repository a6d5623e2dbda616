"""The registry keeps what people wrote in it, and the table `symbols` follows it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from garch_platform.bars import validate_symbol
from garch_platform.errors import ConfigurationError, DataError, StoreError, SymbolError
from garch_platform.store import Database, SymbolRegistry, sync_symbols
from garch_platform.store.registry import REGISTRY_SCHEMA
from garch_platform_tests.store import writers
from garch_platform_tests.store.conftest import Together

TEXT = """\
# Kept by the desk.
symbols:
  MSFT: # the first one
    name: Microsoft
    sector: technology
    asset_class: equity
  # a comment between two symbols
  AAPL:
    name: "Apple Inc." # quoted on purpose
    sector: technology
    asset_class: equity
"""

NOON = datetime(2024, 1, 5, 12, tzinfo=UTC)
HISTORY_END = date(2024, 1, 2)


@pytest.fixture
def registry(tmp_path: Path) -> SymbolRegistry:
    path = tmp_path / "symbols.yaml"
    path.write_text(TEXT)
    return SymbolRegistry(path)


def test_entries_keep_the_order_of_the_file(registry: SymbolRegistry) -> None:
    entries = registry.entries()
    assert entries.schema == REGISTRY_SCHEMA
    assert entries.rows() == [
        ("MSFT", "Microsoft", "technology", "equity", None),
        ("AAPL", "Apple Inc.", "technology", "equity", None),
    ]


@pytest.mark.parametrize("text", [None, "", "symbols:\n", "# only a comment\n"])
def test_an_absent_or_empty_registry_has_no_entries(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "deep" / "symbols.yaml"
    if text is not None:
        path.parent.mkdir()
        path.write_text(text)
    registry = SymbolRegistry(path)
    assert registry.entries().equals(pl.DataFrame(schema=REGISTRY_SCHEMA))
    registry.add("AAPL")
    assert registry.entries()["symbol"].to_list() == ["AAPL"]


def test_editing_keeps_comments_order_and_quotes(registry: SymbolRegistry) -> None:
    registry.add("NVDA", name="NVIDIA", sector="technology")
    added = TEXT + "  NVDA:\n    name: NVIDIA\n    sector: technology\n    asset_class: equity\n"
    assert registry.path.read_text() == added
    registry.retire("MSFT", date(2024, 3, 1))
    name = "    name: Microsoft\n"
    assert registry.path.read_text() == added.replace(name, "    retired: 2024-03-01\n" + name)
    assert registry.entries()["retired"].to_list() == [date(2024, 3, 1), None, None]
    registry.add("MSFT")
    registry.remove("NVDA")
    assert registry.path.read_text() == TEXT


def test_removing_keeps_the_comments_of_the_others(registry: SymbolRegistry) -> None:
    lines = TEXT.splitlines(keepends=True)
    registry.remove("MSFT")
    assert registry.path.read_text() == "".join(lines[:2] + lines[6:])
    registry.remove("AAPL")
    assert registry.entries().is_empty()
    assert registry.path.read_text().startswith("# Kept by the desk.\nsymbols:")


def test_entries_in_flow_style_can_be_edited(tmp_path: Path) -> None:
    registry = SymbolRegistry(tmp_path / "symbols.yaml")
    registry.path.write_text(
        "symbols: {AAPL: {sector: technology}, AMD: , MSFT: {name: Microsoft}}  # short\n"
    )
    registry.remove("AAPL")
    registry.retire("AMD", date(2024, 1, 2))
    assert registry.entries().rows() == [
        ("AMD", None, None, None, date(2024, 1, 2)),
        ("MSFT", "Microsoft", None, None, None),
    ]


@pytest.mark.parametrize(
    "symbol", ["ON", "NO", "Y", "TRUE", "NULL", "NAN", "BRK.B", "BF-B", "^GSPC", "SIM01"]
)
def test_every_symbol_survives_the_file(registry: SymbolRegistry, symbol: str) -> None:
    registry.add(symbol, name="Null", sector="yes")
    assert registry.entries().row(-1) == (symbol, "Null", "yes", "equity", None)


@given(st.from_regex(r"\^?[A-Z][A-Z0-9.\-]{0,14}", fullmatch=True))
def test_well_formed_symbols_are_returned(symbol: str) -> None:
    assert validate_symbol(symbol) == symbol


@pytest.mark.parametrize(
    ("symbol", "remedy"),
    [
        ("aapl", "write AAPL"),
        (" AAPL ", "write AAPL"),
        ("AAPL\n", "write AAPL"),
        ("", "use a capital letter"),
        ("A" * 16, "use a capital letter"),
        ("AB|CD", "use a capital letter"),
        ("1A", "use a capital letter"),
        (True, "put it in quotes"),
        (None, "put it in quotes"),
    ],
)
def test_malformed_symbols_are_refused_with_the_remedy(symbol: object, remedy: str) -> None:
    with pytest.raises(SymbolError, match=remedy):
        validate_symbol(symbol)


def test_unknown_symbols_have_near_names(registry: SymbolRegistry) -> None:
    before = registry.path.read_text()
    with pytest.raises(SymbolError, match=r"APPL is not registered in .*did you mean AAPL\?"):
        registry.remove("APPL")
    with pytest.raises(SymbolError, match="`garch symbols list` shows"):
        registry.retire("XYZ", date(2024, 1, 2))
    assert registry.path.read_text() == before


def test_a_symbol_is_added_once_and_may_come_back(registry: SymbolRegistry) -> None:
    with pytest.raises(SymbolError, match="AAPL is already registered"):
        registry.add("AAPL")
    registry.retire("AAPL", date(2024, 1, 3))
    registry.add("AAPL", name="Apple")
    assert registry.entries().row(1) == ("AAPL", "Apple", "technology", "equity", None)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("symbols: [AAPL]", ConfigurationError, "'symbols' is no mapping"),
        ("- AAPL", ConfigurationError, "must start with 'symbols:'"),
        ("symbols: {AAPL: {", ConfigurationError, "not valid YAML"),
        ("symbols:\n  AAPL: technology", ConfigurationError, "symbol AAPL: 'technology' is no mapping"),
        ("symbols:\n  AAPL: {sektor: x}", ConfigurationError, "symbol AAPL: sektor is not known"),
        ("symbols:\n  AAPL: {retired: soon}", ConfigurationError, "retired is 'soon'; write a date"),
        ("symbols:\n  AAPL: {}\n  AAPL: {}", ConfigurationError, "not valid YAML"),
        ("symbols:\n  true: {}", SymbolError, "put it in quotes"),
        ("symbols:\n  aapl: {}", SymbolError, "write AAPL"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "symbols.yaml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        SymbolRegistry(path).entries()
    assert path.read_text() == text


def test_a_new_registry_is_never_written_over_an_old_one(registry: SymbolRegistry, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"symbol": ["AAPL", "ON"], "name": ["Apple: the company", None], "price": [1.0, 2.0]}
    )
    with pytest.raises(StoreError, match="exists already"):
        registry.write_new(frame)
    new = SymbolRegistry(tmp_path / "new" / "symbols.yaml")
    new.write_new(frame)
    assert new.entries().select("symbol", "name").rows() == [("AAPL", "Apple: the company"), ("ON", None)]
    with pytest.raises(SymbolError, match="AAPL are doubled"):
        SymbolRegistry(tmp_path / "other.yaml").write_new(pl.concat([frame[:1], frame[:1]]))
    assert not (tmp_path / "other.yaml").exists()


def test_a_failed_save_leaves_the_file(registry: SymbolRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("garch_platform.store.registry.os.fsync", full)
    with pytest.raises(StoreError, match="no space is left"):
        registry.add("NVDA")
    assert registry.path.read_text() == TEXT
    assert [
        path.name for path in registry.path.parent.glob(".symbols.yaml.*") if path.suffix != ".lock"
    ] == []


def test_four_processes_add_without_loss(registry: SymbolRegistry, together: Together) -> None:
    names = [[f"{letter}{number}" for number in range(5)] for letter in "WXYZ"]
    together.run(writers.add_symbols, [(registry.path, group) for group in names])
    assert set(registry.entries()["symbol"]) == {"AAPL", "MSFT"}.union(*names)


def test_sync_is_idempotent(registry: SymbolRegistry, database: Database) -> None:
    assert sync_symbols(registry, database, NOON, HISTORY_END) == (["MSFT", "AAPL"], [])
    rows = database.read_table("symbols")
    assert rows.select("symbol", "sector", "is_active", "history_end", "added_at", "retired_at").rows() == [
        (symbol, "technology", True, HISTORY_END, NOON, None) for symbol in ("AAPL", "MSFT")
    ]
    later = datetime(2024, 2, 1, tzinfo=UTC)
    assert sync_symbols(registry, database, later, date(2024, 1, 31)) == ([], [])
    assert database.read_table("symbols").equals(rows)


def test_sync_keeps_what_ingestion_knows(registry: SymbolRegistry, database: Database) -> None:
    sync_symbols(registry, database, NOON, HISTORY_END)
    seen = {"symbol": ["AAPL"], "first_session": [date(1990, 1, 2)], "last_session": [date(2024, 1, 4)]}
    database.upsert("symbols", pl.DataFrame(seen))
    registry.path.write_text(TEXT.replace("Apple Inc.", "Apple"))
    assert sync_symbols(registry, database, NOON, HISTORY_END) == ([], [])
    apple = database.read_table("symbols", symbol="AAPL").row(0, named=True)
    assert (apple["name"], apple["first_session"]) == ("Apple", date(1990, 1, 2))


def test_symbols_retire_and_return_but_never_vanish(registry: SymbolRegistry, database: Database) -> None:
    sync_symbols(registry, database, NOON, HISTORY_END)
    registry.retire("MSFT", date(2024, 1, 6))
    assert sync_symbols(registry, database, NOON, HISTORY_END).retired == []
    later = datetime(2024, 1, 6, 12, tzinfo=UTC)
    assert sync_symbols(registry, database, later, HISTORY_END) == ([], ["MSFT"])
    registry.remove("AAPL")
    assert sync_symbols(registry, database, later, HISTORY_END) == ([], ["AAPL"])
    assert database.read_table("symbols").select("symbol", "is_active", "retired_at").rows() == [
        ("AAPL", False, later),
        ("MSFT", False, datetime(2024, 1, 6, tzinfo=UTC)),
    ]
    assert sync_symbols(registry, database, later, HISTORY_END) == ([], [])
    registry.add("AAPL", name="Apple", sector="technology")
    assert sync_symbols(registry, database, later, HISTORY_END) == (["AAPL"], [])
    apple = database.read_table("symbols", symbol="AAPL").row(0, named=True)
    assert (apple["is_active"], apple["retired_at"], apple["added_at"]) == (True, None, NOON)


def test_sync_wants_an_aware_time(registry: SymbolRegistry, database: Database) -> None:
    with pytest.raises(DataError, match="no time zone"):
        sync_symbols(registry, database, datetime(2024, 1, 5), HISTORY_END)  # noqa: DTZ001
