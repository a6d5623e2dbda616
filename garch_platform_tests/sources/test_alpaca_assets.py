"""AlpacaAssets through the real alpaca-py, against a stub of the trading server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from garch_platform.errors import SourceError
from garch_platform.rest.alpaca import AlpacaAccess
from garch_platform.sources import AlpacaAssets
from garch_platform_tests.sources.alpaca_server import (
    KEY,
    SECRET,
    AlpacaServer,
    Answer,
    Clock,
    access_to,
    serving,
)

FLAGS = ("tradable", "shortable", "easy_to_borrow", "fractionable")


def asset(number: int, symbol: str, status: str = "active", **changes: Any) -> dict[str, Any]:
    """One asset as Alpaca writes it."""
    row = {
        "id": f"b0b6dd9d-8b9b-48a9-ba46-{number:012}",
        "class": "us_equity",
        "exchange": "NASDAQ",
        "symbol": symbol,
        "name": f"{symbol} Common Stock",
        "status": status,
        "marginable": True,
        "maintenance_margin_requirement": 30,
        "attributes": [],
        **dict.fromkeys(FLAGS, status == "active"),
    }
    return {name: value for name, value in (row | changes).items() if value is not ...}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[AlpacaServer]:
    listed = [
        asset(1, "MSFT", shortable=False, easy_to_borrow=False),
        asset(2, "AAPL"),
        asset(3, "SIVBQ", "inactive"),
        asset(4, "BTC/USD", **{"class": "crypto"}),
        asset(2, "AAPL"),
        asset(5, "NEWX", exchange="A NEW ONE", fractionable=..., name=None),
    ]
    with serving(AlpacaServer(assets=listed, now=clock.now)) as running:
        yield running


def assets(server: AlpacaServer, clock: Clock, **changes: Any) -> AlpacaAssets:
    return AlpacaAssets(access_to(server, clock, **changes))


def test_the_list_is_complete_and_says_what_may_be_traded(server: AlpacaServer, clock: Clock) -> None:
    listed = assets(server, clock).listed()
    columns = [
        *("symbol", "status", "is_tradable", "is_shortable", "is_easy_to_borrow", "is_fractionable"),
        *("exchange", "name"),
    ]
    assert listed.select(columns).rows() == [
        ("AAPL", "active", True, True, True, True, "NASDAQ", "AAPL Common Stock"),
        ("MSFT", "active", True, False, False, True, "NASDAQ", "MSFT Common Stock"),
        ("NEWX", "active", True, True, True, None, "A NEW ONE", None),
        ("SIVBQ", "inactive", False, False, False, False, "NASDAQ", "SIVBQ Common Stock"),
    ]
    assert listed["asset_id"].n_unique() == 4
    assert listed["asset_class"].unique().to_list() == ["us_equity"]
    assert server.asked == [("/v2/assets", {"asset_class": "us_equity"})]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500),
        Answer(429),
        Answer(body=json.dumps([asset(1, "AAPL")]).encode(), cut=True),
        Answer(body=b"{}"),
    ],
    ids=["500", "429", "cut", "no list"],
)
def test_a_passing_fault_is_overcome_and_a_lasting_one_is_an_error(
    server: AlpacaServer, clock: Clock, fault: Answer
) -> None:
    server.next.extend([fault, fault])
    assert assets(server, clock, attempts=3).listed().height == 4
    server.always = fault
    with pytest.raises(SourceError, match="3 attempts"):
        assets(server, clock, attempts=3).listed()


def test_a_server_that_cannot_be_reached_is_an_error(clock: Clock) -> None:
    with serving(AlpacaServer()) as stopped:
        pass
    with pytest.raises(SourceError, match=r"/v2/assets: ConnectionError, 2 attempts"):
        assets(stopped, clock, attempts=2).listed()


@pytest.mark.parametrize(
    "odd", [asset(9, ""), asset(9, "ODD", "halted"), asset(9, "ODD", id=...)], ids=["symbol", "status", "id"]
)
def test_a_list_that_is_not_understood_is_refused_as_a_whole(
    server: AlpacaServer, clock: Clock, odd: dict[str, Any]
) -> None:
    server.assets.append(odd)
    with pytest.raises(SourceError, match="nothing of the list was taken"):
        assets(server, clock).listed()
    assert clock.pauses == []


def test_credentials_of_the_other_account_are_named(server: AlpacaServer, clock: Clock) -> None:
    server.always = Answer(401, b'{"code": 40110000, "message": "request is not authorized"}')
    with pytest.raises(SourceError, match=r"request is not authorized.*alpaca\.paper"):
        assets(server, clock).listed()


def test_paper_and_live_accounts_have_their_own_server() -> None:
    from alpaca.trading.client import TradingClient

    for paper, address in ((True, "https://paper-api.alpaca.markets"), (False, "https://api.alpaca.markets")):
        source = AlpacaAssets(AlpacaAccess(KEY, SECRET), paper=paper)
        opened = source._access.open(TradingClient, paper=source.paper)
        assert opened._base_url == address
