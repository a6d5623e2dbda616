"""Bad rows, bad files and empty sessions, taken through the real jobs.

Each gives a recorded rejection or a clear error, the other symbols go on with the same bits, and when
the input is sound again the stores hold what they hold where nothing had happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from garch_platform.orchestration.launch import Launcher
from garch_platform.orchestration.refresh import failed_symbols
from garch_platform_tests.orchestration import last_session, small_market
from garch_platform_tests.orchestration.last_session import (
    EVE,
    LAST,
    SYMBOLS,
    Garch,
    Rows,
    folder_of,
    run_day,
)
from garch_platform_tests.orchestration.small_market import assert_same

SATURDAY, GOOD_FRIDAY = date(2024, 3, 30), date(2024, 3, 29)
SPOILED = ["CCC", "DDD", "EEE", "FFF"]
SOUND = [symbol for symbol in SYMBOLS if symbol not in SPOILED]

REJECTED = {
    "AAA": [("duplicate", "the same row was given more than once")],
    "BBB": [("conflicting_duplicate", "low 1.0 against")],
    "CCC": [("non_positive_price", "close -3.0")],
    "DDD": [("non_positive_price", "open 0.0")],
    "EEE": [("not_finite", "close NaN")],
    "FFF": [("not_finite", "high inf")],
    "HHH": [
        ("not_a_session", "the bar of 2024-03-29 04:00 UTC lies in no session"),
        ("not_a_session", "the bar of 2024-03-30 04:00 UTC lies in no session"),
    ],
}


def spoil(folder: Path) -> None:
    """One fault a symbol in the last session; III stays as it is."""

    def bar(symbol: str, **values: object) -> pl.DataFrame:
        return last_session.bar_of(folder, symbol, LAST, **values)

    last_session.add_bars(folder, "AAA", bar("AAA"))
    last_session.add_bars(folder, "BBB", bar("BBB", low=1.0, close=1.0), first=True)
    last_session.change_bar(folder, "CCC", LAST, close=-3.0)
    last_session.change_bar(folder, "DDD", LAST, open=0.0)
    last_session.change_bar(folder, "EEE", LAST, close=np.nan)
    last_session.change_bar(folder, "FFF", LAST, high=np.inf)
    small_market.write_inbox(folder, small_market.read_inbox(folder, "GGG").reverse())
    for day in (GOOD_FRIDAY, SATURDAY, date(2099, 1, 5)):
        last_session.add_bars(folder, "HHH", bar("HHH", date=day))


@dataclass(frozen=True)
class Story:
    """The stores after the spoiled session, after running it again, and after running it repaired."""

    spoiled: Rows
    again: Rows
    repaired: Rows


@pytest.fixture(scope="module")
def story(once: last_session.Once, eve_template: Path) -> Story:
    def build(place: Path) -> None:
        folder = small_market.copy_workspace(eve_template, place / "market")
        sound = {path: path.read_bytes() for path in (folder / "inbox").iterdir()}
        opened = last_session.memory_launcher(folder)

        def run_and_save(name: str) -> None:
            assert [one.message for one in run_day(opened)] == ["", ""]
            last_session.save(last_session.contents(opened), place / name)

        spoil(folder)
        run_and_save("spoiled")
        run_and_save("again")
        for path, content in sound.items():
            path.write_bytes(content)
        run_and_save("repaired")
        last_session.close(opened)

    place = once("spoiled", build)
    return Story(*(last_session.saved(place / name) for name in ("spoiled", "again", "repaired")))


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_faulty_row_is_recorded_with_its_reason(story: Story, symbol: str) -> None:
    rows = story.spoiled["rejections"].filter(pl.col("symbol") == symbol).sort("timestamp")
    found = list(zip(rows["reason"], rows["detail"], strict=True))
    expected = REJECTED.get(symbol, [])
    assert [reason for reason, _ in found] == [reason for reason, _ in expected]
    assert all(text.startswith(start) for (_, text), (_, start) in zip(found, expected, strict=True))
    assert set(rows["asset"]) | set(rows["partition_key"]) <= {"raw_bars", str(LAST)}


def test_sound_symbols_keep_their_bits(story: Story, undisturbed: Rows) -> None:
    left = last_session.of_symbols(story.spoiled, SOUND)
    assert_same(left, last_session.of_symbols(undisturbed, SOUND))
    assert left["pair_rankings"]["passed"].sum() >= 1


def test_nothing_is_invented_for_a_symbol_whose_bar_was_rejected(story: Story) -> None:
    today = {
        name: frame.filter(pl.col("symbol").is_in(SPOILED), pl.col(column) == LAST)
        for name, column, frame in (
            ("bars", "session_date", story.spoiled["bars"]),
            ("features", "session_date", story.spoiled["features"]),
            ("verdicts", "test_date", story.spoiled["variance_stability_tracking"]),
            ("fits", "fit_date", story.spoiled["garch_models"]),
        )
    }
    assert (len(today["bars"]), len(today["features"])) == (0, 0)
    assert today["verdicts"].select("symbol", "is_stable", "filter_reason").rows() == [
        (symbol, False, "no_bars") for symbol in SPOILED
    ]
    assert set(today["fits"].select("status", "reason", "omega", "is_selected").rows()) == {
        ("failed", "no_bars", None, False)
    }
    pairs = story.spoiled["pair_rankings"].filter(
        pl.col("ranking_date") == LAST,
        pl.col("symbol_1").is_in(SPOILED) | pl.col("symbol_2").is_in(SPOILED),
    )
    assert pairs["rejection_reason"].str.contains(": no bar in this session").all()
    assert set(pairs["honest_gate"]) == set(pairs["classic_gate"]) == {"silent"}


def test_bars_of_a_future_session_wait_for_it(story: Story) -> None:
    assert story.spoiled["bars"]["session_date"].max() == LAST
    assert "future" not in set(story.spoiled["rejections"]["reason"])


def test_running_spoiled_input_twice_doubles_nothing(story: Story) -> None:
    assert_same(story.again, story.spoiled)
    last_session.assert_nothing_doubled(story.again)


def test_repaired_input_gives_what_sound_input_gives(story: Story, undisturbed: Rows) -> None:
    assert_same(story.repaired, undisturbed)
    last_session.assert_nothing_doubled(story.repaired)


def test_file_that_cannot_be_read_is_named_and_costs_its_symbol_alone(
    quick_eve: Launcher, undisturbed: Rows
) -> None:
    path = folder_of(quick_eve) / "inbox" / "EEE.parquet"
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    daily, ranking = run_day(quick_eve)
    assert (daily.success, ranking.success) == (True, True)
    assert daily.message.startswith(f"raw_bars: EEE.parquet: {path} cannot be read as Parquet")
    rows = last_session.contents(quick_eve)
    others = [symbol for symbol in SYMBOLS if symbol != "EEE"]
    assert_same(last_session.of_symbols(rows, others), last_session.of_symbols(undisturbed, others))
    assert rows["rejections"].select("symbol", "reason").rows() == [("EEE.parquet", "unreadable")]
    assert failed_symbols(quick_eve, LAST) == ["EEE"]

    path.write_bytes(sound)
    small_market.write_inbox(
        folder_of(quick_eve), small_market.read_inbox(folder_of(quick_eve), "EEE").drop("close")
    )
    (lacking,) = run_day(quick_eve, rank=False)
    assert lacking.message.startswith(
        f"raw_bars: EEE.parquet: {path} has no column for 'close'; "
        "its columns are symbol, date, open, high, low, volume"
    )

    path.write_bytes(sound)
    assert [one.message for one in run_day(quick_eve)] == ["", ""]
    assert_same(last_session.contents(quick_eve), undisturbed)


def test_source_without_a_readable_file_fails_the_run(quick_eve: Launcher) -> None:
    before = last_session.contents(quick_eve)
    for symbol in SYMBOLS:
        (folder_of(quick_eve) / "inbox" / f"{symbol}.parquet").write_bytes(b"PAR1")
    daily, ranking = run_day(quick_eve)
    assert daily.message.startswith("SourceError: ")
    assert all(f"{symbol}.parquet cannot be read as Parquet" in daily.message for symbol in SYMBOLS)
    assert (ranking.success, ranking.run_id) == (False, "")
    assert ranking.message == "left out, because daily_pair_identification_job 2024-04-01, 9 keys failed"
    assert_same(last_session.contents(quick_eve), before)


def test_symbol_with_three_bars_fails_alone(quick_eve: Launcher, undisturbed: Rows) -> None:
    bars = small_market.read_inbox(folder_of(quick_eve), "AAA").filter(pl.col("date") != EVE).tail(3)
    small_market.write_inbox(folder_of(quick_eve), bars.with_columns(symbol=pl.lit("NEW")))
    quick_eve.workspace.registry.add("NEW", sector="technology")
    quick_eve.prepare()
    small_market.run(quick_eve, quick_eve.planner.history(["NEW"]))
    assert [one.message for one in run_day(quick_eve)] == ["", ""]

    rows = last_session.contents(quick_eve)
    assert_same(last_session.of_symbols(rows, SYMBOLS), last_session.of_symbols(undisturbed, SYMBOLS))
    mine = {table: frame.filter(symbol="NEW") for table, frame in rows.items() if "symbol" in frame.columns}
    assert mine["bars"]["session_date"].to_list() == [date(2024, 3, 26), date(2024, 3, 27), LAST]
    assert mine["variance_stability_tracking"].select(
        "test_date", "record_count", "filter_reason"
    ).rows() == [(LAST, 2, "insufficient_data")]
    assert mine["garch_models"].select("fit_date", "status", "reason").rows() == [
        (LAST, "insufficient", "insufficient_data: 2 returns, 150 needed")
    ]
    pairs = rows["pair_rankings"].filter((pl.col("symbol_1") == "NEW") | (pl.col("symbol_2") == "NEW"))
    assert set(pairs["classic_reason"]) == {"NEW: unstable variance: insufficient_data"}
    assert set(pairs["honest_gate"]) == {"coverage"}
    assert len(pairs) == len(SYMBOLS)
    assert failed_symbols(quick_eve, LAST) == []


def withhold(opened: Launcher, symbols: list[str], day: date = LAST) -> pl.DataFrame:
    """Take the session's bars of ``symbols`` out of their files; return them."""
    return pl.concat(small_market.drop_bar(folder_of(opened), symbol, day) for symbol in symbols)


