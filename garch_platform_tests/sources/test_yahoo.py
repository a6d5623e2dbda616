"""YahooSource through the real yfinance, against a stub of Yahoo's servers that adjusts as they do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import requests
from polars.testing import assert_frame_equal

from garch_platform.bars import BAR_SCHEMA, Timeframe
from garch_platform.errors import CalendarError, ConfigurationError, SourceError
from garch_platform.quant.bar_quality import check_bars
from garch_platform.sessions import FIRST_DAY, trading_calendar
from garch_platform.sources import BarSource, YahooSource
from garch_platform.sources.yahoo_access import yahoo_symbol
from garch_platform_tests.sources.alpaca_server import Answer, Clock
from garch_platform_tests.sources.yahoo_server import Company, YahooServer, yahoo_session

CALENDAR = trading_calendar()
FRIDAY, MONDAY = date(2014, 6, 6), date(2014, 6, 9)
"""Apple split 7:1 on Monday 9 June 2014, and 4:1 on 31 August 2020."""

APPLE = {
    date(2014, 5, 7): (595.25, 597.29, 587.73, 592.33, 10_102_000.0),
    date(2014, 5, 8): (588.25, 594.41, 586.40, 587.99, 8_227_000.0),
    FRIDAY: (649.90, 651.26, 644.47, 645.57, 12_517_273.0),
    MONDAY: (92.70, 93.88, 91.75, 93.70, 75_414_804.0),
    date(2020, 8, 28): (504.05, 505.77, 498.31, 499.23, 46_907_479.0),
    date(2020, 8, 31): (127.58, 131.00, 126.00, 129.04, 225_702_688.0),
}
"""Raw daily bars of Apple as they were traded."""


def opening(day: date, hour: time = time(9, 30)) -> datetime:
    return datetime.combine(day, hour, CALENDAR.timezone)


def apple() -> Company:
    return Company(
        bars=[(opening(day), *bar) for day, bar in APPLE.items()],
        splits={MONDAY: (7, 1), date(2020, 8, 31): (4, 1)},
        dividends={date(2014, 5, 8): 3.29},
        facts={"longName": "Apple Inc.", "sector": "Technology", "industry": "Consumer Electronics"},
    )


@pytest.fixture(autouse=True)
def fresh_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """yfinance keeps sessions, cookies and time zones for the whole process and on disk."""
    import yfinance
    from yfinance import base, cache, data

    yfinance.set_tz_cache_location(str(tmp_path))
    monkeypatch.setattr(cache._TzCacheManager, "_tz_cache", cache._TzCacheDummy())
    monkeypatch.setattr(cache._CookieCacheManager, "_Cookie_cache", cache._CookieCacheDummy())
    monkeypatch.setattr(base, "_tz_info_fetch_ctr", 0)
    monkeypatch.setattr(data.SingletonMeta, "_instances", {})


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.now(UTC))


@pytest.fixture
def server() -> YahooServer:
    return YahooServer(companies={"AAPL": apple()})


@pytest.fixture
def session(server: YahooServer) -> Iterator[requests.Session]:
    with yahoo_session(server) as opened:
        yield opened


def source(session: requests.Session, clock: Clock, timeframe: str = "1Day", **changes: Any) -> YahooSource:
    arguments = {
        "history_days": 9000,
        "requests_per_minute": 1000,
        "sleep": clock.sleep,
        "now": clock.now,
    } | changes
    return YahooSource(CALENDAR, Timeframe.parse(timeframe), session=session, **arguments)


def test_the_server_adjusts_as_yahoo_does(server: YahooServer) -> None:
    """Yahoo's own figures: 645.57 was shown as 23.056 after both splits, the dividend of 3.29 as 0.1175."""
    _, chart = server._chart("AAPL", server.companies["AAPL"], {"period1": "0", "interval": "1d"})
    result = chart["chart"]["result"][0]
    quotes = result["indicators"]["quote"][0]
    assert quotes["close"][2] == pytest.approx(23.056072, abs=5e-7)
    assert quotes["volume"][2] == (12_517_273 * 28)
    (paid,) = result["events"]["dividends"].values()
    assert paid["amount"] == pytest.approx(0.1175)


