"""`garch scan`: from a bar file to selected pairs, its report and tables, and going on after a break."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from garch_platform import cli
from garch_platform.bars import Timeframe
from garch_platform.errors import ConfigurationError, InsufficientData, SourceError, SymbolError
from garch_platform.quant.pairs.rules import SelectionRules
from garch_platform.quant.pairs.selection import SELECTION_SCHEMA
from garch_platform.scanning import tile_store
from garch_platform.scanning.file_scan import FileScan, ScanRequest, scan_file
from garch_platform.scanning.outputs import write_scan
from garch_platform.scanning.rules import selection_rules
from garch_platform.settings import load_settings
from garch_platform_tests.orchestration import small_market
from garch_platform_tests.orchestration.small_market import CALENDAR, SESSIONS, SYMBOLS

NAMES = ["P1", "P2", "Q1", "Q2", "W1", "W2"]


@pytest.fixture(scope="module")
def daily(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Daily bars of six symbols; AAA and BBB are a planted pair."""
    path = tmp_path_factory.mktemp("bars") / "daily.parquet"
    small_market.daily_bars().write_parquet(path)
    return path


@pytest.fixture(scope="module")
def intraday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15-minute bars of twenty sessions; P1 P2 and Q1 Q2 are planted pairs."""
    path = tmp_path_factory.mktemp("bars") / "intraday.csv"
    small_market.intraday_bars(SESSIONS[-40:], NAMES, pairs=2).write_csv(path)
    return path


def scan(path: Path, settings: dict[str, Any] | None = None, **options: Any) -> FileScan:
    given = {"pairs": {"floor_draws": 2, "honest": {"min_return_correlation": 0.3}}} | (settings or {})
    return scan_file(ScanRequest(path, load_settings(**given), **options))


def test_planted_pair_is_selected_from_daily_bars(daily: Path) -> None:
    result = scan(daily)
    assert result.timeframe.name == "1Day"
    assert result.panel.symbols == tuple(SYMBOLS)
    assert result.panel.session_index is None
    assert result.selection.selected.select("symbol_1", "symbol_2").rows() == [("AAA", "BBB")]
    assert dict(result.selection.table.schema) == SELECTION_SCHEMA
    assert result.ledger["floor_draws"].to_list() == [2, 2]
    assert result.rejected.is_empty()


def test_the_last_sessions_form_and_later_ones_perform(daily: Path) -> None:
    result = scan(daily, sessions=300, performance_sessions=60)
    assert len(result.closes) == 360
    assert (result.panel.formation_end, result.panel.confirmation_end) == (210, 300)
    assert result.selection.table["oos_trades"].drop_nulls().len() > 0
    part = scan(daily, start=SESSIONS[10], end=SESSIONS[400])
    assert len(part.closes) == 391


def test_intraday_bars_are_read_from_csv_and_made_longer(intraday: Path) -> None:
    fine, hourly = scan(intraday), scan(intraday, timeframe=Timeframe.parse("1Hour"))
    assert (fine.timeframe.name, hourly.timeframe.name) == ("15Min", "1Hour")
    assert len(fine.closes) == sum(
        len(CALENDAR.expected_timestamps(day, fine.timeframe)) for day in SESSIONS[-40:]
    )
    assert len(hourly.closes) < len(fine.closes) / 3
    assert fine.panel.session_index is not None
    assert fine.selection.rules.correlation_horizon == 4
    assert hourly.selection.rules.correlation_horizon == 1
    assert ("P1", "P2") in fine.selection.selected.select("symbol_1", "symbol_2").rows()


def test_tiles_are_kept_and_taken_up_again(daily: Path, tmp_path: Path) -> None:
    whole = scan(daily).selection.table
    first = scan(daily, tiles=tmp_path)
    (kept,) = tmp_path.glob("*/tile-*.parquet")
    assert first.selection.table.equals(whole)
    stamp = kept.stat().st_mtime_ns
    assert scan(daily, tiles=tmp_path).selection.table.equals(whole)
    assert kept.stat().st_mtime_ns == stamp
    shorter = scan(daily, tiles=tmp_path, sessions=300)
    assert len(list(tmp_path.glob("*/tile-*.parquet"))) == 2
    assert not shorter.selection.table.equals(whole)


def test_an_interrupted_scan_goes_on_where_it_ended(
    daily: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, whole = tile_store.scan_tiles, scan(daily).selection.table
    monkeypatch.setattr(tile_store, "scan_tiles", _stops_at(original, 2))
    with pytest.raises(KeyboardInterrupt):
        scan(daily, tiles=tmp_path)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/tile-*.parquet")}
    assert sorted(kept) == ["tile-000000.parquet", "tile-000001.parquet"]
    monkeypatch.setattr(tile_store, "scan_tiles", _stops_at(original, None))
    assert scan(daily, tiles=tmp_path).selection.table.equals(whole)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/tile-*.parquet")}
    assert len(after) == 4
    assert {name: after[name] for name in kept} == kept


def _stops_at(original: Any, last: int | None) -> Any:
    def tiles(*arguments: Any, **options: Any) -> Any:
        for number, rows in original(*arguments, **(options | {"tile_size": 4})):
            if number == last:
                raise KeyboardInterrupt
            yield number, rows

    return tiles


def test_results_are_written_in_each_format(daily: Path, tmp_path: Path) -> None:
    result = scan(daily)
    table = result.selection.table
    assert pl.read_parquet(write_scan(result, tmp_path / "new" / "all.parquet")).equals(table)
    assert pl.read_csv(write_scan(result, tmp_path / "all.csv")).height == table.height
    page = write_scan(result, tmp_path / "all.html").read_text("utf-8")
    assert "Pair scan of daily.parquet" in page
    assert "AAA" in page
    assert "Floor: on 2 markets like this one" in page
    assert not re.search(r"https?:|@import|url\(", re.sub(r'"data:[^"]*"', "", page))
    assert write_scan(result, tmp_path / "again.html").read_text("utf-8") == page


def test_faulty_bars_are_left_out_and_counted(daily: Path, tmp_path: Path) -> None:
    bars = pl.read_parquet(daily)
    faulty = (pl.col("symbol") == "CCC") & (pl.col("date") == SESSIONS[5])
    prices = pl.col("open", "high", "low", "close")
    spoiled = bars.with_columns(pl.when(faulty).then(-prices).otherwise(prices))
    spoiled.write_parquet(tmp_path / "spoiled.parquet")
    result = scan(tmp_path / "spoiled.parquet")
    assert result.rejected["reason"].to_list() == ["non_positive_price"]
    assert result.selection.selected.height == 1


def test_a_symbol_that_ended_is_excluded(daily: Path, tmp_path: Path) -> None:
    bars = pl.read_parquet(daily).filter((pl.col("symbol") != "FFF") | (pl.col("date") < SESSIONS[-3]))
    bars.write_parquet(tmp_path / "ended.parquet")
    table = scan(tmp_path / "ended.parquet").selection.table
    ended = table.filter((pl.col("symbol_1") == "FFF") | (pl.col("symbol_2") == "FFF"))
    assert set(ended["rejection_reason"]) == {"FFF: no bar in the last session"}
    assert ended["coint_pvalue"].null_count() == 0


def test_bars_of_an_unknown_length_are_refused(daily: Path, tmp_path: Path) -> None:
    weekly = pl.read_parquet(daily).filter(pl.col("date").dt.weekday() == 3)
    weekly.write_parquet(tmp_path / "weekly.parquet")
    with pytest.raises(
        ConfigurationError, match=r"most bars of .* are 7 days, 0:00:00 apart, which is none of"
    ):
        scan(tmp_path / "weekly.parquet")
    weekly.head(1).write_parquet(tmp_path / "one.parquet")
    with pytest.raises(ConfigurationError, match="has no two bars of one symbol"):
        scan(tmp_path / "one.parquet")


def test_bad_requests_are_refused_by_name(daily: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent.parquet does not exist"):
        scan(tmp_path / "absent.parquet")
    with pytest.raises(SymbolError, match="has no bars of ZZZ; it has 6 symbols, such as AAA"):
        scan(daily, symbols=["AAA", "ZZZ"])
    with pytest.raises(InsufficientData, match="gives 1 symbols"):
        scan(daily, symbols=["AAA"])
    with pytest.raises(InsufficientData, match="30 bars of 1Day before the third window"):
        scan(daily, sessions=30)
    with pytest.raises(ConfigurationError, match=r"all\.xlsx ends in none of"):
        write_scan(scan(daily), tmp_path / "all.xlsx")


def test_defaults_of_the_settings_are_those_of_the_statistics() -> None:
    assert selection_rules(load_settings()) == SelectionRules()


def test_the_command_prints_pairs_gates_floor_and_writes(
    daily: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "pairs.csv"
    arguments = ["garch", "scan", str(daily), "--floor", "1", "--fdr", "by", "--profile", "classic"]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(out), "--performance", "60", "--top", "3"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    text = capsys.readouterr().out
    assert "daily.parquet: 6 symbols, 420 bars of 1Day" in text
    assert re.search(r"Pairs: .* of 15 selected \(classic\)", text)
    assert "Benjamini-Yekutieli at 5%" in text
    assert "Floor: on 1 markets like this one" in text
    assert pl.read_csv(out).height == 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "pairs.xlsx"], "pairs.xlsx ends in none of .parquet, .csv, .html"),
        (["--columns", "symbol"], "--columns 'symbol' is no list of FIELD=NAME"),
        (["--timeframe", "2Day"], "timeframe '2Day' is not known"),
        (["--start", "tomorrow"], "'tomorrow' is not a date"),
    ],
)
def test_the_command_refuses_nonsense_before_it_reads(
    arguments: list[str],
    message: str,
    daily: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["garch", "scan", str(daily), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
