"""AlpacaSource through the real alpaca-py, against a stub of Alpaca's servers that speaks their protocol."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import SecretStr

from garch_platform.bars import BAR_SCHEMA, Timeframe
from garch_platform.errors import CalendarError, ConfigurationError, SourceError
from garch_platform.quant.bar_quality import check_bars
from garch_platform.rest.request_pace import RequestPace
from garch_platform.sessions import FIRST_DAY, trading_calendar
from garch_platform.sources import AlpacaSource, BarSource
from garch_platform_tests.sources.alpaca_server import (
    KEY,
    AlpacaServer,
    Answer,
    Clock,
    access_to,
    raw_bar,
    serving,
)

CALENDAR = trading_calendar()
DAY = date(2024, 3, 28)
OPEN = datetime(2024, 3, 28, 13, 30, tzinfo=UTC)
SYMBOLS = ["AAPL", "BRK.B", "MSFT"]
ACCESS_OPTIONS = {"key", "secret", "url", "requests_per_minute", "attempts"}
FIELDS = {
    "open": "o",
    "high": "h",
    "low": "l",
    "close": "c",
    "volume": "v",
    "vwap": "vw",
    "trade_count": "n",
}


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def minutes(count: int, close: float, start: datetime = OPEN) -> list[dict[str, Any]]:
    """Bars whose closes need all their digits."""
    return [raw_bar(stamp(start + timedelta(minutes=m)), close + m / 7) for m in range(count)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[AlpacaServer]:
    held = {(symbol, "1Min"): minutes(5, 100.0 * n) for n, symbol in enumerate(SYMBOLS, start=1)}
    with serving(AlpacaServer(bars=held, now=clock.now)) as running:
        yield running


@pytest.fixture(autouse=True)
def no_sleep_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """alpaca-py's own retries would wait 3 s each."""

    def refuse(seconds: float) -> None:
        raise AssertionError(f"alpaca-py slept {seconds} s")

    monkeypatch.setattr("alpaca.common.rest.time.sleep", refuse)


def source(server: AlpacaServer, clock: Clock, timeframe: str = "1Min", **changes: Any) -> AlpacaSource:
    of_access = {name: changes.pop(name) for name in ACCESS_OPTIONS & set(changes)}
    access = access_to(server, clock, **of_access)
    return AlpacaSource(CALENDAR, Timeframe.parse(timeframe), access, **changes)


def held(server: AlpacaServer, timeframe: str = "1Min") -> pl.DataFrame:
    """What the server holds, as it should arrive."""
    rows = [
        {"symbol": symbol, "timestamp": datetime.fromisoformat(bar["t"])}
        | {name: bar[key] for name, key in FIELDS.items()}
        for (symbol, of), bars in server.bars.items()
        for bar in bars
        if of == timeframe
    ]
    schema = {name: BAR_SCHEMA[name] for name in ("symbol", "timestamp", *FIELDS)}
    return pl.DataFrame(rows, schema=schema, strict=False).sort("symbol", "timestamp")


@pytest.mark.parametrize(
    ("page_limit", "per_request"), [(10_000, 100), (1, 100), (7, 2), (4, 3), (5, 1), (15, 3)]
)
def test_every_bar_arrives_once_and_unchanged_however_it_is_paged(
    server: AlpacaServer, clock: Clock, page_limit: int, per_request: int
) -> None:
    alpaca = source(server, clock, page_limit=page_limit, symbols_per_request=per_request)
    bars = alpaca.fetch(SYMBOLS, DAY, DAY)
    assert isinstance(alpaca, BarSource)
    assert bars.schema == pl.Schema(BAR_SCHEMA)
    assert_frame_equal(bars.select("symbol", "timestamp", *FIELDS), held(server), check_exact=True)
    asked = [parameters for path, parameters in server.asked if path == "/v2/stocks/bars"]
    for parameters in asked:
        assert parameters["limit"] == str(page_limit)
        assert (parameters["feed"], parameters["adjustment"]) == ("iex", "raw")
        assert len(parameters["symbols"].split(",")) <= per_request
    assert clock.pauses == []


