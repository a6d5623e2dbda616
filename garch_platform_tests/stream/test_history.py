"""The REST client against a server that speaks Alpaca's protocol, and misbehaves."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from garch_platform.errors import StreamError
from garch_platform.rest.recycler_run import RUN_HEADER
from garch_platform.settings import Secrets
from garch_platform.stream.endpoint import Endpoint, endpoint_of
from garch_platform.stream.history import FOR_EVER, BarHistory, ReplayState
from garch_platform.stream.rows import BarRow, Proxied, instant, microseconds
from garch_platform_tests.stream.edge import edge_settings, now

Answer = tuple[int, dict[str, str], Any]
BAR = {"t": "2024-03-07T14:30:00Z", "o": 1.5, "h": 2, "l": 1, "c": 1.75, "v": 10, "n": 3, "vw": 1.6}


class Stub:
    """Answers from a list; the last one for ever. A callable is given the query; None hangs up."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked.append({k: v[-1] for k, v in parse_qs(urlsplit(self.path).query).items()})
                stub.headers.append(dict(self.headers))
                answer = stub.answers.pop(0) if len(stub.answers) > 1 else stub.answers[0]
                if callable(answer):
                    answer = answer(stub.asked[-1])
                if answer is None:
                    self.connection.close()
                    return
                status, headers, content = answer
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def endpoint(stub: Stub, tmp_path: Path) -> Endpoint:
    return endpoint_of(edge_settings(tmp_path, recycler={"server_url": stub.url}), Secrets())


@pytest.fixture
def ask(endpoint: Endpoint) -> Callable[..., list[BarRow]]:
    def asked(*symbols: str, attempts: int = 4, **arguments: Any) -> list[BarRow]:
        history = BarHistory(endpoint, attempts=attempts, **arguments)
        return [row for page in history.pages(symbols, 0, None) for rows in page.values() for row in rows]

    return asked


def page(token: str | None = None, **bars: Any) -> Answer:
    return (200, {}, {"bars": bars, "next_page_token": token})


def test_pages_follow_one_another(stub: Stub, ask: Callable[..., list[BarRow]]) -> None:
    stub.answers = [page("next", A=[BAR]), page("more", A=[BAR], B=[BAR]), page(None, B=None)]
    rows = ask("A", "B", "ABSENT", page_limit=500)
    assert [row.symbol for row in rows] == ["A", "A", "B"]
    assert rows[0].channel == "rest"
    assert (rows[0].open, rows[0].trade_count, rows[0].vwap) == (1.5, 3, 1.6)
    assert [query.get("page_token") for query in stub.asked] == [None, "next", "more"]
    assert stub.asked[0]["symbols"] == "A,B,ABSENT"
    assert (stub.asked[0]["limit"], stub.asked[0]["timeframe"]) == ("500", "1Min")
    assert (stub.asked[0]["feed"], stub.asked[0]["adjustment"]) == ("iex", "raw")
    assert stub.headers[0]["APCA-API-KEY-ID"] == "recycler"


def test_many_symbols_are_asked_in_several_urls(stub: Stub, ask: Callable[..., list[BarRow]]) -> None:
    stub.answers = [page()]
    assert ask(*(f"S{number}" for number in range(25)), symbols_per_request=10) == []
    assert [len(query["symbols"].split(",")) for query in stub.asked] == [10, 10, 5]


@pytest.mark.parametrize(
    "fault", [(429, {"Retry-After": "0"}, {}), (503, {}, b"busy"), (504, {}, {}), None, (200, {}, b"{half")]
)
def test_what_may_pass_is_tried_again(
    stub: Stub, ask: Callable[..., list[BarRow]], fault: Answer | None
) -> None:
    stub.answers = [fault, page(None, A=[BAR])]
    assert len(ask("A")) == 1
    assert len(stub.asked) == 2


def test_the_server_says_how_long_to_wait(stub: Stub, ask: Callable[..., list[BarRow]]) -> None:
    stub.answers = [(429, {"Retry-After": "1"}, {}), page(None, A=[BAR])]
    begin = time.monotonic()
    assert len(ask("A")) == 1
    assert time.monotonic() - begin >= 0.95


