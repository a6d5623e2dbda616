"""The bytes on the wire: exact to the last bit in both codecs, and as Alpaca's clients expect them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode

from garch_platform.recycler.daily import RunningDays, day_start
from garch_platform.recycler.tick import Bar
from garch_platform.recycler.wire import (
    ERRORS,
    JSON,
    MSGPACK,
    Codec,
    codec_for,
    decode_request,
    error,
    rfc3339,
    success,
)
from garch_platform_tests.recycler.read_wire import decode_messages, read_bar
from garch_platform_tests.recycler.replay import MINUTE, START, make_bar

EPOCH = datetime(1990, 1, 1, tzinfo=UTC)
CODECS = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])

prices = st.floats(allow_nan=False, allow_infinity=False)
bars = st.builds(
    Bar,
    st.from_regex(r"[A-Z][A-Z0-9.]{0,5}", fullmatch=True),
    prices,
    prices,
    prices,
    prices,
    st.one_of(st.integers(0, 2**60).map(float), st.floats(0, 1e12)),
    st.one_of(st.none(), st.integers(0, 2**40)),
    st.one_of(st.none(), prices),
)
moments = st.integers(0, 4 * 10**15).map(lambda micros: EPOCH + timedelta(microseconds=micros))


def payload(codec: Codec, *elements: bytes) -> str | bytes:
    """What a client's WebSocket library hands on."""
    made = codec.payload(elements)
    return made.decode() if codec is JSON else made


@CODECS
@given(bar=bars, moment=moments, kind=st.sampled_from(["b", "u", "d"]))
def test_a_bar_comes_back_to_the_last_bit(codec: Codec, bar: Bar, moment: datetime, kind: str) -> None:
    element = codec.element(kind, bar, codec.moment(moment))  # type: ignore[arg-type]
    (message,) = decode_messages(payload(codec, element))
    assert message["T"] == kind
    assert read_bar(message) == (moment, bar)


@CODECS
def test_keys_types_and_order_are_alpacas(codec: Codec) -> None:
    element = codec.element("b", make_bar("SPY"), codec.moment(START))
    (message,) = decode_messages(payload(codec, element))
    assert list(message) == ["T", "S", "o", "h", "l", "c", "v", "t", "n", "vw"]
    assert {key: type(message[key]) for key in ("v", "n", "vw")} == {"v": int, "n": int, "vw": float}
    expected = "2018-03-01T14:30:00Z" if codec is JSON else msgpack.Timestamp(int(START.timestamp()), 0)
    assert message["t"] == expected


@CODECS
def test_what_the_store_does_not_have_is_null_and_never_zero(codec: Codec) -> None:
    bar = make_bar("SPY", trade_count=None, vwap=None)._replace(volume=0.25)
    (message,) = decode_messages(payload(codec, codec.element("b", bar, codec.moment(START))))
    assert (message["n"], message["vw"], message["v"]) == (None, None, 0.25)


def test_a_msgpack_time_is_the_extension_of_type_minus_one() -> None:
    packed = MSGPACK.element("b", make_bar("SPY"), MSGPACK.moment(START))
    assert b"\xa1t\xd6\xff" + int(START.timestamp()).to_bytes(4, "big") in packed


@CODECS
def test_a_large_tick_travels_in_frames_that_clients_accept(codec: Codec) -> None:
    moment = codec.moment(START)
    elements = [codec.element("b", make_bar(f"S{number}"), moment) for number in range(5_000)]
    frames, read = codec.frames(elements), []
    while frames:
        size, head = int.from_bytes(frames[2:10], "big"), 10
        if frames[1] == 126:
            size, head = int.from_bytes(frames[2:4], "big"), 4
        assert size < 2**20
        body = frames[head : head + size]
        read += decode_messages(body.decode() if codec is JSON else body)
        frames = frames[head + size :]
    assert [message["S"] for message in read] == [f"S{number}" for number in range(5_000)]