def test_rows_say_where_they_come_from_and_pass_the_contract(server: AlpacaServer, clock: Clock) -> None:
    bars = source(server, clock, feed="sip", adjustment="split").fetch(SYMBOLS, DAY, DAY)
    said = ["timeframe", "feed", "data_source", "is_proxy", "adjustment", "session_date"]
    assert bars.select(said).unique().rows() == [("1Min", "sip", "alpaca", False, "split", DAY)]
    assert (bars["available_at"] - bars["timestamp"]).unique().to_list() == [timedelta(minutes=1)]
    assert "/v1/corporate-actions" not in server.paths()
    quality = check_bars(bars, max_log_move=0.4, now=clock.now(), sessions=CALENDAR.schedule)
    assert quality.rejected.is_empty()
    assert quality.accepted.height == bars.height == 15


def test_the_same_question_has_the_same_answer(server: AlpacaServer, clock: Clock) -> None:
    alpaca = source(server, clock)
    assert_frame_equal(alpaca.fetch(SYMBOLS, DAY, DAY), alpaca.fetch(SYMBOLS[::-1] * 2, DAY, DAY))


def test_daily_bars_belong_to_the_day_whose_new_york_midnight_they_bear(
    server: AlpacaServer, clock: Clock
) -> None:
    winter, summer = date(2024, 3, 8), date(2024, 3, 11)  # clocks changed on the Sunday between
    server.bars = {
        ("AAPL", "1Day"): [raw_bar("2024-03-08T05:00:00Z", 170.0), raw_bar("2024-03-11T04:00:00Z", 172.0)]
    }
    bars = source(server, clock, "1Day", history_days=30).fetch(["AAPL"], winter, summer)
    assert bars["session_date"].to_list() == [winter, summer]
    assert bars["timestamp"].to_list() == [CALENDAR.bounds(day)[0] for day in (winter, summer)]
    assert bars["available_at"].to_list() == [CALENDAR.bounds(day)[1] for day in (winter, summer)]
    assert server.asked[0][1]["start"] == "2024-03-08T05:00:00+00:00"
    assert server.asked[0][1]["end"] == "2024-03-11T04:00:00+00:00"


def test_extended_hours_are_left_out_also_on_a_half_day(server: AlpacaServer, clock: Clock) -> None:
    half = date(2023, 11, 24)  # closes at 13:00 New York
    opens, closes = CALENDAR.bounds(half)
    at = [opens - timedelta(minutes=1), opens, closes - timedelta(minutes=1), closes]
    server.bars = {("AAPL", "1Min"): [raw_bar(stamp(moment), 190.0) for moment in at]}
    bars = source(server, clock).fetch(["AAPL"], half, half)
    assert bars["timestamp"].to_list() == at[1:3]


def test_hourly_bars_begin_on_the_hour(server: AlpacaServer, clock: Clock) -> None:
    hours = [datetime(2024, 3, 28, hour, tzinfo=UTC) for hour in range(11, 23)]  # 07:00 to 18:00 New York
    server.bars = {("AAPL", "1Hour"): [raw_bar(stamp(at), 171.0) for at in hours]}
    bars = source(server, clock, "1Hour").fetch(["AAPL"], DAY, DAY)
    assert bars["timestamp"].dt.hour().to_list() == [13, 14, 15, 16, 17, 18, 19]
    assert bars["session_date"].unique().to_list() == [DAY]


@pytest.mark.parametrize(("start", "first"), [(FIRST_DAY, date(2024, 3, 21)), (date(2023, 11, 1),) * 2])
def test_a_whole_past_is_the_days_before_the_end_and_a_range_is_a_range(
    server: AlpacaServer, clock: Clock, start: date, first: date
) -> None:
    source(server, clock, history_days=7).fetch(["AAPL"], start, DAY)
    assert datetime.fromisoformat(server.asked[0][1]["start"]).date() == first


def test_a_range_without_a_session_asks_nothing(server: AlpacaServer, clock: Clock) -> None:
    assert source(server, clock).fetch(["AAPL"], date(2024, 3, 30), date(2024, 3, 31)).is_empty()
    assert source(server, clock).fetch([], DAY, DAY).is_empty()
    assert server.asked == []


def test_absent_symbols_and_empty_pages_give_no_rows(server: AlpacaServer, clock: Clock) -> None:
    alpaca = source(server, clock)
    assert alpaca.fetch(["NONE", "AAPL"], DAY, DAY)["symbol"].unique().to_list() == ["AAPL"]
    assert alpaca.fetch(["NONE"], DAY, DAY).is_empty()
    server.next.append(Answer(body=b'{"bars": null, "next_page_token": null}'))
    assert alpaca.fetch(["AAPL"], DAY, DAY).is_empty()
    assert alpaca.unreadable() == {}