def deliver(opened: Launcher, bars: pl.DataFrame) -> None:
    """Put withheld bars back into their files."""
    for (symbol,), rows in bars.group_by("symbol"):
        last_session.add_bars(folder_of(opened), str(symbol), rows)


def materialised(opened: Launcher, run_id: str, asset: str) -> dict[str, object]:
    """The keys that a run materialised of ``asset``, each with its status (None: nothing to say)."""
    events = opened.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = [event.asset_materialization for event in events if event.asset_materialization]
    return {
        str(one.partition): one.metadata["status"].value if "status" in one.metadata else None
        for one in found
        if one.asset_key == dg.AssetKey(asset)
    }


def test_session_without_any_bar_is_no_crash_and_is_filled_later(
    quick_eve: Launcher, undisturbed: Rows
) -> None:
    before = last_session.contents(quick_eve)
    bars = withhold(quick_eve, SYMBOLS)
    daily, ranking = run_day(quick_eve)
    assert (daily.message, ranking.message) == ("", "")
    rows = last_session.contents(quick_eve)
    assert_same({"bars": rows["bars"]}, {"bars": before["bars"]})
    assert_same({"features": rows["features"]}, {"features": before["features"]})
    assert set(materialised(quick_eve, daily.run_id, "raw_bars").values()) == {"failed"}
    assert set(materialised(quick_eve, daily.run_id, "garch_models").values()) == {"failed"}
    named = {
        one.metadata["symbols_without_bars"].value
        for one in last_session.evaluations(quick_eve, daily.run_id, "gaps")[-1:]
    }
    assert named == {", ".join(SYMBOLS)}
    today = rows["pair_rankings"].filter(pl.col("ranking_date") == LAST)
    assert len(today) == 36
    assert (today["rejection_reason"].str.count_matches("no bar in this session") == 2).all()

    deliver(quick_eve, bars)
    assert failed_symbols(quick_eve, LAST) == SYMBOLS
    assert all(one.success for one in run_day(quick_eve))
    assert_same(last_session.contents(quick_eve), undisturbed)


