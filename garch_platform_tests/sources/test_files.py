"""Bars from files as people have them."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from garch_platform.bars import BAR_SCHEMA
from garch_platform.errors import CalendarError, ConfigurationError, SourceError, SymbolError
from garch_platform.quant.bar_quality import check_bars
from garch_platform.sources import BarSource, require_symbols
from garch_platform_tests.sources.market_files import CALENDAR, DAY, OPEN, minute_rows, source

MINUTE = timedelta(minutes=1)


def written(path: Path, frame: pl.DataFrame) -> Path:
    """Write ``frame`` in the format that the name says."""
    if path.name.endswith(".parquet"):
        frame.write_parquet(path)
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(frame.write_csv().encode()))
    else:
        frame.write_csv(path)
    return path


def text(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv", "bars.csv.gz"])
def test_every_format_gives_the_rows_of_the_contract(tmp_path: Path, name: str) -> None:
    rows = source(written(tmp_path / name, minute_rows())).fetch(["AAPL"], DAY, DAY)
    assert rows.schema == pl.Schema(BAR_SCHEMA)
    assert rows["timestamp"].to_list() == [OPEN, OPEN + MINUTE, OPEN + 2 * MINUTE]
    assert rows["available_at"].to_list() == [OPEN + MINUTE, OPEN + 2 * MINUTE, OPEN + 3 * MINUTE]
    assert rows["close"].to_list() == [100.5, 101.5, 102.5]
    assert rows["volume"].to_list() == [1000.0, 1001.0, 1002.0]
    assert rows["session_date"].to_list() == [DAY] * 3
    constants = ["timeframe", "feed", "data_source", "is_proxy", "adjustment"]
    assert rows.select(constants).unique().rows() == [("1Min", "file", "file", False, "raw")]
    assert all(rows[name].null_count() == 3 for name in ("vwap", "trade_count", "split_factor", "dividend"))


def test_it_is_a_bar_source(tmp_path: Path) -> None:
    assert isinstance(source(tmp_path), BarSource)


def test_common_names_are_recognised(tmp_path: Path) -> None:
    path = text(
        tmp_path / "bars.csv",
        "Ticker,Datetime,O,H,L,C,Adj Close,V,VW,N",
        "AAPL,2024-03-28T13:30:00Z,1,3,0.5,2,9,10,1.5,4",
    )
    row = source(path).fetch(["AAPL"], DAY, DAY).row(0, named=True)
    assert [row[name] for name in ("open", "high", "low", "close", "volume")] == [1.0, 3.0, 0.5, 2.0, 10.0]
    assert (row["vwap"], row["trade_count"], row["timestamp"]) == (1.5, 4, OPEN)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_times_of_any_zone_are_instants(tmp_path: Path, zone: str) -> None:
    rows = minute_rows().with_columns(pl.col("timestamp").dt.convert_time_zone(zone))
    path = written(tmp_path / "bars.parquet", rows)
    assert (
        source(path).fetch(["AAPL"], DAY, DAY)["timestamp"].to_list() == minute_rows()["timestamp"].to_list()
    )


def test_declared_columns_win(tmp_path: Path) -> None:
    path = text(tmp_path / "bars.csv", "symbol,when,close,adj_close", "AAPL,2024-03-28 13:30:00,100,50")
    rows = source(path, columns={"timestamp": "when", "close": "adj_close"}).fetch(["AAPL"], DAY, DAY)
    assert rows["close"].to_list() == [50.0]


def test_categorical_symbols_and_other_widths_are_read(tmp_path: Path) -> None:
    frame = minute_rows().with_columns(
        pl.col("symbol").cast(pl.Categorical),
        pl.col("close").cast(pl.Float32),
        pl.col("timestamp").dt.cast_time_unit("ns"),
    )
    rows = source(written(tmp_path / "bars.parquet", frame)).fetch(["AAPL"], DAY, DAY)
    assert rows["close"].to_list() == [100.5, 101.5, 102.5]
    assert rows["timestamp"][0] == OPEN


class TestTimes:
    @pytest.mark.parametrize(
        "written_as",
        [
            "2024-03-28T13:30:00Z",
            "2024-03-28 13:30:00",
            "2024-03-28 13:30",
            "2024-03-28T09:30:00-04:00",
            "2024-03-28 13:30:00.000+0000",
            "20240328 13:30:00",
            "3/28/2024 13:30",
            "1711632600",
            "1711632600000",
            "1711632600000000000",
        ],
    )
    def test_text(self, tmp_path: Path, written_as: str) -> None:
        path = text(tmp_path / "bars.csv", "symbol,timestamp,close", f"AAPL,{written_as},100")
        assert source(path).fetch(["AAPL"], DAY, DAY)["timestamp"].to_list() == [OPEN]

    @pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
    def test_epochs(self, tmp_path: Path, unit: int) -> None:
        frame = minute_rows().with_columns((pl.col("timestamp").dt.epoch("s") * unit).alias("timestamp"))
        path = written(tmp_path / "bars.parquet", frame)
        assert source(path).fetch(["AAPL"], DAY, DAY)["timestamp"][0] == OPEN

    def test_naive_times_are_those_of_the_zone_on_both_sides_of_a_clock_change(self, tmp_path: Path) -> None:
        """New York opens at 14:30 UTC on Friday 2024-03-08 and at 13:30 UTC on Monday 2024-03-11."""
        naive = [datetime(2024, 3, day, 9, 30) for day in (8, 11)]  # noqa: DTZ001
        frame = pl.DataFrame({"symbol": ["AAPL"] * 2, "timestamp": naive, "close": [1.0, 2.0]})
        path = written(tmp_path / "bars.parquet", frame)
        rows = source(path, timezone="America/New_York").fetch(["AAPL"], date(2024, 3, 8), date(2024, 3, 11))
        assert rows["timestamp"].to_list() == [
            datetime(2024, 3, 8, 14, 30, tzinfo=UTC),
            datetime(2024, 3, 11, 13, 30, tzinfo=UTC),
        ]
        assert rows["session_date"].to_list() == [date(2024, 3, 8), date(2024, 3, 11)]

    @pytest.mark.parametrize("name", ["bars.parquet", "bars.csv"])
    def test_a_time_that_clocks_skip_is_null_and_rejected_on_its_day(self, tmp_path: Path, name: str) -> None:
        stamps = [datetime(2024, 3, 10, 2, 30), datetime(2024, 3, 11, 9, 30)]  # noqa: DTZ001
        frame = pl.DataFrame({"symbol": ["AAPL"] * 2, "timestamp": stamps, "close": [1.0, 2.0]})
        files = source(written(tmp_path / name, frame), timezone="America/New_York")
        assert files.fetch(["AAPL"], date(2024, 3, 10), date(2024, 3, 10))["timestamp"].to_list() == [None]
        both = files.fetch(["AAPL"], date(2024, 3, 8), date(2024, 3, 11))
        quality = check_bars(both, max_log_move=0.4)
        assert quality.accepted["session_date"].to_list() == [date(2024, 3, 11)]
        assert quality.rejected["reason"].to_list() == ["null_timestamp"]
        assert files.fetch(["AAPL"], date(2024, 3, 12), date(2024, 3, 15)).is_empty()

    def test_a_time_that_occurs_twice_is_the_earlier(self, tmp_path: Path) -> None:
        stamp = datetime(2024, 11, 3, 1, 30)  # noqa: DTZ001
        frame = pl.DataFrame({"symbol": ["AAPL"], "timestamp": [stamp], "close": [1.0]})
        rows = source(written(tmp_path / "bars.parquet", frame), timezone="America/New_York").fetch(
            ["AAPL"], stamp.date(), stamp.date()
        )
        assert rows["timestamp"].to_list() == [datetime(2024, 11, 3, 5, 30, tzinfo=UTC)]
        assert rows["session_date"].to_list() == [None]

    def test_end_labels_are_shifted_by_the_length_of_a_bar(self, tmp_path: Path) -> None:
        path = written(tmp_path / "bars.parquet", minute_rows(3, start=OPEN + MINUTE))
        rows = source(path, label="end").fetch(["AAPL"], DAY, DAY)
        assert rows["timestamp"].to_list() == [OPEN, OPEN + MINUTE, OPEN + 2 * MINUTE]

    def test_an_unreadable_time_stays_with_its_neighbours_and_is_rejected_once(self, tmp_path: Path) -> None:
        path = text(
            tmp_path / "bars.csv",
            "symbol,timestamp,close",
            "AAPL,2024-03-27 13:30:00,1",
            "AAPL,yesterday,2",
            "AAPL,2024-03-28 13:30:00,3",
        )
        files = source(path)
        assert files.fetch(["AAPL"], DAY, DAY)["close"].to_list() == [3.0]
        before = files.fetch(["AAPL"], date(2024, 3, 27), date(2024, 3, 27))
        assert before["timestamp"].to_list() == [datetime(2024, 3, 27, 13, 30, tzinfo=UTC), None]
        assert check_bars(before, max_log_move=0.4).rejected["reason"].to_list() == ["null_timestamp"]


class TestSessions:
    half_day = date(2023, 11, 24)
    close = datetime(2023, 11, 24, 18, 0, tzinfo=UTC)

    def fetched(
        self, tmp_path: Path, stamps: list[datetime], timeframe: str, **arguments: Any
    ) -> pl.DataFrame:
        frame = pl.DataFrame(
            {"symbol": ["AAPL"] * len(stamps), "timestamp": stamps, "close": [1.0] * len(stamps)}
        )
        path = written(tmp_path / "bars.parquet", frame)
        return source(path, timeframe, **arguments).fetch(["AAPL"], date(2023, 11, 20), date(2023, 11, 30))

    def test_a_half_day_ends_at_its_own_close(self, tmp_path: Path) -> None:
        stamps = [self.close - timedelta(minutes=m) for m in (2, 1, 0, -1)]
        rows = self.fetched(tmp_path, stamps, "1Min")
        assert rows["timestamp"].to_list() == stamps[:2]
        kept = self.fetched(tmp_path, stamps, "1Min", regular_hours=False)
        assert kept["session_date"].to_list() == [self.half_day, self.half_day, None, None]

    def test_an_hourly_bar_is_available_at_the_close_at_the_latest(self, tmp_path: Path) -> None:
        rows = self.fetched(tmp_path, [self.close - timedelta(minutes=30)], "1Hour")
        assert rows["available_at"].to_list() == [self.close]

    def test_hours_on_the_clock_overlap_the_session(self, tmp_path: Path) -> None:
        """A grid of 14:00, 15:00, … UTC before a session that opens at 14:30 UTC."""
        stamps = [datetime(2023, 11, 27, hour, tzinfo=UTC) for hour in range(12, 23)]
        rows = self.fetched(tmp_path, stamps, "1Hour")
        assert rows["timestamp"].dt.hour().to_list() == list(range(14, 21))
        assert set(rows["session_date"]) == {date(2023, 11, 27)}

    def test_a_bar_that_the_next_one_cuts_short_before_the_open_is_outside(self, tmp_path: Path) -> None:
        stamps = [
            datetime(2023, 11, 27, *clock, tzinfo=UTC) for clock in ((13, 0), (14, 0), (14, 30), (15, 30))
        ]
        rows = self.fetched(tmp_path, stamps, "1Hour")
        assert rows["timestamp"].to_list() == stamps[2:]

    def test_saturdays_and_holidays_stay_to_be_rejected(self, tmp_path: Path) -> None:
        stamps = [datetime(2023, 11, day, 15, 0, tzinfo=UTC) for day in (23, 25, 27)]
        rows = self.fetched(tmp_path, stamps, "1Min")
        assert rows["session_date"].to_list() == [None, None, date(2023, 11, 27)]
        rejected = check_bars(rows, max_log_move=0.4, sessions=CALENDAR.schedule).rejected
        assert rejected["reason"].to_list() == ["not_a_session"] * 2


class TestDailyBars:
    @pytest.mark.parametrize(
        "stamps",
        [
            [date(2023, 11, 24), date(2023, 11, 27)],
            ["2023-11-24", "2023-11-27"],
            ["11/24/2023", "11/27/2023"],
            ["20231124", "20231127"],
            [datetime(2023, 11, 24, tzinfo=UTC), datetime(2023, 11, 27, tzinfo=UTC)],
            [datetime(2023, 11, 24, 5, tzinfo=UTC), datetime(2023, 11, 27, 5, tzinfo=UTC)],
            [datetime(2023, 11, 24), datetime(2023, 11, 27)],  # noqa: DTZ001
            ["2023-11-24 00:00:00", "2023-11-27 00:00:00"],
        ],
        ids=[
            "dates",
            "text",
            "US text",
            "digits",
            "UTC midnight",
            "New York midnight",
            "naive",
            "naive text",
        ],
    )
    def test_a_day_is_its_session(self, tmp_path: Path, stamps: list[Any]) -> None:
        frame = pl.DataFrame({"symbol": ["AAPL"] * 2, "date": stamps, "close": [1.0, 2.0]})
        rows = source(written(tmp_path / "bars.parquet", frame), "1Day").fetch(
            ["AAPL"], date(2023, 11, 24), date(2023, 11, 27)
        )
        assert rows.select("session_date", "timestamp", "available_at").rows() == [
            (day, *CALENDAR.bounds(day)) for day in (date(2023, 11, 24), date(2023, 11, 27))
        ]

    @pytest.mark.parametrize(
        "stamp",
        [date(2023, 11, 24), datetime(2023, 11, 24, 18, tzinfo=UTC), datetime(2023, 11, 25, tzinfo=UTC)],
        ids=["date", "close", "midnight after"],
    )
    def test_an_end_label_names_the_day_that_ended(self, tmp_path: Path, stamp: date) -> None:
        frame = pl.DataFrame({"symbol": ["AAPL"], "date": [stamp], "close": [1.0]})
        rows = source(written(tmp_path / "bars.parquet", frame), "1Day", label="end").fetch(
            ["AAPL"], date(2023, 11, 20), date(2023, 11, 30)
        )
        assert rows["session_date"].to_list() == [date(2023, 11, 24)]

    def test_saturday_and_a_day_before_the_calendar_have_no_session(self, tmp_path: Path) -> None:
        days = [date(1975, 6, 2), date(2023, 11, 25)]
        frame = pl.DataFrame({"symbol": ["AAPL"] * 2, "date": days, "close": [1.0, 2.0]})
        rows = source(written(tmp_path / "bars.parquet", frame), "1Day").fetch(["AAPL"], days[0], days[1])
        assert rows["session_date"].to_list() == [None, None]
        assert rows["timestamp"].to_list() == [
            datetime(1975, 6, 2, 4, tzinfo=UTC),
            datetime(2023, 11, 25, 5, tzinfo=UTC),
        ]

    def test_factors_stand_beside_raw_prices(self, tmp_path: Path) -> None:
        path = text(
            tmp_path / "AAPL.csv",
            "Date,Close,Dividends,Stock Splits",
            "2014-06-06,645.57,0,0",
            "2014-06-09,93.7,0,7",
        )
        rows = source(path, "1Day").fetch(["AAPL"], date(2014, 6, 6), date(2014, 6, 9))
        assert rows["split_factor"].to_list() == [1.0, 7.0]
        assert rows["dividend"].to_list() == [0.0, 0.0]

    def test_minute_bars_are_not_daily_bars(self, tmp_path: Path) -> None:
        path = written(tmp_path / "bars.parquet", minute_rows(10))
        with pytest.raises(
            SourceError, match=r"holds 10 times on 1 day\(s\), so its bars are shorter than 1Day"
        ):
            source(path, "1Day").symbols()


class TestFolders:
    def test_the_name_of_a_file_is_its_symbol(self, tmp_path: Path) -> None:
        for symbol in ("AAPL", "BRK.B"):
            written(tmp_path / f"{symbol}.csv", minute_rows().drop("symbol"))
        (tmp_path / "README.md").write_text("not bars")
        (tmp_path / ".hidden.csv").write_text("not bars")
        (tmp_path / "_delta_log").mkdir()
        (tmp_path / "_delta_log" / "0.parquet").write_bytes(b"not bars")
        files = source(tmp_path)
        assert files.symbols()["symbol"].to_list() == ["AAPL", "BRK.B"]
        rows = files.fetch(["BRK.B"], DAY, DAY)
        assert rows["symbol"].to_list() == ["BRK.B"] * 3

    def test_files_with_symbols_are_read_together(self, tmp_path: Path) -> None:
        (tmp_path / "later").mkdir()
        written(tmp_path / "a.parquet", minute_rows())
        written(tmp_path / "later" / "b.parquet", minute_rows(start=OPEN + 3 * MINUTE))
        assert source(tmp_path).fetch(["AAPL"], DAY, DAY)["timestamp"].n_unique() == 6

    def test_new_and_changed_files_are_seen(self, tmp_path: Path) -> None:
        files = source(tmp_path)
        written(tmp_path / "AAPL.csv", minute_rows(1).drop("symbol"))
        assert files.fetch(["AAPL", "MU"], DAY, DAY).height == 1
        written(tmp_path / "AAPL.csv", minute_rows(3).drop("symbol"))
        written(tmp_path / "MU.csv", minute_rows(2).drop("symbol"))
        assert files.fetch(["AAPL", "MU"], DAY, DAY).height == 5

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (minute_rows().drop("volume"), "only one of them gives volume"),
            (
                minute_rows().with_columns(pl.col("timestamp").dt.replace_time_zone(None)),
                "its column 'timestamp' writes times as naive, there as aware",
            ),
        ],
    )
    def test_file_of_another_layout_is_left_out_and_named(
        self, tmp_path: Path, other: pl.DataFrame, message: str
    ) -> None:
        written(tmp_path / "a.parquet", minute_rows())
        written(tmp_path / "b.parquet", other)
        files = source(tmp_path)
        assert files.fetch(["AAPL"], DAY, DAY).height == minute_rows().height
        assert list(files.unreadable()) == ["b.parquet"]
        assert message in files.unreadable()["b.parquet"]
        assert "keep one layout in a folder" in files.unreadable()["b.parquet"]


class TestSymbols:
    def test_sessions_and_the_directory(self, tmp_path: Path) -> None:
        saturday = datetime(2024, 3, 30, 15, 0, tzinfo=UTC)
        frame = pl.concat([minute_rows(), minute_rows(1, start=saturday), minute_rows(1, symbol="ZZZQ")])
        symbols = source(written(tmp_path / "bars.parquet", frame)).symbols()
        assert symbols.rows() == [
            ("AAPL", "Apple", "technology", "equity", DAY, DAY),
            ("ZZZQ", None, None, None, DAY, DAY),
        ]

    def test_absent_symbols_have_no_rows_unless_required(self, tmp_path: Path) -> None:
        files = source(written(tmp_path / "bars.parquet", minute_rows(symbol="GOOGL")))
        assert files.fetch(["MSFT"], DAY, DAY).schema == pl.Schema(BAR_SCHEMA)
        assert files.fetch([], DAY, DAY).is_empty()
        require_symbols(files, ["GOOGL"])
        with pytest.raises(
            SymbolError, match=r"symbol 'GOGL' is not in the source 'file'; did you mean GOOGL\?"
        ):
            require_symbols(files, ["GOGL"])

    def test_rows_without_a_symbol_are_nobody_s(self, tmp_path: Path) -> None:
        frame = minute_rows().with_columns(pl.Series("symbol", ["", None, " MU "]))
        files = source(written(tmp_path / "bars.parquet", frame))
        assert files.symbols()["symbol"].to_list() == ["MU"]
        assert files.fetch(["MU"], DAY, DAY).height == 1


class TestValues:
    def test_a_price_that_is_no_number_is_rejected_and_a_missing_one_is_null(self, tmp_path: Path) -> None:
        path = text(
            tmp_path / "bars.csv",
            "symbol,timestamp,open,close",
            "AAPL,2024-03-28 13:30:00,,100",
            "AAPL,2024-03-28 13:31:00,1o1,101",
            "AAPL,2024-03-28 13:32:00,N/A,102",
            "AAPL,2024-03-28 13:33:00,103,",
        )
        quality = check_bars(source(path).fetch(["AAPL"], DAY, DAY), max_log_move=0.4)
        assert quality.accepted["close"].to_list() == [100.0, 102.0]
        assert quality.accepted["open"].to_list() == [None, None]
        assert quality.rejected.select("reason", "detail").rows() == [
            ("not_finite", "open NaN"),
            ("missing_close", "close is null"),
        ]

    def test_recycled_and_proxy_rows_keep_their_mark(self, tmp_path: Path) -> None:
        frame = minute_rows(4).with_columns(
            pl.Series("data_source", ["alpaca", "recycled", None, "yahoo"]),
            pl.Series("is_proxy", [False, False, None, True]),
        )
        rows = source(written(tmp_path / "bars.parquet", frame)).fetch(["AAPL"], DAY, DAY)
        assert rows["data_source"].to_list() == ["file", "recycled", "file", "file"]
        assert rows["is_proxy"].to_list() == [False, False, False, True]
        assert check_bars(rows, max_log_move=0.4).rejected["reason"].to_list() == ["proxy_or_recycled"] * 2


class TestRange:
    def test_only_the_days_asked_for(self, tmp_path: Path) -> None:
        days = [datetime.combine(day, time(15), UTC) for day in CALENDAR.sessions(date(2024, 3, 1), DAY)]
        frame = pl.concat([minute_rows(2, start=day) for day in days])
        files = source(written(tmp_path / "bars.parquet", frame))
        rows = files.fetch(["AAPL"], date(2024, 3, 8), date(2024, 3, 11))
        assert rows["session_date"].unique().sort().to_list() == [date(2024, 3, 8), date(2024, 3, 11)]
        assert rows.height == 4
        parts = [files.fetch(["AAPL"], day.date(), day.date()) for day in days]
        assert_frame_equal(pl.concat(parts), files.fetch(["AAPL"], date(2024, 1, 1), DAY))

    def test_a_reversed_range_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CalendarError, match="2024-03-28 to 2024-03-27 is reversed"):
            source(tmp_path).fetch(["AAPL"], DAY, date(2024, 3, 27))

    def test_shorter_bars_come_as_they_are(self, tmp_path: Path) -> None:
        path = written(tmp_path / "bars.parquet", minute_rows())
        files = source(path, "15Min", resample="1Min")
        assert (files.timeframe.name, files.bar_timeframe.name) == ("15Min", "1Min")
        rows = files.fetch(["AAPL"], DAY, DAY)
        assert rows.height == 3
        assert set(rows["timeframe"]) == {"1Min"}


class TestFaults:
    def message(self, path: Path, timeframe: str = "1Min", **arguments: Any) -> str:
        with pytest.raises(SourceError) as caught:
            source(path, timeframe, **arguments).fetch(["AAPL"], DAY, DAY)
        with pytest.raises(SourceError):
            source(path, timeframe, **arguments).symbols()
        return str(caught.value)

    def test_absent(self, tmp_path: Path) -> None:
        assert self.message(tmp_path / "none") == (
            f"{tmp_path / 'none'} does not exist; put Parquet or CSV bars there, or point files.path at the right place"
        )

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert self.message(tmp_path) == (
            f"the folder {tmp_path} holds no file that ends in .parquet, .csv, .csv.gz; put bars there"
        )

    def test_another_kind_of_file(self, tmp_path: Path) -> None:
        path = text(tmp_path / "bars.xlsx", "x")
        assert f"{path} is neither Parquet nor CSV" in self.message(path)

    @pytest.mark.parametrize("name", ["bars.parquet", "bars.csv", "bars.csv.gz"])
    def test_an_empty_file(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(b"")
        assert f"{path} cannot be read as" in self.message(path)

    @pytest.mark.parametrize("part", ["head", "middle", "tail"])
    def test_a_corrupt_parquet(self, tmp_path: Path, part: str) -> None:
        path = written(tmp_path / "bars.parquet", minute_rows(500))
        content = bytearray(path.read_bytes())
        places = {"head": slice(0, 600), "middle": slice(100, 3000), "tail": slice(-200, None)}
        damaged = content[places[part]]
        content[places[part]] = b"\xa5" * len(damaged)
        path.write_bytes(content)
        message = self.message(path)
        assert f"{path} cannot be read as Parquet (" in message
        assert "write the file again or take it out of the folder" in message

    def test_a_truncated_parquet(self, tmp_path: Path) -> None:
        path = written(tmp_path / "bars.parquet", minute_rows(500))
        path.write_bytes(path.read_bytes()[:2000])
        assert f"{path} cannot be read as Parquet (" in self.message(path)

    def test_a_csv_with_ragged_lines(self, tmp_path: Path) -> None:
        path = text(tmp_path / "bars.csv", "symbol,timestamp,close", "AAPL,2024-03-28 13:30:00,1,2,3,4")
        assert f"{path} cannot be read as CSV (" in self.message(path)

    def test_no_close(self, tmp_path: Path) -> None:
        path = written(tmp_path / "quotes.parquet", minute_rows().rename({"close": "bid_close"}))
        message = self.message(path)
        assert f"{path} has no column for 'close'; its columns are symbol, timestamp, open" in message
        assert message.endswith("declare the right one in files.columns, such as {close: bid_close}")
        assert source(path, columns={"close": "bid_close"}).fetch(["AAPL"], DAY, DAY).height == 3

    def test_a_declared_column_is_absent(self, tmp_path: Path) -> None:
        path = written(tmp_path / "bars.parquet", minute_rows())
        message = self.message(path, columns={"close": "last"})
        assert f"{path} has no column 'last', declared for 'close' in files.columns" in message

    def test_a_column_of_something_else(self, tmp_path: Path) -> None:
        path = written(tmp_path / "bars.parquet", minute_rows().with_columns(pl.lit(True).alias("close")))
        assert f"{path}: column 'close' is Boolean, not numbers, and cannot be 'close'" in self.message(path)
        path = text(tmp_path / "bars.csv", "symbol,timestamp,close", "AAPL,2024-03-28 13:30:00,up")
        assert f"{path}: column 'close' holds no numbers (first value 'up')" in self.message(path)

    def test_times_that_are_none(self, tmp_path: Path) -> None:
        path = text(tmp_path / "bars.csv", "symbol,timestamp,close", "AAPL,noon,1", "AAPL,teatime,2")
        message = self.message(path)
        assert f"{path}: column 'timestamp' cannot be read as times of day (first value 'noon')" in message
        assert "write ISO 8601, such as 2024-03-28T13:30:00Z" in message

    def test_dates_are_no_times(self, tmp_path: Path) -> None:
        dated = minute_rows().with_columns(pl.col("timestamp").dt.date())
        message = self.message(written(tmp_path / "bars.parquet", dated))
        assert "column 'timestamp' holds dates without times, but bars are 1Min" in message
        path = text(tmp_path / "bars.csv", "symbol,date,close", "AAPL,2024-03-28,1")
        assert "column 'date' cannot be read as times of day (first value '2024-03-28')" in self.message(path)

    def test_a_type_that_holds_no_times(self, tmp_path: Path) -> None:
        path = written(tmp_path / "bars.parquet", minute_rows().with_columns(timestamp=pl.lit(1.5)))
        assert "column 'timestamp' is Float64; declare a column of times" in self.message(path)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                {"columns": {"price": "close"}},
                "'price' in files.columns is not a field of a bar; use symbol,",
            ),
            ({"timezone": "Mars/Olympus"}, "files.timezone 'Mars/Olympus' is not known"),
            ({"label": "middle"}, "files.label 'middle' is not known; use start or end"),
            ({"adjustment": "some"}, "files.adjustment 'some' is not known"),
            ({"resample": "1Hour"}, "files.resample 1Hour is longer than the timeframe 1Min"),
            ({"resample": "7Min"}, "timeframe '7Min' is not known"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_settings(self, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            source(tmp_path, **arguments)
