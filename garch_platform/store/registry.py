"""The registry of symbols: a YAML file that people edit and the platform reads.

::

    symbols:
      AAPL:                      # comments stay where they are
        name: Apple Inc.
        sector: technology
        asset_class: equity
      TWTR:
        name: Twitter
        sector: technology
        asset_class: equity
        retired: 2022-10-27

What is written here becomes rows of the table `symbols` by `garch_platform.store.symbols.sync_symbols`.
"""

from __future__ import annotations

import difflib
import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from io import StringIO
from pathlib import Path
from typing import Any, Final

import polars as pl
from filelock import FileLock
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from garch_platform.bars import validate_symbol
from garch_platform.errors import ConfigurationError, StoreError, StoreFull, SymbolError

__all__ = ["REGISTRY_SCHEMA", "SymbolRegistry"]

REGISTRY_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "name": pl.String,
    "sector": pl.String,
    "asset_class": pl.String,
    "retired": pl.Date,
}

YAML_WORDS: Final = frozenset({"Y", "N", "ON", "OFF", "NO", "YES", "TRUE", "FALSE", "NULL"})
"""Symbols that some YAML readers take for a boolean or null; they are written in quotes."""


class SymbolRegistry:
    """The registry in the file ``path``, which need not exist yet.

    Writing keeps comments and order, replaces the file in one step, and locks out other writers.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def entries(self) -> pl.DataFrame:
        """One row a symbol in the file's order: ``symbol name sector asset_class retired``.

        Raises:
            ConfigurationError: the file is not valid; the message names the place.
            SymbolError: a symbol is malformed.
        """
        symbols = self._symbols(self._load())
        rows = [self._row(symbol, fields) for symbol, fields in symbols.items()]
        return pl.DataFrame(rows, schema=REGISTRY_SCHEMA, orient="row")

    def add(
        self, symbol: str, *, name: str | None = None, sector: str | None = None, asset_class: str = "equity"
    ) -> None:
        """Register ``symbol``; raise `SymbolError` if it is malformed or already there.

        A retired symbol comes back: its date is removed, and fields that are given replace the old ones.
        """
        validate_symbol(symbol)
        fields = {"name": name, "sector": sector, "asset_class": asset_class}
        with self._changing() as symbols:
            if symbol not in symbols:
                symbols[_key(symbol)] = _entry(fields)
                return
            if "retired" not in (symbols[symbol] or {}):
                raise SymbolError(
                    f"symbol {symbol} is already registered in {self.path}; edit its entry there"
                )
            del symbols[symbol]["retired"]
            symbols[symbol].update({key: value for key, value in fields.items() if value is not None})

    def remove(self, symbol: str) -> None:
        """Take ``symbol`` out; its stored data stays. `SymbolError` if unknown, with near names."""
        with self._locked():
            document = self._load()
            symbols = self._symbols(document)
            self._require_known(symbol, symbols)
            text = _without(self.path.read_text(encoding="utf-8"), *symbols.lc.key(symbol))
            del symbols[symbol]
            if _content(text) == document:
                self._write(text)
            else:
                self._save(document)

    def retire(self, symbol: str, on: date) -> None:
        """Note that ``symbol`` stops trading ``on`` that day; `SymbolError` if unknown."""
        with self._changing() as symbols:
            self._retire(symbols, symbol, on)

    def rename(self, symbol: str, new: str, on: date) -> None:
        """Retire ``symbol`` and register ``new`` (or let it return) with its fields, in one step.

        Raises:
            SymbolError: ``symbol`` is unknown, or ``new`` is malformed.
        """
        validate_symbol(new)
        with self._changing() as symbols:
            self._retire(symbols, symbol, on)
            like = {key: value for key, value in symbols[symbol].items() if key != "retired"}
            if new not in symbols:
                symbols[_key(new)] = _entry(like)
            elif symbols[new] is not None:
                symbols[new].pop("retired", None)

    def _retire(self, symbols: CommentedMap, symbol: str, on: date) -> None:
        self._require_known(symbol, symbols)
        if symbols[symbol] is None:
            symbols[symbol] = CommentedMap()
        symbols[symbol].pop("retired", None)
        symbols[symbol].insert(0, "retired", on)

    def write_new(self, frame: pl.DataFrame) -> None:
        """Write a registry that does not exist yet.

        Args:
            frame: ``symbol`` and any of ``name``, ``sector``, ``asset_class``, ``retired``.

        Raises:
            StoreError: the file exists; it is never overwritten.
            SymbolError: a symbol is malformed or doubled.
        """
        doubled = frame.filter(pl.col("symbol").is_duplicated())["symbol"].unique(maintain_order=True)
        if len(doubled):
            raise SymbolError(f"symbols {', '.join(doubled)} are doubled; keep one row of each")
        with self._locked():
            if self.path.exists():
                raise StoreError(f"the registry {self.path} exists already; edit it, or remove it first")
            symbols = CommentedMap()
            for row in frame.select(name for name in REGISTRY_SCHEMA if name in frame.columns).to_dicts():
                symbols[_key(validate_symbol(row.pop("symbol")))] = _entry(row)
            self._save(CommentedMap(symbols=symbols))

    def _row(self, symbol: object, fields: Any) -> dict[str, Any]:
        row = dict(fields) if isinstance(fields, dict) else {}
        place = f"{self.path}, symbol {symbol}"
        if not (fields is None or isinstance(fields, dict)):
            raise ConfigurationError(f"{place}: {fields!r} is no mapping; write 'name:', 'sector:' below it")
        unknown = sorted(map(str, set(row) - set(REGISTRY_SCHEMA)))
        if unknown:
            raise ConfigurationError(
                f"{place}: {', '.join(unknown)} is not known; use name, sector, asset_class, retired"
            )
        retired = row.get("retired")
        if retired is not None and (not isinstance(retired, date) or isinstance(retired, datetime)):
            raise ConfigurationError(f"{place}: retired is {retired!r}; write a date such as 2024-01-31")
        texts = {
            key: None if row.get(key) is None else str(row[key]) for key in ("name", "sector", "asset_class")
        }
        return {"symbol": validate_symbol(symbol), **texts, "retired": retired}

    def _require_known(self, symbol: str, symbols: CommentedMap) -> None:
        if symbol in symbols:
            return
        near = difflib.get_close_matches(symbol.upper(), [str(name) for name in symbols], n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "`garch symbols list` shows those that are"
        raise SymbolError(f"symbol {symbol} is not registered in {self.path}; {hint}")

    def _symbols(self, document: CommentedMap) -> CommentedMap:
        symbols = document.get("symbols")
        if symbols is None:
            symbols = document["symbols"] = CommentedMap()
        if not isinstance(symbols, CommentedMap):
            raise ConfigurationError(
                f"{self.path}: 'symbols' is no mapping; write one symbol a line, 'AAPL:'"
            )
        return symbols

    def _load(self) -> CommentedMap:
        try:
            document = _yaml().load(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return CommentedMap()
        except YAMLError as error:
            raise ConfigurationError(f"the registry {self.path} is not valid YAML: {error}") from None
        if document is None:
            return CommentedMap()
        if not isinstance(document, CommentedMap):
            raise ConfigurationError(f"the registry {self.path} must start with 'symbols:'")
        return document

    def _save(self, document: CommentedMap) -> None:
        text = StringIO()
        _yaml().dump(document, text)
        self._write(text.getvalue())

    def _write(self, text: str) -> None:
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(self.path.stat().st_mode if self.path.exists() else 0o644)
            Path(temporary).replace(self.path)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StoreFull(
                    f"the registry {self.path} was not changed: no space is left; free some and try again"
                ) from error
            raise StoreError(f"the registry {self.path} cannot be written: {error}") from error
        finally:
            Path(temporary).unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=20):
            yield

    @contextmanager
    def _changing(self) -> Iterator[CommentedMap]:
        with self._locked():
            document = self._load()
            yield self._symbols(document)
            self._save(document)


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 200
    yaml.indent(mapping=2)
    return yaml


def _without(text: str, line: int, column: int) -> str:
    """Cut the block entry that starts at ``line`` and ``column``; comments before the next one stay."""
    lines = text.splitlines(keepends=True)
    end = line + 1
    for number in range(line + 1, len(lines)):
        content = lines[number].lstrip()
        if content and len(lines[number]) - len(content) <= column:
            if not content.startswith("#"):
                break
        elif content:
            end = number + 1
    return "".join(lines[:line] + lines[end:])


def _content(text: str) -> Any:
    try:
        document = _yaml().load(text)
    except YAMLError:
        return None
    if isinstance(document, CommentedMap) and document.get("symbols") is None:
        document["symbols"] = CommentedMap()
    return document


def _key(symbol: str) -> str:
    return DoubleQuotedScalarString(symbol) if symbol in YAML_WORDS else symbol


def _entry(fields: dict[str, Any]) -> CommentedMap:
    return CommentedMap({key: value for key, value in fields.items() if value is not None})
