"""Which symbols the live edge serves and follows, and from whose bars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import StringIO

from ruamel.yaml import YAML

from garch_platform.errors import ConfigurationError, SymbolError
from garch_platform.workspace import Workspace

__all__ = ["follow_only", "followed_symbols", "pair_symbols", "stand_ins", "trial_symbols"]

VARIABLE = "GARCH_WEBSOCKET__SYMBOLS"
TRIAL_SYMBOLS = 3
"""How many registered symbols `trial_symbols` takes where none is configured."""


def followed_symbols(workspace: Workspace, symbols: Sequence[str] | None = None) -> list[str]:
    """What the stream client subscribes to: ``symbols``, or ``websocket.symbols``, or all active ones.

    Raises:
        SymbolError: one of them is not registered and active, or none is.
    """
    active = workspace.symbols().filter("is_active")["symbol"].to_list()
    asked = workspace.settings.websocket.symbols if symbols is None else symbols
    chosen = active if list(asked) in ([], ["*"]) else list(dict.fromkeys(asked))
    strangers = [symbol for symbol in chosen if symbol not in active]
    if strangers:
        where = "websocket.symbols names" if symbols is None else "the live edge cannot follow"
        raise SymbolError(
            f"{where} {', '.join(strangers)}, not active in this workspace; run `garch symbols add "
            f"{' '.join(strangers)}` first, or leave them out"
        )
    if not chosen:
        raise SymbolError("no symbol is registered; run `garch symbols add SYMBOL` first")
    return chosen


def stand_ins(workspace: Workspace, symbols: Sequence[str]) -> dict[str, str | None]:
    """For each symbol without bars in the lake, the one that the recycler sends in its place; None if none."""
    recycler = workspace.settings.websocket.recycler
    held = set(workspace.lake.coverage("bars", workspace.settings.timeframe.name)["symbol"])
    proxies = {
        symbol: recycler.proxies.get(symbol, recycler.default_proxy)
        for symbol in symbols
        if symbol not in held
    }
    return {symbol: proxy if proxy in held else None for symbol, proxy in proxies.items()}


def pair_symbols(workspace: Workspace) -> list[str]:
    """Both legs of every pair that passed on the last ranked session.

    Raises:
        SymbolError: no session was ranked yet, or no pair passed on the last one.
    """
    days = workspace.database.read("SELECT max(ranking_date) AS ranking_date FROM pair_rankings")
    day = days["ranking_date"][0]
    if day is None:
        raise SymbolError("no session was ranked yet; run `garch refresh`")
    last = workspace.database.read_table("pair_rankings", ranking_date=[day], passed=[True]).sort("rank")
    if last.is_empty():
        raise SymbolError(f"no pair passed on {day}, the last ranked session; see `garch rank`")
    return list(
        dict.fromkeys(symbol for pair in last.select("symbol_1", "symbol_2").rows() for symbol in pair)
    )


def trial_symbols(workspace: Workspace) -> list[str]:
    """A few symbols for trying the stream out: those in ``websocket.testing_symbols``, or the first with bars."""
    configured = workspace.settings.websocket.testing_symbols
    if configured:
        return list(dict.fromkeys(configured))
    held = set(workspace.lake.coverage("bars", workspace.settings.timeframe.name)["symbol"])
    registered = workspace.registry.entries()["symbol"].to_list()
    return [symbol for symbol in registered if symbol in held][:TRIAL_SYMBOLS] or registered[:TRIAL_SYMBOLS]


def follow_only(workspace: Workspace, symbols: Sequence[str]) -> None:
    """Write ``symbols`` as ``websocket.symbols`` into the workspace's settings.yaml; empty follows all.

    Comments and other settings of the file stay as they are.

    Raises:
        SymbolError: one of them is not registered and active; nothing was written.
        ConfigurationError: a variable of the environment says otherwise and would win.
    """
    if symbols:
        followed_symbols(workspace, symbols)
    if VARIABLE in os.environ:
        raise ConfigurationError(f"{VARIABLE} is set and wins over settings.yaml; unset it first")
    path = workspace.settings.workspace / "settings.yaml"
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    text = path.read_text("utf-8") if path.is_file() else ""
    document = yaml.load(text) or {}
    document.setdefault("websocket", {})["symbols"] = list(symbols)
    written = StringIO()
    yaml.dump(document, written)
    head = text if text and not yaml.load(text) else ""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(head + written.getvalue(), "utf-8")
    fresh.replace(path)