def test_silent_symbol_is_marked_and_retried_alone(eve: Launcher, undisturbed: Rows, garch: Garch) -> None:
    bars = withhold(eve, ["BBB"])
    (daily,) = run_day(eve, rank=False)
    key = f"{LAST}|BBB"
    status = materialised(eve, daily.run_id, "raw_bars")
    assert {name for name, value in status.items() if value == "failed"} == {key}
    flagged = [one for one in last_session.evaluations(eve, daily.run_id, "gaps") if one.partition]
    assert [(one.partition, one.passed, one.severity) for one in flagged] == [
        (key, False, dg.AssetCheckSeverity.WARN)
    ]

    deliver(eve, bars)
    assert garch(eve, "retry", "--failed", str(LAST)).startswith("1 symbols of 2024-04-01: BBB")
    latest = eve.instance.get_run_records(limit=2)
    runs = {one.dagster_run.job_name: one.dagster_run.run_id for one in latest}
    assert list(materialised(eve, runs["daily_pair_identification_job"], "raw_bars")) == [key]
    assert_same(last_session.contents(eve), undisturbed)
    assert garch(eve, "retry", "--failed", str(LAST)) == "no symbol failed on 2024-04-01"


def test_batch_at_fault_blocks_and_leaves_the_earlier_results(quick_eve: Launcher) -> None:
    """The eve's session comes again with every price negative, then not at all."""
    before = last_session.contents(quick_eve)
    files = {symbol: small_market.read_inbox(folder_of(quick_eve), symbol) for symbol in SYMBOLS}
    for symbol in SYMBOLS:
        last_session.change_bar(folder_of(quick_eve), symbol, EVE, close=-1.0)
    daily, ranking = run_day(quick_eve, EVE)
    assert daily.message == (
        "raw_bars: batch_quality: 9 of 9 rows were rejected (non_positive_price 9), more than "
        "quality.max_rejected_share 0.7: nothing of the batch was taken; repair the source and run again"
    )
    assert ranking.run_id == ""
    rows = last_session.contents(quick_eve)
    reasons = rows.pop("rejections").group_by("reason").len().sort("reason")
    assert reasons.rows() == [("batch_refused", 9), ("non_positive_price", 9)]
    assert_same(rows, {table: frame for table, frame in before.items() if table != "rejections"})

    for frame in files.values():
        small_market.write_inbox(folder_of(quick_eve), frame.filter(pl.col("date") != EVE))
    (silent, _) = run_day(quick_eve, EVE)
    assert silent.message == (
        "raw_bars: batch_quality: the source gave no row, 9 bars are stored and stay; "
        "run again when it has them"
    )
    for frame in files.values():
        small_market.write_inbox(folder_of(quick_eve), frame)
    assert all(one.success for one in run_day(quick_eve, EVE))
    assert_same(last_session.contents(quick_eve), before)


def test_refused_history_keeps_the_stored_past_and_its_features(quick_eve: Launcher) -> None:
    before = last_session.contents(quick_eve)
    rows = small_market.read_inbox(folder_of(quick_eve), "DDD")
    small_market.write_inbox(folder_of(quick_eve), rows.with_columns(close=-pl.col("close")))
    (history,) = quick_eve.run(quick_eve.planner.history(["DDD"]))
    assert history.message.startswith(
        "bar_history: history_quality: 318 of 318 rows were rejected (non_positive_price 318), more than"
    )
    after = last_session.contents(quick_eve)
    assert set(after.pop("rejections")["reason"]) == {"batch_refused", "non_positive_price"}
    assert_same(after, {table: frame for table, frame in before.items() if table != "rejections"})
    small_market.write_inbox(folder_of(quick_eve), rows)
    assert [one.message for one in quick_eve.run(quick_eve.planner.history(["DDD"]))] == [""]
    assert_same(last_session.contents(quick_eve), before)