def test_missing_is_null_and_zero_is_zero(server: AlpacaServer, clock: Clock) -> None:
    server.bars = {
        ("AAPL", "1Min"): [
            raw_bar(stamp(OPEN), 170.0, v=0, n=0, vw=...),
            raw_bar(stamp(OPEN + timedelta(minutes=1)), 170.0, v=None, n=..., o=None),
        ]
    }
    bars = source(server, clock).fetch(["AAPL"], DAY, DAY)
    assert bars.select("volume", "trade_count", "vwap", "open").rows() == [
        (0.0, 0, None, 169.5),
        (None, None, 170.0, None),
    ]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500),
        Answer(503, b"<html>upstream</html>"),
        Answer(504),
        Answer(429, b'{"message": "too many requests."}'),
        Answer(body=b'{"bars": {"AAPL": [{"t": "2024', cut=True),
        Answer(body=b'{"bars": {"AAPL": ['),
        Answer(body=b""),
        Answer(body=b'{"bars": {}}'),
        Answer(body=b"[]"),
    ],
    ids=["500", "503", "504", "429", "cut", "half a document", "empty", "no token", "no object"],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_passing_fault_costs_no_bar(server: AlpacaServer, clock: Clock, fault: Answer, place: int) -> None:
    server.next.extend([*[None] * place, fault, fault])
    bars = source(server, clock, page_limit=6).fetch(SYMBOLS, DAY, DAY)
    assert_frame_equal(bars.select("symbol", "timestamp", *FIELDS), held(server))
    assert len(clock.pauses) == 2
    assert len(server.asked) == 3 + 2 + 1


def test_an_exhausted_limit_is_waited_out(server: AlpacaServer, clock: Clock) -> None:
    server.per_minute = 4
    bars = source(server, clock, page_limit=1).fetch(SYMBOLS, DAY, DAY)
    assert bars.height == 15
    assert server.refused == 0  # Remaining: 0 is heeded before the server has to refuse
    assert max(clock.pauses) <= 60


def test_a_refusal_is_waited_out_until_the_reset(server: AlpacaServer, clock: Clock) -> None:
    start = clock.now()
    reset = {"X-Ratelimit-Reset": str(int((start + timedelta(seconds=42)).timestamp()))}
    server.next.append(Answer(429, b"{}", reset))
    assert source(server, clock).fetch(["AAPL"], DAY, DAY).height == 5
    assert sum(clock.pauses) == pytest.approx(42)


@pytest.mark.parametrize("written", ["seconds", "date"])
def test_retry_after_is_heeded(server: AlpacaServer, clock: Clock, written: str) -> None:
    at = clock.now() + timedelta(seconds=90)
    asked = "90" if written == "seconds" else format_datetime(at, usegmt=True)
    server.next.append(Answer(503, headers={"Retry-After": asked}))
    assert source(server, clock).fetch(["AAPL"], DAY, DAY).height == 5
    assert sum(clock.pauses) == pytest.approx(90)


