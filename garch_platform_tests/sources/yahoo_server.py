"""Yahoo Finance on the loopback interface, for the real yfinance: cookies, crumbs, charts, companies, faults.

It holds raw bars and adjusts them as Yahoo does: prices, volumes and dividends for all splits up to now,
prices in single precision.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from requests.cookies import extract_cookies_to_jar

from garch_platform.sessions import trading_calendar
from garch_platform_tests.sources.alpaca_server import Answer

__all__ = ["Company", "YahooServer", "yahoo_session"]

NEW_YORK = trading_calendar().timezone
CONSENT = b"""<html><form><input type="hidden" name="csrfToken" value="c"/>
<input type="hidden" name="sessionId" value="s"/></form></html>"""
PRICES = ("open", "high", "low", "close")


@dataclass
class Company:
    """A symbol: raw bars (start, open, high, low, close, volume), splits and dividends by day, and facts."""

    bars: list[tuple[Any, ...]] = field(default_factory=list)
    splits: dict[date, tuple[int, int]] = field(default_factory=dict)
    """New shares and old shares."""
    dividends: dict[date, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def later_splits(self, day: date) -> float:
        """New shares at the end for one share of ``day``."""
        return float(np.prod([new / old for at, (new, old) in self.splits.items() if at > day]))


@dataclass
class YahooServer:
    """What Yahoo holds, the crumb that it wants, and what it was asked."""

    companies: dict[str, Company] = field(default_factory=dict)
    crumb: str = "cr/umb1"
    next: deque[Answer | None] = field(default_factory=deque)
    """Answers to the coming questions about a symbol; None and afterwards the true ones."""
    always: Answer | None = None
    broken: set[str] = field(default_factory=set)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def charts(self) -> list[dict[str, str]]:
        """Parameters of the charts asked for, without those that only look for the time zone."""
        return [asked for path, asked in self.asked if "/chart/" in path and "period1" in asked]

    def answer(self, host: str, path: str, asked: dict[str, str]) -> Answer:
        self.asked.append((path, asked))
        if host == "fc.yahoo.com":
            return Answer(404, b"", {"Set-Cookie": "A3=d1; Domain=.yahoo.com; Path=/; Max-Age=31557600"})
        if host in ("guce.yahoo.com", "consent.yahoo.com"):
            return Answer(200, CONSENT)
        if path == "/v1/test/getcrumb":
            return Answer(200, self.crumb.encode())
        scripted = self.next.popleft() if self.next else self.always
        if scripted is not None:
            return scripted
        symbol = asked.get("symbols") or path.rpartition("/")[2]
        if symbol in self.broken:
            return Answer(500, b'{"chart":{"result":null,"error":{"code":"x","description":"broken"}}}')
        status, body = self._true(path, asked, symbol)
        return Answer(status, json.dumps(body).encode())

    def _true(self, path: str, asked: dict[str, str], symbol: str) -> tuple[int, Any]:
        company = self.companies.get(symbol)
        if path.startswith("/v8/finance/chart/"):
            return self._chart(symbol, company, asked)
        if asked.get("crumb") != self.crumb:
            fault = {"code": "Unauthorized", "description": "Invalid Crumb"}
            return 401, {"finance": {"result": None, "error": fault}}
        if path.startswith("/ws/fundamentals-timeseries"):
            return 200, {"timeseries": {"result": [], "error": None}}
        kind = "quoteSummary" if "quoteSummary" in path else "quoteResponse"
        if kind == "quoteResponse":
            quotes = [{"symbol": symbol, "quoteType": "EQUITY"}] if company else []
            return 200, {kind: {"result": quotes, "error": None}}
        if company is None or not company.facts:
            fault = {"code": "Not Found", "description": f"Quote not found for symbol: {symbol}"}
            return 404, {kind: {"result": None, "error": fault}}
        facts = {name: value for name, value in company.facts.items() if value is not None}
        return 200, {kind: {"result": [{"assetProfile": facts}], "error": None}}

    def _chart(self, symbol: str, company: Company | None, asked: dict[str, str]) -> tuple[int, Any]:
        if company is None:
            fault = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
            return 404, {"chart": {"result": None, "error": fault}}
        first = float(asked.get("period1", 0))
        rows = [row for row in company.bars if row[0].timestamp() >= first and "period1" in asked]
        interval = asked["interval"]
        meta: dict[str, Any] = {
            "currency": "USD",
            "symbol": symbol,
            "instrumentType": "EQUITY",
            "exchangeTimezoneName": str(NEW_YORK),
            "timezone": "EDT",
            "gmtoffset": -14400,
            "regularMarketTime": int(company.bars[-1][0].timestamp()) if company.bars else 0,
            "dataGranularity": interval,
            "validRanges": ["1d", "5d", "1mo", "max"],
        }
        days = sorted({row[0].astimezone(NEW_YORK).date() for row in rows})
        periods = [_period(day) for day in days]
        if interval.endswith(("m", "h")):
            meta["tradingPeriods"] = [[period] for period in periods]
        latest = periods[-1] if periods else _period(date(2024, 3, 28))
        meta["currentTradingPeriod"] = dict.fromkeys(("pre", "regular", "post"), latest)
        result: dict[str, Any] = {"meta": meta, "indicators": {"quote": [{}], "adjclose": [{}]}}
        if rows:
            result |= {"timestamp": [int(row[0].timestamp()) for row in rows]}
            result["indicators"] = {"quote": [self._quotes(company, rows)]}
            result["events"] = self._events(company, datetime.fromtimestamp(first, NEW_YORK).date())
        return 200, {"chart": {"result": [result], "error": None}}

    @staticmethod
    def _quotes(company: Company, rows: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
        factors = [company.later_splits(row[0].astimezone(NEW_YORK).date()) for row in rows]
        quotes: dict[str, list[Any]] = {
            name: [
                None if row[place] is None else float(np.float32(row[place] / factor))
                for row, factor in zip(rows, factors, strict=True)
            ]
            for place, name in enumerate(PRICES, start=1)
        }
        quotes["volume"] = [
            None if row[5] is None else round(row[5] * factor)
            for row, factor in zip(rows, factors, strict=True)
        ]
        return quotes

    @staticmethod
    def _events(company: Company, first: date) -> dict[str, Any]:
        events: dict[str, dict[str, Any]] = {}
        for day, (new, old) in company.splits.items():
            if day >= first:
                split = {
                    "date": _opening(day),
                    "numerator": new,
                    "denominator": old,
                    "splitRatio": f"{new}:{old}",
                }
                events.setdefault("splits", {})[str(_opening(day))] = split
        for day, amount in company.dividends.items():
            if day >= first:
                paid = {"amount": amount / company.later_splits(day), "date": _opening(day)}
                events.setdefault("dividends", {})[str(_opening(day))] = paid
        return events


def _opening(day: date) -> int:
    return int(datetime.combine(day, time(9, 30), NEW_YORK).timestamp())


def _period(day: date) -> dict[str, Any]:
    start = _opening(day)
    length = int(timedelta(hours=6.5).total_seconds())
    return {"timezone": "EDT", "start": start, "end": start + length, "gmtoffset": -14400}


class _ToLoopback(HTTPAdapter):
    """Sends what is meant for Yahoo to a server of the loopback interface, which learns the true host."""

    def __init__(self, server: YahooServer) -> None:
        super().__init__()
        self.server = server

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        meant = urlsplit(str(request.url))
        sent = request.copy()
        sent.url = self.server.url + meant._replace(scheme="", netloc="").geturl()
        sent.headers["X-Meant-For"] = str(meant.hostname)
        response = super().send(sent, *args, **kwargs)
        response.request, response.url = request, str(request.url)
        extract_cookies_to_jar(response.cookies, request, response.raw)
        return response


@contextmanager
def yahoo_session(server: YahooServer) -> Iterator[requests.Session]:
    """A session that finds ``server`` under Yahoo's addresses."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            host = self.headers["X-Meant-For"]
            answer = server.answer(host, address.path, dict(parse_qsl(address.query)))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
            self.close_connection = answer.cut

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener, requests.Session() as session:
        listener.daemon_threads = True
        server.url = f"http://127.0.0.1:{listener.server_address[1]}"
        session.mount("https://", _ToLoopback(server))
        thread = Thread(target=lambda: listener.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()
        try:
            yield session
        finally:
            listener.shutdown()
            thread.join()