def test_a_refusal_is_not_tried_again_and_shows_no_secret(
    stub: Stub, endpoint: Endpoint, ask: Callable[..., list[BarRow]]
) -> None:
    stub.answers = [(403, {}, {"message": "forbidden."})]
    with pytest.raises(StreamError, match=r"status 403: forbidden.*GARCH_RECYCLER_KEY") as refusal:
        ask("A")
    assert len(stub.asked) == 1
    assert endpoint.secret.get_secret_value() not in str(refusal.value).replace("the recycler at", "")


def test_attempts_end(stub: Stub, ask: Callable[..., list[BarRow]]) -> None:
    stub.answers = [(500, {}, {"message": "internal"})]
    with pytest.raises(StreamError, match="status 500, 2 attempts"):
        ask("A", attempts=2)
    assert len(stub.asked) == 2


def test_a_symbol_that_is_refused_does_not_stop_the_others(
    stub: Stub, ask: Callable[..., list[BarRow]], caplog: pytest.LogCaptureFixture
) -> None:
    def answer(query: dict[str, str]) -> Answer:
        names = query["symbols"].split(",")
        if "BAD" in names:
            return (400, {}, {"message": "invalid symbol: BAD"})
        return page(None, **{name: [BAR] for name in names})

    stub.answers = [answer]
    assert sorted(row.symbol for row in ask("A", "BAD", "C", "D", "E")) == ["A", "C", "D", "E"]
    assert "no bars of BAD" in caplog.text


def test_an_answer_that_is_no_page_is_an_error(stub: Stub, ask: Callable[..., list[BarRow]]) -> None:
    stub.answers = [(200, {}, {"bars": {"A": [{"t": "2024-03-07T14:30:00Z"}]}, "next_page_token": None})]
    with pytest.raises(StreamError, match="no page of bars"):
        ask("A")


def test_the_waits_can_be_cut_short(stub: Stub, endpoint: Endpoint) -> None:
    stub.answers = [(429, {"Retry-After": "60"}, {})]
    history = BarHistory(endpoint, attempts=5)
    threading.Timer(0.3, history.stopping.set).start()
    begin = time.monotonic()
    with pytest.raises(StreamError, match="the client stops"):
        list(history.pages(["A"], 0, None))
    assert time.monotonic() - begin < 10


def test_the_end_of_a_span_does_not_belong_to_it(stub: Stub, endpoint: Endpoint) -> None:
    stub.answers = [page()]
    start = microseconds(now().replace(microsecond=0))
    list(BarHistory(endpoint, attempts=1).pages(["A"], start, start + 60_000_000))
    assert stub.asked[0]["start"] == instant(start).isoformat()
    assert stub.asked[0]["end"] == instant(start + 59_999_999).isoformat()


def test_what_is_proxied_is_known_from_the_run_that_answers(stub: Stub, endpoint: Endpoint) -> None:
    known = {"XYZ": [{"proxy": "AAPL", "start": "2024-03-07 14:30:00+00:00", "end": None}]}
    run = {RUN_HEADER: "first"}
    stub.answers = [(200, run, known), (500, run, {}), (200, run, b"nonsense"), (200, {}, known), None]
    state = ReplayState(endpoint)
    start = microseconds(instant(0).replace(year=2024, month=3, day=7, hour=14, minute=30))
    assert state.proxied() == Proxied("first", {"XYZ": [(start, FOR_EVER)]})
    assert [state.proxied() for _ in range(4)] == [None] * 4
    assert state.status() is None


def test_rows_know_the_run_that_gave_their_page(stub: Stub, ask: Callable[..., list[BarRow]]) -> None:
    status, _, first = page("next", A=[BAR])
    stub.answers = [(status, {RUN_HEADER: "first"}, first), page(None, A=[BAR])]
    assert [row.run for row in ask("A")] == ["first", None]
