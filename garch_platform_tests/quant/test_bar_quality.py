"""Which bars are accepted, and with which reason the others are rejected."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from garch_platform.bars import BAR_KEY, BAR_SCHEMA
from garch_platform.errors import DataError
from garch_platform.quant.bar_quality import (
    REJECTION_SCHEMA,
    check_bars,
    content_hash,
    find_gaps,
    find_outliers,
)

OPEN = datetime(2024, 3, 28, 13, 30, tzinfo=UTC)
DAY = date(2024, 3, 28)
SESSIONS = pl.DataFrame(
    {
        "session_date": [DAY, date(2024, 4, 1)],
        "open_at": [OPEN, datetime(2024, 4, 1, 13, 30, tzinfo=UTC)],
        "close_at": [OPEN + timedelta(hours=6.5), datetime(2024, 4, 1, 20, 0, tzinfo=UTC)],
    }
)


def bar(minute: int = 0, **values: object) -> dict[str, object]:
    """A sound one-minute bar, changed by ``values``."""
    stamp = OPEN + timedelta(minutes=minute)
    row: dict[str, object] = dict.fromkeys(BAR_SCHEMA)
    row |= {
        "symbol": "AAPL",
        "timeframe": "1Min",
        "timestamp": stamp,
        "available_at": stamp + timedelta(minutes=1),
        "session_date": DAY,
        "open": 100.0,
        "high": 101.0,
        "low": 99.0,
        "close": 100.5,
        "volume": 1000.0,
        "feed": "file",
        "data_source": "file",
        "is_proxy": False,
        "adjustment": "raw",
    }
    return row | values


def bars(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=BAR_SCHEMA)


def closes(*values: float, **constants: object) -> pl.DataFrame:
    """Bars a minute apart with these closes and nothing else."""
    blank = {"open": None, "high": None, "low": None}
    return bars(*(bar(minute, close=value, **blank, **constants) for minute, value in enumerate(values)))


@pytest.mark.parametrize(
    ("fault", "reason", "detail"),
    [
        ({"symbol": " "}, "no_symbol", "symbol is null or blank"),
        ({"symbol": None}, "no_symbol", "symbol is null or blank"),
        ({"timestamp": None}, "null_timestamp", "skipped by a clock change"),
        ({"session_date": None}, "not_a_session", "the bar of 2024-03-28 13:30 UTC lies in no session"),
        ({"is_proxy": True}, "proxy_or_recycled", "is_proxy true, data_source file"),
        ({"data_source": "recycled"}, "proxy_or_recycled", "is_proxy false, data_source recycled"),
        ({"close": None}, "missing_close", "close is null"),
        ({"close": math.nan}, "not_finite", "close NaN"),
        ({"high": math.inf}, "not_finite", "high inf"),
        ({"volume": math.nan}, "not_finite", "volume NaN"),
        ({"low": 0.0}, "non_positive_price", "low 0.0"),
        ({"close": -3.5}, "non_positive_price", "close -3.5"),
        ({"split_factor": 0.0}, "non_positive_price", "split_factor 0.0"),
        ({"high": 100.2}, "ohlc_order", "open 100.0, high 100.2, low 99.0, close 100.5"),
        ({"low": 100.2}, "ohlc_order", "open 100.0, high 101.0, low 100.2, close 100.5"),
        ({"open": None, "close": 102.0}, "ohlc_order", "open null, high 101.0, low 99.0, close 102.0"),
        ({"volume": -1.0}, "negative_volume", "volume -1.0"),
        ({"trade_count": -2}, "negative_volume", "trade_count -2"),
    ],
)
def test_a_faulty_bar_is_rejected_with_its_value_and_the_others_stay(
    fault: dict[str, object], reason: str, detail: str
) -> None:
    quality = check_bars(bars(bar(**fault), bar(1)), max_log_move=0.4)
    assert quality.accepted["timestamp"].to_list() == [OPEN + timedelta(minutes=1)]
    assert quality.rejected["reason"].to_list() == [reason]
    assert detail in quality.rejected["detail"][0]
    assert quality.rejected_share == 0.5


def test_null_fields_are_no_fault() -> None:
    quality = check_bars(closes(10.0, 10.1), max_log_move=0.4)
    assert quality.accepted.height == 2
    assert quality.accepted["open"].null_count() == 2
    assert quality.rejected.is_empty()
    assert quality.rejected.schema == pl.Schema(REJECTION_SCHEMA)


def test_naive_timestamps_are_all_rejected_and_named() -> None:
    naive = bars(bar(), bar(1)).with_columns(pl.col("timestamp").dt.replace_time_zone(None))
    quality = check_bars(naive, max_log_move=0.4)
    assert quality.accepted.is_empty()
    assert quality.rejected["reason"].to_list() == ["naive_timestamp"] * 2
    assert quality.rejected["detail"].to_list() == [
        "timestamp 2024-03-28 13:30:00.000000 has no time zone",
        "timestamp 2024-03-28 13:31:00.000000 has no time zone",
    ]
    assert quality.rejected["timestamp"].null_count() == 2


def test_other_time_zones_are_the_same_instants() -> None:
    new_york = bars(bar()).with_columns(pl.col("timestamp").dt.convert_time_zone("America/New_York"))
    assert check_bars(new_york, max_log_move=0.4).accepted["timestamp"].to_list() == [OPEN]


@pytest.mark.parametrize(
    ("start", "session", "reason"),
    [
        (OPEN, DAY, None),
        (OPEN - timedelta(hours=1), DAY, "outside_session"),
        (OPEN + timedelta(hours=6.5), DAY, "outside_session"),
        (OPEN + timedelta(hours=8), None, "outside_session"),
        (datetime(2024, 3, 30, 15, 0, tzinfo=UTC), None, "not_a_session"),
        (datetime(2024, 3, 29, 15, 0, tzinfo=UTC), date(2024, 3, 29), "not_a_session"),
    ],
    ids=["open", "before", "at the close", "extended hours", "Saturday", "Good Friday"],
)
def test_with_sessions_extended_hours_and_closed_days_are_told_apart(
    start: datetime, session: date | None, reason: str | None
) -> None:
    row = bar(timestamp=start, available_at=start + timedelta(minutes=1), session_date=session)
    quality = check_bars(bars(row), max_log_move=0.4, sessions=SESSIONS)
    assert quality.rejected["reason"].to_list() == ([] if reason is None else [reason])


def test_a_bar_that_straddles_the_open_is_inside() -> None:
    start = OPEN - timedelta(minutes=30)
    row = bar(timestamp=start, available_at=start + timedelta(hours=1), timeframe="1Hour")
    assert check_bars(bars(row), max_log_move=0.4, sessions=SESSIONS).accepted.height == 1


def test_what_ends_after_now_is_rejected() -> None:
    quality = check_bars(bars(bar(), bar(1)), max_log_move=0.4, now=OPEN + timedelta(minutes=1))
    assert quality.accepted["timestamp"].to_list() == [OPEN]
    assert quality.rejected.select("reason", "detail").row(0) == (
        "future",
        "available_at 2024-03-28 13:32:00 UTC is after 2024-03-28 13:31:00 UTC",
    )
    with pytest.raises(DataError, match="has no time zone; pass an aware datetime"):
        check_bars(bars(bar()), max_log_move=0.4, now=datetime(2024, 3, 28))  # noqa: DTZ001


def test_of_duplicates_the_last_given_stays() -> None:
    first, last = bar(close=100.1), bar(close=100.2)
    quality = check_bars(bars(first, last, last, bar(1)), max_log_move=0.4)
    assert quality.accepted["close"].to_list() == [100.2, 100.5]
    assert quality.rejected.select("reason", "detail").rows() == [
        ("conflicting_duplicate", "close 100.1 against 100.2 of the row given last, which is kept"),
        ("duplicate", "the same row was given more than once"),
    ]


def test_a_faulty_bar_does_not_displace_a_sound_one() -> None:
    quality = check_bars(bars(bar(close=100.1), bar(close=-1.0)), max_log_move=0.4)
    assert quality.accepted["close"].to_list() == [100.1]
    assert quality.rejected["reason"].to_list() == ["non_positive_price"]


def test_feeds_and_timeframes_are_keys_of_their_own() -> None:
    quality = check_bars(bars(bar(), bar(feed="sip"), bar(timeframe="5Min")), max_log_move=0.4)
    assert quality.accepted.height == 3


def test_rows_out_of_order_are_sorted() -> None:
    quality = check_bars(bars(bar(2), bar(0), bar(1)), max_log_move=0.4)
    assert quality.accepted["timestamp"].is_sorted()
    assert quality.rejected.is_empty()


def test_an_empty_batch_is_no_fault() -> None:
    quality = check_bars(pl.DataFrame(schema=BAR_SCHEMA), max_log_move=0.4, sessions=SESSIONS, now=OPEN)
    assert (quality.accepted.height, quality.rejected.height, quality.rejected_share) == (0, 0, 0.0)
    assert quality.accepted.schema == pl.Schema(BAR_SCHEMA)


def test_rounding_of_adjusted_prices_is_no_fault() -> None:
    row = bar(open=100.5, high=100.5 * (1 - 1e-12), close=100.5)
    assert check_bars(bars(row), max_log_move=0.4).accepted.height == 1


def test_a_frame_without_the_contract_is_refused() -> None:
    with pytest.raises(DataError, match=r"bars lack the column\(s\) close, is_proxy;"):
        check_bars(bars(bar()).drop("close", "is_proxy"), max_log_move=0.4)
    with pytest.raises(DataError, match="cannot be cast to the bar contract"):
        check_bars(bars(bar()).with_columns(pl.lit("abc").alias("close")), max_log_move=0.4)


prices = st.sampled_from([100.0, 100.5, 101.0, -1.0, 0.0, math.nan, math.inf, None])
rows = st.builds(
    bar,
    minute=st.integers(0, 6),
    symbol=st.sampled_from(["AAPL", "MSFT", ""]),
    open=prices,
    high=prices,
    close=prices,
    volume=st.sampled_from([0.0, 5.0, -1.0, None]),
    is_proxy=st.sampled_from([False, False, True, None]),
    session_date=st.sampled_from([DAY, DAY, DAY, None]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, max_size=25))
def test_every_candidate_ends_in_one_place_and_accepted_rows_stay_accepted(
    given_rows: list[dict[str, object]],
) -> None:
    candidates = bars(*given_rows)
    quality = check_bars(candidates, max_log_move=0.4, sessions=SESSIONS)
    key = list(BAR_KEY)
    ended = pl.concat([quality.accepted.select(key), quality.rejected.select(key)])
    assert_frame_equal(ended.sort(key), candidates.select(key).sort(key))
    assert quality.accepted.select(key).is_unique().all()
    assert quality.rejected["detail"].null_count() == 0
    again = check_bars(quality.accepted, max_log_move=0.4, sessions=SESSIONS)
    assert again.rejected.is_empty()
    assert_frame_equal(again.accepted, quality.accepted)


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, max_size=20, unique_by=lambda row: (row["symbol"], row["timestamp"])), st.randoms())
def test_the_order_of_distinct_rows_does_not_matter(
    given_rows: list[dict[str, object]], random: object
) -> None:
    shuffled = list(given_rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one = check_bars(bars(*given_rows), max_log_move=0.4)
    two = check_bars(bars(*shuffled), max_log_move=0.4)
    assert_frame_equal(one.accepted, two.accepted)
    assert_frame_equal(one.rejected, two.rejected, check_row_order=False)
    assert_frame_equal(content_hash(one.accepted), content_hash(two.accepted))


class TestOutliers:
    def kinds(self, frame: pl.DataFrame, max_log_move: float = 0.4) -> list[tuple[object, ...]]:
        found = find_outliers(frame, max_log_move=max_log_move)
        minute = (pl.col("timestamp") - OPEN).dt.total_minutes()
        return found.select(minute, "kind", "suggested_factor").rows()

    @pytest.mark.parametrize(
        ("before", "after", "factor"),
        [(645.57, 93.7, 7.0), (100.0, 50.5, 2.0), (90.0, 60.3, 1.5), (2.0, 20.3, 0.1), (100.0, 4.95, 20.0)],
        ids=["7:1", "2:1", "3:2", "1:10", "20:1"],
    )
    def test_a_split_persists(self, before: float, after: float, factor: float) -> None:
        frame = closes(before, before * 1.001, after, after * 1.002)
        assert self.kinds(frame, 0.35) == [(2, "unadjusted_split", factor)]

    def test_a_declared_split_is_no_outlier(self) -> None:
        frame = closes(645.57, 93.7, 94.0).with_columns(pl.Series("split_factor", [1.0, 7.0, 1.0]))
        assert self.kinds(frame) == []

    def test_a_spike_reverts_and_its_return_is_not_a_second_one(self) -> None:
        assert self.kinds(closes(100.0, 100.1, 50.0, 100.2, 100.3)) == [(2, "bad_print", None)]

    def test_a_wick_that_the_close_does_not_follow_is_a_bad_print(self) -> None:
        frame = bars(bar(0), bar(1, low=0.01), bar(2))
        assert self.kinds(frame) == [(1, "bad_print", None)]
        assert find_outliers(frame, max_log_move=0.4)["log_move"][0] == pytest.approx(
            math.log(0.01 / 100.5), rel=1e-12
        )

    def test_a_wick_that_only_the_next_close_undoes_is_a_bad_print(self) -> None:
        """Prices of the bad print that NVDA shows on 2025-07-09, after the close."""
        frame = bars(
            bar(0, open=162.845, high=163.02, low=162.5701, close=162.83),
            bar(1, open=162.88, high=181.9799, low=100.1947, close=115.7909),
            bar(2, open=162.855, high=172.6928, low=109.3739, close=163.0499),
            bar(3, open=163.0403, high=163.38, low=163.01, close=163.3353),
        )
        assert self.kinds(frame) == [(1, "bad_print", None)]

    def test_other_moves_are_large_moves(self) -> None:
        assert self.kinds(closes(100.0, 100.0, 57.0, 57.0)) == [(2, "large_move", None)]

    def test_the_last_bar_is_not_judged(self) -> None:
        assert self.kinds(closes(100.0, 100.0, 50.0)) == [(2, "large_move", None)]

    def test_only_the_next_bar_is_used(self) -> None:
        """A verdict does not change when bars after the next one arrive."""
        frame = closes(100.0, 100.0, 50.0, 50.1, 100.0, 100.0)
        assert self.kinds(frame.head(4)) == [(2, "unadjusted_split", 2.0)]
        assert self.kinds(frame)[0] == (2, "unadjusted_split", 2.0)

    def test_symbols_do_not_mix(self) -> None:
        frame = pl.concat([closes(100.0, 100.1), closes(10.0, 10.1, symbol="MSFT")])
        assert self.kinds(frame) == []

    def test_small_moves_are_nothing_and_the_limit_is_positive(self) -> None:
        assert self.kinds(closes(100.0, 120.0, 100.0)) == []
        with pytest.raises(DataError, match=r"max_log_move=0\.0 must be positive"):
            find_outliers(closes(1.0), max_log_move=0.0)

    def test_quality_reports_them_and_keeps_the_rows(self) -> None:
        quality = check_bars(closes(100.0, 100.1, 50.0, 100.2), max_log_move=0.4)
        assert quality.accepted.height == 4
        assert quality.outliers["kind"].to_list() == ["bad_print"]


class TestGaps:
    expected = pl.DataFrame(
        {
            "session_date": [DAY] * 4 + [date(2024, 4, 1)] * 2,
            "timestamp": [OPEN + timedelta(minutes=m) for m in range(4)]
            + [datetime(2024, 4, 1, 13, 30 + m, tzinfo=UTC) for m in range(2)],
        }
    )

    def test_counts_share_and_first_missing(self) -> None:
        frame = bars(bar(0), bar(2), bar(1, symbol="MSFT"), bar(2, symbol="MSFT"))
        gaps = find_gaps(frame, self.expected)
        later = datetime(2024, 4, 1, 13, 30, tzinfo=UTC)
        assert gaps.rows() == [
            ("AAPL", DAY, 4, 2, 2, 0.5, OPEN + timedelta(minutes=1)),
            ("AAPL", date(2024, 4, 1), 2, 0, 2, 1.0, later),
            ("MSFT", DAY, 4, 2, 2, 0.5, OPEN),
            ("MSFT", date(2024, 4, 1), 2, 0, 2, 1.0, later),
        ]

    def test_a_complete_session_lacks_nothing_and_a_missing_tail_is_seen(self) -> None:
        session = self.expected.head(4)
        assert find_gaps(bars(*(bar(m) for m in range(4))), session).row(0)[3:] == (4, 0, 0.0, None)
        assert find_gaps(bars(bar(0), bar(1)), session)["first_missing"][0] == OPEN + timedelta(minutes=2)

    def test_bars_off_the_grid_do_not_count(self) -> None:
        off = bar(timestamp=OPEN + timedelta(seconds=30))
        assert find_gaps(bars(off), self.expected.head(4))["present"][0] == 0

    def test_symbols_without_any_bar_are_listed_when_named(self) -> None:
        gaps = find_gaps(bars(bar()), self.expected.head(4), symbols=["AAPL", "ZM"])
        assert gaps.select("symbol", "present").rows() == [("AAPL", 1), ("ZM", 0)]

    @settings(max_examples=40, deadline=None)
    @given(st.sets(st.integers(0, 9)))
    def test_against_a_plain_count(self, present: set[int]) -> None:
        session = pl.DataFrame(
            {"session_date": [DAY] * 10, "timestamp": [OPEN + timedelta(minutes=m) for m in range(10)]}
        )
        gap = find_gaps(bars(*(bar(m) for m in present)), session, symbols=["AAPL"]).row(0, named=True)
        absent = sorted(set(range(10)) - present)
        assert (gap["present"], gap["missing"]) == (len(present), len(absent))
        assert gap["first_missing"] == (OPEN + timedelta(minutes=absent[0]) if absent else None)


class TestContentHash:
    frame = bars(bar(0), bar(1), bar(0, symbol="MSFT"), bar(0, session_date=date(2024, 4, 1), feed="sip"))

    def test_one_row_a_symbol_and_session(self) -> None:
        hashes = content_hash(self.frame)
        assert hashes.select("symbol", "session_date").rows() == [
            ("AAPL", DAY),
            ("AAPL", date(2024, 4, 1)),
            ("MSFT", DAY),
        ]
        assert hashes["content_hash"].n_unique() == 3

    def test_the_text_is_fixed(self) -> None:
        """A change of this value makes every stored hash look like a revision."""
        assert content_hash(bars(bar(), bar(1)))["content_hash"].to_list() == [
            "8ed4f40d13ac4cda10bd420c08a0ce05"
        ]

    def test_another_process_gives_the_same(self) -> None:
        code = (
            "import sys, polars as pl; from garch_platform.quant.bar_quality import content_hash; "
            "print(content_hash(pl.read_json(sys.stdin.buffer, schema=None)"
            ".with_columns(pl.col('timestamp', 'available_at').str.to_datetime(time_zone='UTC', time_unit='us'),"
            " pl.col('session_date').str.to_date()))['content_hash'].to_list())"
        )
        stamped = self.frame.with_columns(
            pl.col("timestamp", "available_at").dt.strftime("%Y-%m-%dT%H:%M:%S+00:00"),
            pl.col("session_date").cast(pl.String),
        )
        printed = subprocess.run(
            [sys.executable, "-c", code],
            input=stamped.write_json().encode(),
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": "7"},
        ).stdout.decode()
        assert printed.strip() == str(content_hash(self.frame)["content_hash"].to_list())

    @pytest.mark.parametrize(
        "change",
        [
            {"close": 100.50000000000001},
            {"volume": None},
            {"volume": 0.0},
            {"vwap": 0.0},
            {"adjustment": "all"},
            {"is_proxy": True},
            {"trade_count": 0},
            {"dividend": 0.0},
            {"available_at": OPEN + timedelta(minutes=2)},
        ],
        ids=str,
    )
    def test_every_change_of_content_shows(self, change: dict[str, object]) -> None:
        assert (
            content_hash(bars(bar(**change)))["content_hash"][0]
            != content_hash(bars(bar()))["content_hash"][0]
        )

    def test_zero_signs_and_nan_payloads_do_not_matter(self) -> None:
        def of(value: float) -> str:
            return content_hash(bars(bar(volume=value)))["content_hash"][0]

        assert of(0.0) == of(-0.0)
        assert of(math.nan) == of(-math.nan) != of(0.0)

    def test_added_and_repeated_rows_show(self) -> None:
        one, two = content_hash(bars(bar())), content_hash(bars(bar(), bar()))
        assert one["content_hash"][0] != two["content_hash"][0]

    def test_duplicates_in_any_order_give_the_same(self) -> None:
        pair = [bar(close=1.0), bar(close=2.0)]
        assert_frame_equal(content_hash(bars(*pair)), content_hash(bars(*reversed(pair))))

    def test_no_bars_no_hashes(self) -> None:
        assert content_hash(pl.DataFrame(schema=BAR_SCHEMA)).schema == pl.Schema(
            {"symbol": pl.String, "session_date": pl.Date, "content_hash": pl.String}
        )
