"""Which symbols the live edge serves and follows, and from whose bars."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from io import StringIO
from pathlib import Path

import polars as pl
from ruamel.yaml import YAML

from garch_platform.errors import ConfigurationError, SymbolError
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform.workspace.maintenance import recorded_renames

__all__ = ["follow_only", "followed_symbols", "pair_symbols", "stand_ins", "trial_symbols"]

LOG = logging.getLogger(__name__)

VARIABLE = "GARCH_WEBSOCKET__SYMBOLS"
TRIAL_SYMBOLS = 3
"""How many registered symbols `trial_symbols` takes where none is configured."""


def followed_symbols(workspace: Workspace, symbols: Sequence[str] | None = None) -> list[str]:
    """What the stream client subscribes to: ``symbols``, or ``websocket.symbols``, or all active ones.

    A symbol of the setting that was retired since is left out, or followed under the name that it has now:
    one delisting does not end the feed of the others.

    Raises:
        SymbolError: one of them was never registered, one of ``symbols`` is not active, or none is.
    """
    rows = workspace.symbols()
    active = rows.filter("is_active")["symbol"].to_list()
    asked = workspace.settings.websocket.symbols if symbols is None else symbols
    if list(asked) in ([], ["*"]):
        chosen = active
    else:
        _require_known(asked, set(rows["symbol"]))
        chosen = _still_active(workspace, asked, active)
    if symbols is not None and (retired := sorted(set(asked) - set(chosen) - {"*"})):
        raise SymbolError(f"{', '.join(retired)} stopped trading and cannot be followed; leave them out")
    if not chosen:
        raise SymbolError(
            "no symbol to follow is registered and active; run `garch symbols add SYMBOL`, or `garch symbols all`"
        )
    return chosen


def _require_known(symbols: Sequence[str], known: Collection[str]) -> None:
    if strangers := [symbol for symbol in symbols if symbol not in known]:
        raise SymbolError(
            f"the live edge cannot follow {', '.join(strangers)}, which this workspace never had; run "
            f"`garch symbols add {' '.join(strangers)}`, or leave them out (websocket.symbols)"
        )


def _still_active(workspace: Workspace, symbols: Sequence[str], active: Collection[str]) -> list[str]:
    """``symbols`` under the names that they have now, without those that stopped trading."""
    renames = recorded_renames(workspace)
    current = [symbol if symbol in active else renames.get(symbol, symbol) for symbol in symbols]
    if retired := sorted(set(current) - set(active)):
        LOG.warning("not followed any more: %s, retired", ", ".join(retired))
    return list(dict.fromkeys(symbol for symbol in current if symbol in active))


def stand_ins(workspace: Workspace, symbols: Sequence[str]) -> dict[str, str | None]:
    """For each symbol of which the recycler has no bars of its own, whose bars it sends; None if it has none.

    What it serves are the bars of ``websocket.recycler.symbols`` in its ``date_range``.
    """
    recycler = workspace.settings.websocket.recycler
    first, last = recycler.date_range.start_date, recycler.date_range.end_date
    coverage = workspace.lake.coverage("bars", workspace.settings.timeframe.name)
    held = set(
        coverage.filter(
            pl.lit(True) if first is None else pl.col("last_session") >= first,
            pl.lit(True) if last is None else pl.col("first_session") <= last,
        )["symbol"]
    )
    found: dict[str, str | None] = {}
    for symbol in symbols:
        is_served = not recycler.symbols or symbol in recycler.symbols
        proxy = recycler.proxies.get(symbol, recycler.default_proxy)
        if not (is_served and symbol in held):
            found[symbol] = proxy if is_served and proxy in held else None
    return found


def pair_symbols(workspace: Workspace) -> list[str]:
    """Both legs of every pair that passed on the last ranked session.

    Raises:
        SymbolError: no session was ranked yet, no pair passed on the last one, or none whose legs still trade.
    """
    days = workspace.database.read("SELECT max(ranking_date) AS ranking_date FROM pair_rankings")
    day = days["ranking_date"][0]
    if day is None:
        raise SymbolError("no session was ranked yet; run `garch refresh`")
    last = workspace.database.read_table("pair_rankings", ranking_date=[day], passed=[True]).sort("rank")
    if last.is_empty():
        raise SymbolError(f"no pair passed on {day}, the last ranked session; see `garch rank`")
    active = set(workspace.symbols().filter("is_active")["symbol"])
    pairs = [pair for pair in last.select("symbol_1", "symbol_2").rows() if active.issuperset(pair)]
    if not pairs:
        raise SymbolError(f"a leg of each pair that passed on {day} has stopped trading; run `garch refresh`")
    return list(dict.fromkeys(symbol for pair in pairs for symbol in pair))


def trial_symbols(workspace: Workspace) -> list[str]:
    """A few active symbols for trying the stream out: ``websocket.testing_symbols``, or the first with bars."""
    configured = workspace.settings.websocket.testing_symbols
    if configured:
        return list(dict.fromkeys(configured))
    held = set(workspace.lake.coverage("bars", workspace.settings.timeframe.name)["symbol"])
    active = workspace.symbols().filter("is_active")["symbol"].to_list()
    return [symbol for symbol in active if symbol in held][:TRIAL_SYMBOLS] or active[:TRIAL_SYMBOLS]


def follow_only(workspace: Workspace, symbols: Sequence[str]) -> None:
    """Write ``symbols`` as ``websocket.symbols`` into the workspace's settings.yaml; empty follows all.

    Comments and other settings of the file stay as they are. A client that runs is not told.

    Raises:
        SymbolError: one of them is not registered and active; nothing was written.
        ConfigurationError: the environment or ``.env`` says otherwise and wins; the file is as it was.
    """
    if symbols:
        followed_symbols(workspace, symbols)
    path = workspace.settings.workspace / "settings.yaml"
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    text = path.read_text("utf-8") if path.is_file() else ""
    document = yaml.load(text) or {}
    document.setdefault("websocket", {})["symbols"] = list(symbols)
    written = StringIO()
    yaml.dump(document, written)
    head = text if text and not yaml.load(text) else ""
    _write(path, head + written.getvalue())
    if load_settings(workspace.settings.workspace).websocket.symbols != list(symbols):
        _write(path, text)
        raise ConfigurationError(
            f"{VARIABLE} is set in the environment or in .env and wins over settings.yaml; unset it first"
        )


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, "utf-8")
    fresh.replace(path)