def test_raw_prices_are_restored_with_their_factors(session: requests.Session, clock: Clock) -> None:
    yahoo = source(session, clock)
    bars = yahoo.fetch(["AAPL"], FIRST_DAY, date(2020, 12, 31))
    assert isinstance(yahoo, BarSource)
    assert bars.schema == pl.Schema(BAR_SCHEMA)
    assert bars.select("session_date", "open", "high", "low", "close", "volume").rows() == [
        (day, *bar) for day, bar in APPLE.items()
    ]
    assert bars["split_factor"].to_list() == [None, None, None, 7.0, None, 4.0]
    assert bars["dividend"].to_list() == [None, 3.29, None, None, None, None]
    said = ["timeframe", "feed", "data_source", "is_proxy", "adjustment", "vwap", "trade_count"]
    assert bars.select(said).unique().rows() == [("1Day", "yahoo", "yahoo", False, "raw", None, None)]
    assert bars["timestamp"].to_list() == [CALENDAR.bounds(day)[0] for day in APPLE]
    quality = check_bars(bars, max_log_move=0.4, now=clock.now(), sessions=CALENDAR.schedule)
    assert quality.rejected.is_empty()


def test_bars_stand_on_one_footing_whenever_they_are_fetched(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    company = server.companies["AAPL"]
    company.bars, splits = company.bars[:3], company.splits
    company.splits = {}
    before = source(session, clock).fetch(["AAPL"], FIRST_DAY, FRIDAY)
    company.bars, company.splits = apple().bars, splits
    after = source(session, clock).fetch(["AAPL"], FIRST_DAY, FRIDAY)
    assert_frame_equal(before, after, check_exact=True)


def test_an_action_without_a_bar_takes_effect_at_the_next(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    company = server.companies["AAPL"]
    company.bars = [row if row[0].date() != MONDAY else (row[0], *[None] * 5) for row in company.bars]
    bars = source(session, clock).fetch(["AAPL"], FIRST_DAY, date(2020, 8, 28))
    assert MONDAY not in bars["session_date"]
    assert bars["close"].to_list() == [592.33, 587.99, 645.57, 499.23]
    assert bars["split_factor"].to_list() == [None, None, None, 7.0]


def test_not_a_number_is_null_and_no_price_is_no_bar(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    days = [date(2024, 3, 25), date(2024, 3, 26), date(2024, 3, 27)]
    server.companies["THIN"] = Company(
        bars=[
            (opening(days[0]), None, 11.0, 9.0, 10.25, 0),
            (opening(days[1]), None, None, None, None, None),
            (opening(days[2]), 10.0, 11.0, 9.0, 10.5, 100),
        ]
    )
    bars = source(session, clock).fetch(["THIN"], days[0], days[2])
    assert bars.select("session_date", "open", "close", "volume").rows() == [
        (days[0], None, 10.25, 0.0),
        (days[2], 10.0, 10.5, 100.0),
    ]


def test_hourly_bars_count_from_the_open(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    day = CALENDAR.last_closed(clock.now() - timedelta(days=30))
    before = CALENDAR.previous(day)
    hours = [time(hour, 30) for hour in range(9, 16)]
    server.companies["AAPL"] = Company(
        bars=[(opening(of, at), 200.0, 202.0, 198.0, 201.0, 50) for of in (before, day) for at in hours],
        splits={day: (2, 1)},
    )
    for row in range(7):
        server.companies["AAPL"].bars[row] = (
            *server.companies["AAPL"].bars[row][:1],
            400.0,
            404.0,
            396.0,
            402.0,
            25,
        )
    bars = source(session, clock, "1Hour", history_days=729).fetch(["AAPL"], FIRST_DAY, day)
    bars = bars.filter(pl.col("timestamp") < CALENDAR.bounds(day)[1])
    assert bars["close"].to_list()[:1] == [402.0]
    assert bars["close"].to_list()[-1:] == [201.0]
    assert bars["timestamp"][0] == CALENDAR.bounds(before)[0]
    assert bars.filter(pl.col("split_factor") == 2.0)["timestamp"].to_list() == [CALENDAR.bounds(day)[0]]
    assert (bars["available_at"] <= pl.Series([CALENDAR.bounds(day)[1]] * len(bars))).all()
    assert int(server.charts()[-1]["period1"]) >= int((clock.now() - timedelta(days=731)).timestamp())
    assert server.charts()[-1]["interval"] == "1h"


def test_unknown_symbols_and_empty_frames_give_no_rows(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    server.companies["EMPTY"] = Company()
    yahoo = source(session, clock)
    bars = yahoo.fetch(["NONE", "EMPTY", "AAPL", "GONE", "LOST"], FIRST_DAY, FRIDAY)
    assert bars["symbol"].unique().to_list() == ["AAPL"]
    assert yahoo.fetch(["NONE"], FIRST_DAY, FRIDAY).is_empty()
    assert yahoo.unreadable() == {}
    assert clock.pauses == []
    assert yahoo.symbols().select("symbol", "name", "sector", "last_session").rows() == [
        ("AAPL", "Apple", "technology", None)
    ]


def test_a_symbol_that_is_listed_later_is_found_then(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    yahoo = source(session, clock)
    assert yahoo.fetch(["NEW"], FIRST_DAY, FRIDAY).is_empty()
    server.companies["NEW"] = apple()
    assert yahoo.fetch(["NEW"], FIRST_DAY, FRIDAY).height == 3


def test_share_classes_have_yahoos_names(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    server.companies["BRK-B"] = apple()
    assert source(session, clock).fetch(["BRK.B"], FIRST_DAY, FRIDAY)["symbol"].unique().to_list() == [
        "BRK.B"
    ]
    assert [yahoo_symbol(name) for name in ("AAPL", "^GSPC", "BF.B", "RDS-A")] == [
        "AAPL",
        "^GSPC",
        "BF-B",
        "RDS-A",
    ]


BUSY = Answer(429, b"Too Many Requests\r\n")


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500, b'{"chart":{"result":null,"error":{"code":"Internal","description":"no"}}}'),
        Answer(502, b"<html>bad gateway</html>"),
        Answer(200, b'{"chart": {"result": [{"meta"', cut=True),
        Answer(200, b"<html>Will be right back...</html>"),
        Answer(200, b"null"),
    ],
    ids=["500 that looks like an answer", "502", "cut", "down", "null"],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_passing_fault_costs_no_bar(
    server: YahooServer, session: requests.Session, clock: Clock, fault: Answer, place: int
) -> None:
    server.next.extend([*[None] * place, fault])
    yahoo = source(session, clock)
    assert yahoo.fetch(["AAPL"], FIRST_DAY, FRIDAY).height == 3
    assert yahoo.unreadable() == {}
    assert len(clock.pauses) == 1


def test_a_first_refusal_is_left_to_the_library_and_later_ones_are_waited_out(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    server.next.extend([BUSY])
    assert source(session, clock).fetch(["AAPL"], FIRST_DAY, FRIDAY).height == 3
    assert clock.pauses == []
    assert "/consent" in [path for path, _ in server.asked]
    server.next.extend([BUSY] * 4)
    assert source(session, clock).fetch(["AAPL"], FIRST_DAY, FRIDAY).height == 3
    assert len(clock.pauses) == 2


def test_one_symbol_at_fault_leaves_the_others_alone(
    server: YahooServer, session: requests.Session, clock: Clock
) -> None:
    server.companies |= {"MSFT": apple(), "BAD": apple()}
    server.broken = {"BAD"}
    yahoo = source(session, clock)
    assert set(yahoo.fetch(["AAPL", "BAD", "MSFT"], FIRST_DAY, FRIDAY)["symbol"]) == {"AAPL", "MSFT"}
    assert list(yahoo.unreadable()) == ["BAD"]
    assert "status 500, 3 attempts" in yahoo.unreadable()["BAD"]
    server.broken = set()
    assert "BAD" in set(yahoo.fetch(["AAPL", "BAD", "MSFT"], FIRST_DAY, FRIDAY)["symbol"])


@pytest.mark.parametrize("before", [0, 1], ids=["at once", "after the time zone"])
def test_an_answer_about_the_request_is_not_taken_for_an_absent_symbol(
    server: YahooServer, session: requests.Session, clock: Clock, before: int
) -> None:
    server.next.extend([None] * before)
    server.always = Answer(401, b'{"finance":{"result":null,"error":{"code":"Unauthorized"}}}')
    with pytest.raises(SourceError, match="nothing could be read: Yahoo on AAPL"):
        source(session, clock).fetch(["AAPL"], FIRST_DAY, FRIDAY)


def test_a_server_that_cannot_be_reached_is_given_up_soon(clock: Clock) -> None:
    stopped = YahooServer()
    with yahoo_session(stopped) as session:
        pass
    yahoo = source(session, clock, attempts=2)
    with pytest.raises(SourceError, match=r"nothing could be read: GET https://query\d\.finance\.yahoo\.com"):
        yahoo.fetch([f"S{number:03}" for number in range(50)], FIRST_DAY, FRIDAY)
    assert len(clock.pauses) == 3


def test_the_librarys_own_session_is_paced_and_attempted_too(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    curl = pytest.importorskip("curl_cffi.requests")
    asked = []

    def refuse(session: Any, method: str, url: str, **options: Any) -> Any:
        asked.append((url, options["timeout"]))
        raise curl.exceptions.ConnectionError("no route")

    monkeypatch.setattr(curl.Session, "request", refuse)
    yahoo = YahooSource(CALENDAR, Timeframe.parse("1Day"), sleep=clock.sleep, now=clock.now)
    with pytest.raises(SourceError, match="chart/AAPL: ConnectionError, 3 attempts"):
        yahoo.fetch(["AAPL"], FRIDAY, FRIDAY)
    assert len([url for url, _ in asked if "/chart/" in url]) == 3
    assert all(timeout for _, timeout in asked)


def test_requests_keep_the_pace(server: YahooServer, session: requests.Session, clock: Clock) -> None:
    server.companies |= {f"S{number}": apple() for number in range(6)}
    start = clock.now()
    names = [f"S{number}" for number in range(6)]
    source(session, clock, requests_per_minute=5).fetch(names, FIRST_DAY, FRIDAY)
    asked = [path for path, _ in server.asked if path.startswith(("/v8", "/v1/test"))]
    assert clock.now() - start >= timedelta(minutes=(len(asked) - 1) // 5)
    assert len(asked) >= 12


def test_company_info(server: YahooServer, session: requests.Session, clock: Clock) -> None:
    facts = {
        "longName": "Apple Inc.",
        "sector": "Technology",
        "industry": "Consumer Electronics",
        "fullExchangeName": "NasdaqGS",
        "exchange": "NMS",
        "currency": "USD",
        "country": "United States",
        "marketCap": 3_400_000_000_000,
        "sharesOutstanding": 14_935_799_808,
    }
    server.companies["AAPL"].facts = facts
    server.companies["FUND"] = Company(
        facts={"shortName": "A Fund", "marketCap": 0, "sharesOutstanding": "n/a"}
    )
    yahoo = source(session, clock)
    found = yahoo.company_info(["AAPL", "NONE", "FUND"])
    assert found.drop("recorded_at").rows() == [
        (
            *("AAPL", "Apple Inc.", "Technology", "Consumer Electronics", "NasdaqGS", "USD", "United States"),
            *(3.4e12, 14_935_799_808.0, "yahoo"),
        ),
        ("FUND", "A Fund", *[None] * 7, "yahoo"),
    ]
    assert found["recorded_at"].unique().to_list() == [clock.now()]
    assert yahoo.unreadable() == {}


def test_a_stale_crumb_is_renewed(server: YahooServer, session: requests.Session, clock: Clock) -> None:
    yahoo = source(session, clock)
    assert yahoo.company_info(["AAPL"]).height == 1
    server.crumb = "renewed"
    assert yahoo.company_info(["AAPL"]).height == 1


def test_settings_of_the_library_are_left_as_they_were(session: requests.Session, clock: Clock) -> None:
    import yfinance

    source(session, clock).fetch(["AAPL"], FIRST_DAY, FRIDAY)
    assert yfinance.config.debug.hide_exceptions is True


def test_wrong_arguments(session: requests.Session, clock: Clock) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no bars of 1Min; set universe\.timeframe to one of 1Day, 1Hour"
    ):
        source(session, clock, "1Min")
    with pytest.raises(CalendarError, match="give the earlier date first"):
        source(session, clock).fetch(["AAPL"], MONDAY, FRIDAY)