@CODECS
def test_control_messages_come_alone_in_an_array(codec: Codec) -> None:
    frames = codec.control([success("connected"), error(406)])
    opcode = Opcode.TEXT if codec is JSON else Opcode.BINARY
    first = codec.frame(codec.payload([codec.encode({"T": "success", "msg": "connected"})]))
    second = codec.payload([codec.encode({"T": "error", "code": 406, "msg": ERRORS[406]})])
    assert frames == first + codec.frame(second)
    assert frames[0] == 0x80 | opcode


@CODECS
def test_the_undecodable_payload_is_undecodable(codec: Codec) -> None:
    data = codec.undecodable
    with pytest.raises((ValueError, msgpack.UnpackException)):
        decode_messages(data.decode() if codec is JSON else data)


@pytest.mark.parametrize(
    ("content_type", "codec"),
    [
        ("application/msgpack", MSGPACK),
        ("Application/MsgPack; charset=binary", MSGPACK),
        ("application/json", JSON),
        (None, JSON),
        ("text/html", JSON),
    ],
)
def test_the_handshake_chooses_the_codec(content_type: str | None, codec: Codec) -> None:
    assert codec_for(content_type) is codec


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "[]",
        "null",
        "1",
        "",
        b"",
        b"\xc1",
        b"\x93\x01",
        b"{" * 10_000,
        "[" * 100_000,
        b"\x91" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda data: repr(data[:6]),
)
def test_what_is_no_map_is_no_request(data: str | bytes) -> None:
    assert decode_request(data) is None


def test_requests_are_read_in_either_codec() -> None:
    request = {"action": "subscribe", "bars": ["AAPL"]}
    for data in (json.dumps(request), json.dumps(request).encode(), msgpack.packb(request)):
        assert decode_request(data) == request


def test_times_are_written_as_alpaca_writes_them() -> None:
    assert rfc3339(START) == "2018-03-01T14:30:00Z"
    assert rfc3339(START + timedelta(microseconds=1500)) == "2018-03-01T14:30:00.001500Z"


@pytest.mark.parametrize(
    ("moment", "start"),
    [
        ("2018-03-01T14:30:00Z", "2018-03-01T05:00:00Z"),
        ("2018-03-02T04:59:59Z", "2018-03-01T05:00:00Z"),
        ("2018-03-11T15:00:00Z", "2018-03-11T05:00:00Z"),
        ("2018-03-12T15:00:00Z", "2018-03-12T04:00:00Z"),
        ("2018-11-05T15:00:00Z", "2018-11-05T05:00:00Z"),
    ],
)
def test_a_day_begins_at_midnight_in_new_york(moment: str, start: str) -> None:
    assert rfc3339(day_start(datetime.fromisoformat(moment))) == start


@given(st.lists(st.tuples(st.floats(1, 1e3), st.integers(0, 10**6), st.booleans()), min_size=1, max_size=20))
def test_the_running_day_is_the_sum_of_its_minutes(minutes: list[tuple[float, int, bool]]) -> None:
    days = RunningDays()
    seen = []
    for step, (price, volume, is_known) in enumerate(minutes):
        count, vwap = (step, price) if is_known else (None, None)
        bar = Bar("A", price, price + 1, price - 1, price + 0.5, float(volume), count, vwap)
        days.add(START + step * MINUTE, [bar])
        seen.append(bar)
        day = days.bar("A")
        assert (day.open, day.close) == (seen[0].open, bar.close)
        assert (day.high, day.low) == (max(one.high for one in seen), min(one.low for one in seen))
        assert day.volume == sum(one.volume for one in seen)
        is_complete = all(one.vwap is not None for one in seen)
        assert (day.trade_count is not None) == is_complete
        assert (day.vwap is not None) == (is_complete and day.volume > 0)
        if day.vwap is not None:
            value = sum(float(one.vwap or 0) * one.volume for one in seen)
            assert day.vwap == pytest.approx(value / day.volume, rel=1e-12)


def test_the_day_begins_anew_with_another_day_and_with_another_pass() -> None:
    days = RunningDays()
    for moment in (START, START + MINUTE, START + timedelta(days=1), START):
        days.add(moment, [make_bar("A")])
        expected = 2000.0 if moment == START + MINUTE else 1000.0
        assert (days.bar("A").volume, days.start) == (expected, day_start(moment))