def test_credentials_that_are_not_accepted_name_the_variables(
    server: AlpacaServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = SecretStr("wrong-secret-value")
    echo = json.dumps({"message": f"no such key {KEY.get_secret_value()}"}).encode()
    server.next.extend([None, Answer(401, echo)])
    for _ in range(2):
        alpaca = source(server, clock, secret=wrong)
        with pytest.raises(SourceError, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY") as refused:
            alpaca.fetch(["AAPL"], DAY, DAY)
        for text in (str(refused.value), repr(alpaca.__dict__), caplog.text):
            assert wrong.get_secret_value() not in text
            assert KEY.get_secret_value() not in text
    assert clock.pauses == []
    assert len(server.asked) == 2


def test_missing_credentials_are_an_error_only_when_asking(server: AlpacaServer, clock: Clock) -> None:
    alpaca = source(server, clock, key=None, secret=None)
    assert alpaca.symbols().is_empty()
    with pytest.raises(
        SourceError, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY; set them in the environment"
    ):
        alpaca.fetch(["AAPL"], DAY, DAY)


def test_a_plan_without_recent_sip_names_the_feed(server: AlpacaServer) -> None:
    clock = Clock(datetime(2024, 3, 28, 20, 5, tzinfo=UTC))
    server.now, server.has_recent_sip = clock.now, False
    with pytest.raises(SourceError, match=r"sip within the last 15 minutes .* set alpaca\.feed: iex"):
        source(server, clock, feed="sip").fetch(["AAPL"], DAY, DAY)
    clock.sleep(660)  # the bars of the session are 15 minutes old; nothing after its close is asked for
    assert source(server, clock, feed="sip").fetch(["AAPL"], DAY, DAY).height == 5


@pytest.mark.parametrize("kind", ["invalid", "broken"])
def test_one_symbol_at_fault_leaves_the_others_alone(server: AlpacaServer, clock: Clock, kind: str) -> None:
    names = [f"S{number:03}" for number in range(100)]
    server.bars = {(name, "1Min"): minutes(2, 50.0) for name in names}
    getattr(server, kind).add("S037")
    alpaca = source(server, clock, attempts=2)
    bars = alpaca.fetch(names, DAY, DAY)
    assert bars["symbol"].unique(maintain_order=True).to_list() == [name for name in names if name != "S037"]
    assert bars.height == 198
    assert list(alpaca.unreadable()) == ["S037"]
    assert ("invalid symbol" if kind == "invalid" else "status 500, 2 attempts") in alpaca.unreadable()[
        "S037"
    ]
    known = alpaca.symbols()["symbol"]
    assert "S037" not in known
    assert "S036" in known
    getattr(server, kind).clear()
    assert alpaca.fetch(names, DAY, DAY)["symbol"].n_unique() == 100
    assert alpaca.unreadable() == {}


def test_many_symbols_at_fault_do_not_look_like_a_server_that_is_down(
    server: AlpacaServer, clock: Clock
) -> None:
    names = [f"S{number:03}" for number in range(200)]
    server.bars = {(name, "1Min"): minutes(1, 50.0) for name in names}
    server.broken = set(names[::20])
    alpaca = source(server, clock, attempts=1)
    assert set(alpaca.fetch(names, DAY, DAY)["symbol"]) == set(names) - server.broken
    assert set(alpaca.unreadable()) == server.broken


def test_a_server_that_is_down_is_given_up_soon(server: AlpacaServer, clock: Clock) -> None:
    server.always = Answer(503)
    alpaca = source(server, clock, attempts=2)
    with pytest.raises(SourceError, match=r"nothing could be read: .*status 503.*run again"):
        alpaca.fetch([f"S{number:03}" for number in range(1000)], DAY, DAY)
    assert len(server.asked) == 2 * 8


def test_a_server_that_cannot_be_reached_is_an_error(clock: Clock) -> None:
    with serving(AlpacaServer()) as stopped:
        pass
    with pytest.raises(
        SourceError, match=r"nothing could be read: GET http://127\.0\.0\.1:\d+/v2/stocks/bars"
    ):
        source(stopped, clock, attempts=2).fetch(SYMBOLS, DAY, DAY)


def test_a_server_that_goes_down_leaves_what_was_read(server: AlpacaServer, clock: Clock) -> None:
    server.next.append(None)
    server.always = Answer(503)
    alpaca = source(server, clock, attempts=1, symbols_per_request=1, adjustment="all")
    assert alpaca.fetch(SYMBOLS, DAY, DAY)["symbol"].unique().to_list() == ["AAPL"]
    assert set(alpaca.unreadable()) == {"BRK.B", "MSFT"}


def dividends(count: int) -> list[dict[str, Any]]:
    days = [date(2020, 1, 1) + timedelta(days=number) for number in range(count)]
    return [{"symbol": "AAPL", "ex_date": str(day), "rate": 0.25, "special": False} for day in days]


def test_actions_are_read_over_all_pages(server: AlpacaServer, clock: Clock) -> None:
    server.actions = {"cash_dividends": dividends(1300)}  # a page holds 1000
    found = source(server, clock).actions(["AAPL"], date(2020, 1, 1), date(2024, 1, 1))
    assert found.height == 1300
    assert server.paths() == ["/v1/corporate-actions"] * 2


def test_actions_say_what_they_are(server: AlpacaServer, clock: Clock) -> None:
    server.actions = {
        "forward_splits": [{"symbol": "NVDA", "ex_date": "2024-06-10", "new_rate": 10, "old_rate": 1}],
        "reverse_splits": [{"symbol": "LCID", "ex_date": "2025-09-02", "new_rate": 1, "old_rate": 10}],
        "cash_dividends": [
            {"symbol": "COST", "ex_date": "2023-12-27", "rate": 15, "special": True},
            {"symbol": "COST", "ex_date": "2023-12-27", "rate": 1.02, "special": False},
            {"symbol": "COST", "ex_date": "2024-02-01", "rate": 0, "special": False},
        ],
        "stock_mergers": [{"symbol": "COST", "ex_date": "2023-12-27"}],
    }
    found = source(server, clock, symbols_per_request=2).actions(
        ["NVDA", "LCID", "COST"], date(2023, 1, 1), date(2025, 12, 31)
    )
    assert found.rows() == [
        ("COST", date(2023, 12, 27), "dividend", 16.02, "alpaca"),
        ("LCID", date(2025, 9, 2), "split", 0.1, "alpaca"),
        ("NVDA", date(2024, 6, 10), "split", 10.0, "alpaca"),
    ]


def test_raw_bars_carry_an_action_at_the_first_bar_from_its_ex_date_on(
    server: AlpacaServer, clock: Clock
) -> None:
    before, ex = date(2024, 3, 27), DAY
    opens = {day: CALENDAR.bounds(day)[0] for day in (before, ex)}
    server.bars = {
        ("AAPL", "1Min"): minutes(2, 400.0, opens[before]) + minutes(2, 100.0, opens[ex]),
        ("QUIET", "1Min"): minutes(1, 50.0, opens[ex] + timedelta(minutes=7)),
    }
    server.actions = {
        "forward_splits": [{"symbol": "AAPL", "ex_date": str(ex), "new_rate": 4, "old_rate": 1}],
        "cash_dividends": [{"symbol": "QUIET", "ex_date": str(before), "rate": 0.11, "special": False}],
    }
    bars = source(server, clock).fetch(["AAPL", "QUIET"], before, ex)
    nothing = (None, None)
    assert bars.select("split_factor", "dividend").rows() == [
        nothing,
        nothing,
        (4.0, None),
        nothing,
        (None, 0.11),
    ]
    quality = check_bars(bars, max_log_move=0.4, now=clock.now(), sessions=CALENDAR.schedule)
    assert quality.rejected.is_empty()


def test_bars_come_without_factors_where_actions_cannot_be_read(
    server: AlpacaServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server.next.extend([None, *[Answer(503)] * 2])
    alpaca = source(server, clock, attempts=2)
    bars = alpaca.fetch(["AAPL"], DAY, DAY)
    assert bars.height == 5
    assert bars["split_factor"].null_count() == 5
    assert "status 503" in alpaca.unreadable()["corporate actions"]
    assert "without splits and dividends" in caplog.text


def test_symbols_are_those_that_gave_bars(server: AlpacaServer, clock: Clock) -> None:
    alpaca = source(server, clock)
    assert alpaca.symbols().is_empty()
    alpaca.fetch(["MSFT", "NONE"], DAY, DAY)
    assert alpaca.symbols().select("symbol", "name", "sector", "first_session").rows() == [
        ("MSFT", "Microsoft", "technology", None)
    ]


def test_a_reversed_range_is_refused(server: AlpacaServer, clock: Clock) -> None:
    for question in (source(server, clock).fetch, source(server, clock).actions):
        with pytest.raises(CalendarError, match="give the earlier date first"):
            question(["AAPL"], DAY, DAY - timedelta(days=1))


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"feed": "otc"}, "iex or sip"),
        ({"adjustment": "none"}, "raw, split or all"),
        ({"page_limit": 0}, "1 to 10000"),
    ],
)
def test_a_wrong_argument_names_the_allowed_ones(
    server: AlpacaServer, clock: Clock, changes: dict[str, Any], allowed: str
) -> None:
    with pytest.raises(ConfigurationError, match=allowed):
        source(server, clock, **changes)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.lists(st.floats(0, 40), min_size=1, max_size=40))
def test_no_minute_holds_more_requests_than_agreed(limit: int, gaps: list[float]) -> None:
    clock = Clock()
    pace = RequestPace(limit, sleep=clock.sleep, now=clock.now)
    sent = []
    for gap in gaps:
        clock.time += timedelta(seconds=gap)
        pace.wait()
        sent.append(clock.now())
    for first, later in zip(sent, sent[limit:], strict=False):
        assert later - first >= timedelta(minutes=1) - timedelta(microseconds=2)
