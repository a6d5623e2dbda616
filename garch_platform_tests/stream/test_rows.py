"""From the wire to rows of `market_data`, and where they come from."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgpack
import polars as pl
import pytest
from pydantic import SecretStr

from garch_platform.errors import ConfigurationError
from garch_platform.settings import load_settings
from garch_platform.settings.live import Secrets
from garch_platform.stream.endpoint import Endpoint, endpoint_of
from garch_platform.stream.rows import (
    BarRow,
    Proxied,
    bar_row,
    instant,
    microseconds,
    rows_frame,
    split_rows,
)
from garch_platform_tests.stream.edge import edge_settings

MOMENT = datetime(2024, 3, 7, 14, 30, tzinfo=UTC)
WIRE = {"o": 0.1, "h": 0.30000000000000004, "l": 1e-9, "c": 123.45, "v": 100, "n": 7, "vw": 0.2}


def endpoint(folder: Path) -> Endpoint:
    return endpoint_of(edge_settings(folder), Secrets())


RUN = "first"


def row(channel: str, symbol: str, minute: int, close: float = 1.0, run: str | None = RUN) -> BarRow:
    moment = microseconds(MOMENT + timedelta(minutes=minute))
    return BarRow(channel, symbol, moment, 1.0, 1.0, 1.0, close, 10.0, None, None, moment, run)


def test_both_codecs_give_the_same_row() -> None:
    packed = bar_row("bar", "A", {**WIRE, "t": msgpack.Timestamp.from_datetime(MOMENT)}, 5)
    assert packed == bar_row("bar", "A", {**WIRE, "t": "2024-03-07T14:30:00Z"}, 5)
    assert instant(packed.timestamp) == MOMENT
    assert packed[3:10] == (0.1, 0.30000000000000004, 1e-9, 123.45, 100.0, 7, 0.2)


@pytest.mark.parametrize("absent", [{"n": None, "vw": None}, {}])
def test_what_the_server_does_not_have_is_null(absent: dict[str, None]) -> None:
    given = {key: value for key, value in WIRE.items() if key not in ("n", "vw")}
    made = bar_row("bar", "A", {**given, **absent, "t": "2024-03-07T14:30:00Z"}, 5)
    assert made.trade_count is None
    assert made.vwap is None


@pytest.mark.parametrize("wrong", [{"o": None}, {"t": 5}, {"c": "x"}, {"t": "yesterday"}])
def test_a_bar_that_cannot_be_read_is_said(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"AAPL|could not convert|isoformat"):
        bar_row("bar", "AAPL", {**WIRE, "t": "2024-03-07T14:30:00Z", **wrong}, 5)
    with pytest.raises(ValueError, match="AAPL"):
        bar_row("bar", "AAPL", {}, 5)


def test_updated_bars_win_over_bars_whatever_the_order(tmp_path: Path) -> None:
    rows = [
        row("updated_bar", "A", 0, 3.0),
        row("bar", "A", 0, 2.0),
        row("bar", "A", 1, 4.0),
        row("bar", "A", 1, 5.0),
        row("updated_bar", "A", 0, 6.0),
        row("daily_bar", "A", 0, 7.0),
        row("daily_bar", "A", 0, 8.0),
    ]
    first, replacing = split_rows(rows_frame(rows, endpoint(tmp_path), None))
    assert first.select("channel", "close").rows() == [("bar", 2.0), ("bar", 4.0)]
    assert replacing.select("channel", "timeframe", "close").rows() == [
        ("updated_bar", "1Min", 6.0),
        ("daily_bar", "1Day", 8.0),
    ]


def test_proxied_spans_mark_their_rows_and_no_others(tmp_path: Path) -> None:
    rows = [row("bar", symbol, minute) for symbol in ("A", "B") for minute in range(5)]
    rows += [row("daily_bar", "A", -870), row("daily_bar", "B", -870)]
    spans = {"A": [(rows[1].timestamp, rows[3].timestamp)]}
    frame = rows_frame(rows, endpoint(tmp_path), Proxied(RUN, spans))
    proxied = frame.filter(pl.col("is_proxy"))
    assert proxied.select("symbol", "timeframe", "timestamp").rows() == [
        ("A", "1Min", MOMENT + timedelta(minutes=1)),
        ("A", "1Min", MOMENT + timedelta(minutes=2)),
        ("A", "1Day", MOMENT - timedelta(minutes=870)),
    ]


@pytest.mark.parametrize("asked", [None, "second"])
def test_rows_of_a_run_that_was_not_asked_are_nobodys_own(tmp_path: Path, asked: str | None) -> None:
    """Whatever another run says of the same stamps; and its rows come last, for they replace the others."""
    rows = [row("bar", "A", 0, 2.0, "second"), row("bar", "A", 0, 1.0), row("bar", "B", 1), row("d", "A", 0)]
    told = None if asked is None else Proxied(asked, {"B": [(0, 2**62)]})
    frame = rows_frame(rows, endpoint(tmp_path), told)
    assert frame["is_proxy"].to_list() == [True, True, True, asked is None]
    assert frame["close"].to_list() == ([2.0, 1.0, 1.0, 1.0] if asked is None else [1.0, 1.0, 1.0, 2.0])


def test_rows_without_a_run_are_a_symbols_own_only_where_they_are_alpacas(tmp_path: Path) -> None:
    rows = [row("bar", "A", 0, run=None)]
    assert rows_frame(rows, endpoint(tmp_path), Proxied(RUN, {}))["is_proxy"].all()
    keys = Secrets(apca_api_key_id=SecretStr("PK"), apca_api_secret_key=SecretStr("secret"))
    alpaca = endpoint_of(edge_settings(tmp_path, mode="alpaca"), keys)
    assert not rows_frame(rows, alpaca, None)["is_proxy"].any()


def test_of_a_replay_the_last_of_a_key_holds(tmp_path: Path) -> None:
    """A bar before its correction, and after it what REST says, which has it too."""
    rows = [row("bar", "A", 0, 1.0), row("updated_bar", "A", 0, 2.0)]
    rows += [
        row("bar", "A", 1, 3.0),
        row("rest", "A", 1, 4.0),
        row("rest", "A", 2, 5.0),
        row("bar", "A", 2, 6.0),
    ]
    rows += [
        row("bar", "A", 3, 7.0),
        row("rest", "A", 3, 7.0),
        row("rest", "A", 4, 8.0),
        row("rest", "A", 4, 8.0),
    ]
    first, replacing = split_rows(rows_frame(rows, endpoint(tmp_path), None), is_replay=True)
    assert first.select("channel", "close").rows() == [
        ("rest", 4.0),
        ("bar", 6.0),
        ("bar", 7.0),
        ("rest", 8.0),
    ]
    assert replacing.select("channel", "close").rows() == [("updated_bar", 2.0)]


def test_the_recycler_is_found_by_its_settings(tmp_path: Path) -> None:
    found = endpoint(tmp_path)
    assert found.stream_url.startswith("ws://127.0.0.1:")
    assert found.stream_url.endswith("/v2/iex")
    assert found.rest_url == found.stream_url.replace("ws://", "http://").removesuffix("/v2/iex")
    assert found.name == "recycled/iex/1Min"
    live = edge_settings(tmp_path, recycler={"clock": "live"})
    hourly = live.model_copy(update={"universe": live.universe.model_copy(update={"timeframe": "1Hour"})})
    assert endpoint_of(hourly, Secrets()).name == "recycled/iex/1Min"
    kept = edge_settings(tmp_path)
    daily = kept.model_copy(update={"universe": kept.universe.model_copy(update={"timeframe": "1Day"})})
    assert endpoint_of(daily, Secrets()).name == "recycled/iex/1Day"
    assert not endpoint_of(daily, Secrets()).has_daily_bars


def test_alpaca_needs_credentials_and_never_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    settings = load_settings(tmp_path, websocket={"mode": "alpaca", "feed": "sip"})
    with pytest.raises(ConfigurationError, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY"):
        endpoint_of(settings, Secrets(_env_file=None))
    secrets = Secrets(apca_api_key_id=SecretStr("PK1"), apca_api_secret_key=SecretStr("very-secret"))
    found = endpoint_of(settings, secrets)
    assert found.stream_url == "wss://stream.data.alpaca.markets/v2/sip"
    assert found.name == "alpaca/sip/1Min"
    assert "very-secret" not in f"{found!r}{dataclasses.asdict(found)}"
