"""The protocol of one connection, without a socket: every answer and every error code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.datastructures import Headers

from garch_platform.recycler import session as subject
from garch_platform.recycler.session import ACKNOWLEDGED, Credentials, Session
from garch_platform.recycler.wire import ERRORS, error, success
from garch_platform_tests.recycler.replay import KEY, SECRET

CREDENTIALS = Credentials(SecretStr(KEY), SecretStr(SECRET))
RIGHT = {"action": "auth", "key": KEY, "secret": SECRET}


def make(*, authenticated: bool = False, **options: Any) -> Session:
    """A session that has been greeted, and let in if so wished."""
    session = Session(CREDENTIALS, **options)
    assert session.open({}) == [success("connected")]
    if authenticated:
        assert ask(session, **RIGHT) == success("authenticated")
    return session


def ask(session: Session, **request: Any) -> Any:
    """The answer to one request."""
    return session.receive(json.dumps(request))


def listed(**channels: list[str]) -> dict[str, Any]:
    """An acknowledgement with the named channels filled."""
    return {"T": "subscription", **{channel: [] for channel in ACKNOWLEDGED}, **channels}


def test_headers_of_the_handshake_authenticate_at_once() -> None:
    headers = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
    session = Session(CREDENTIALS)
    assert session.open(headers) == [success("connected"), success("authenticated")]
    assert ask(session, **RIGHT) == error(403)


@pytest.mark.parametrize(
    "headers",
    [
        {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": "wrong"},
        {"APCA-API-KEY-ID": KEY},
        {"APCA-API-SECRET-KEY": SECRET},
    ],
)
def test_wrong_headers_are_told_and_a_message_may_still_be_right(headers: dict[str, str]) -> None:
    session = Session(CREDENTIALS)
    assert session.open(headers) == [success("connected"), error(402)]
    assert ask(session, **RIGHT) == success("authenticated")


@pytest.mark.parametrize(
    "request_",
    [
        {"key": KEY, "secret": "wrong"},
        {"key": "wrong", "secret": SECRET},
        {"key": SECRET, "secret": KEY},
        {"key": KEY},
        {},
        {"key": 1, "secret": ["x"]},
        {"key": "", "secret": ""},
        {"key": "\ud800", "secret": SECRET},
        {"key": KEY, "secret": "\udfff"},
    ],
)
def test_wrong_credentials_give_402_and_no_entry(request_: dict[str, Any]) -> None:
    session = make()
    assert ask(session, action="auth", **request_) == error(402)
    assert ask(session, action="subscribe", bars=["A"]) == error(401)
    assert ask(session, **RIGHT) == success("authenticated")


def test_headers_that_come_twice_are_wrong() -> None:
    for name in ("APCA-API-KEY-ID", "APCA-API-SECRET-KEY"):
        headers = Headers({"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET})
        headers[name] = "another"
        assert Session(CREDENTIALS).open(headers) == [success("connected"), error(402)]


def test_both_credentials_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    honest = subject.hmac.compare_digest

    def spy(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return honest(given, known)

    monkeypatch.setattr(subject.hmac, "compare_digest", spy)
    assert not CREDENTIALS.match("wrong", SECRET)
    assert compared == [(b"wrong", KEY.encode()), (SECRET.encode(), SECRET.encode())]


def test_secrets_do_not_show() -> None:
    assert SECRET not in repr(CREDENTIALS)


@pytest.mark.parametrize(
    "data", ["", "{", "[]", b"\xc1", '"auth"', '{"action":"dance"}', '{"action":null}', "{}"]
)
@pytest.mark.parametrize("authenticated", [False, True])
def test_what_is_no_request_is_invalid_syntax(data: str | bytes, authenticated: bool) -> None:
    assert make(authenticated=authenticated).receive(data) == error(400)


@pytest.mark.parametrize("action", ["subscribe", "unsubscribe"])
def test_nothing_is_subscribed_before_authentication(action: str) -> None:
    assert ask(make(), action=action, bars=["AAPL"]) == error(401)


def test_authenticating_twice_is_403_and_changes_nothing() -> None:
    session = make(authenticated=True)
    ask(session, action="subscribe", bars=["AAPL"])
    assert ask(session, **RIGHT) == error(403)
    assert ask(session, action="subscribe") == listed(bars=["AAPL"])


def test_subscriptions_add_up_and_every_answer_is_the_whole_list() -> None:
    session = make(authenticated=True)
    assert ask(session, action="subscribe", bars=["AAPL", "AAPL"]) == listed(bars=["AAPL"])
    assert ask(session, action="subscribe", bars=["*"], dailyBars=["VOO"]) == listed(
        bars=["AAPL", "*"], dailyBars=["VOO"]
    )
    assert ask(session, action="unsubscribe", bars=["*", "NEVER"]) == listed(bars=["AAPL"], dailyBars=["VOO"])
    assert ask(session, action="unsubscribe", dailyBars=["VOO"]) == listed(bars=["AAPL"])


def test_trades_bring_their_corrections_and_cancel_errors() -> None:
    session = make(authenticated=True)
    everything = {
        "trades": ["AAPL"],
        "quotes": ["AMD", "CLDR"],
        "statuses": ["*"],
        "lulds": ["A"],
        "updatedBars": ["B"],
    }
    following = {"corrections": ["AAPL"], "cancelErrors": ["AAPL"]}
    assert ask(session, action="subscribe", **everything) == listed(**everything, **following)
    assert ask(session, action="subscribe", imbalances=["INAQU"])["imbalances"] == ["INAQU"]
    answer = ask(session, action="unsubscribe", trades=["AAPL"], imbalances=["INAQU"])
    assert (answer["corrections"], answer["cancelErrors"]) == ([], [])
    assert "imbalances" not in answer


@pytest.mark.parametrize("channel", ["news", "orderbooks", "corrections", "bar"])
def test_a_channel_of_another_feed_is_410(channel: str) -> None:
    session = make(authenticated=True)
    assert ask(session, action="subscribe", **{channel: ["AAPL"], "bars": ["AAPL"]}) == error(410)
    assert ask(session, action="subscribe", **{channel: []}) == listed()


@pytest.mark.parametrize(
    "symbols", ["AAPL", [1], ["aapl"], [""], ["A B"], ["A" * 40], {"A": 1}, None, [["A"]]]
)
def test_malformed_symbols_are_invalid_syntax(symbols: Any) -> None:
    session = make(authenticated=True)
    assert ask(session, action="subscribe", bars=symbols, quotes=["A"]) == error(400)
    assert ask(session, action="subscribe") == listed()


def test_a_request_over_the_symbol_limit_leaves_the_subscriptions_as_they_were() -> None:
    session = make(authenticated=True, symbol_limit=2, symbols=lambda: ["A", "B", "C"])
    ask(session, action="subscribe", bars=["A"])
    assert ask(session, action="subscribe", bars=["B", "C"]) == error(405)
    assert ask(session, action="subscribe", bars=["*"]) == error(405)
    assert ask(session, action="subscribe", quotes=["A", "B", "C"]) == listed(
        bars=["A"], quotes=["A", "B", "C"]
    )
    assert ask(session, action="subscribe", bars=["B"])["bars"] == ["A", "B"]
    assert ask(session, action="unsubscribe", bars=["A"])["bars"] == ["B"]


def test_subscriptions_without_end_have_an_end() -> None:
    session = make(authenticated=True)
    names = [f"S{number}" for number in range(20_001)]
    assert ask(session, action="subscribe", bars=names) == error(405)
    assert len(ask(session, action="subscribe", bars=names[:-1])["bars"]) == 20_000


def test_a_full_house_is_406_and_a_second_try_may_succeed() -> None:
    places = [False, True]
    session = make(claim=lambda: places.pop(0))
    assert ask(session, **RIGHT) == error(406)
    assert session.was_refused_a_place
    assert ask(session, **RIGHT) == success("authenticated")
    assert not session.was_refused_a_place


def test_wrong_credentials_take_no_place() -> None:
    claims: list[None] = []
    session = make(claim=lambda: not claims.append(None))  # type: ignore[func-returns-value]
    ask(session, action="auth", key=KEY, secret="wrong")
    assert claims == []


def test_a_feed_outside_the_plan_is_409_at_authentication() -> None:
    session = make(is_served=False)
    assert ask(session, action="auth", key="x", secret="y") == error(402)
    assert ask(session, **RIGHT) == error(409)
    assert not session.is_authenticated


def test_the_texts_of_the_codes_are_alpacas() -> None:
    assert error(409) == {"T": "error", "code": 409, "msg": "insufficient subscription"}
    assert error(410)["msg"] == "invalid subscribe action for this feed"
    assert sorted(ERRORS) == [400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 500]
