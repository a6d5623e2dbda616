"""What a person sees: each command's output, each wrong value's message, and the demo run twice."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from garch_platform import __version__, cli
from garch_platform.orchestration.launch import Launcher
from garch_platform.reporting.tables import number
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform.workspace.outcomes import last_ranking_date
from garch_platform_tests.conftest import shell_environment

LAST = "2022-12-28"
STABLE_FEATURES = """
SELECT f.* FROM market_data_features f
JOIN variance_stability_tracking v ON f.symbol = v.symbol AND f.feature_date = v.test_date
WHERE v.is_stable = true AND f.feature_date >= CURRENT_DATE - INTERVAL '30 days'
ORDER BY f.symbol, f.timestamp;
"""
STABILITY_TODAY = """
SELECT symbol, test_date, is_stable, filter_reason, arch_test_pvalue
FROM variance_stability_tracking
WHERE test_date = CURRENT_DATE
ORDER BY is_stable DESC, symbol;
"""
TABLES = (
    "symbols",
    "variance_stability_tracking",
    "garch_models",
    "pair_rankings",
    "rejections",
    "revisions",
    "market_data",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Garch = Callable[..., str]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty working directory; no variable of the shell reaches a test, none of a launcher leaves it."""
    for name in [*os.environ]:
        if name.startswith(("GARCH_", "DAGSTER_", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture
def garch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Garch:
    """The command line in this process: gives what it prints; an error's message for ``code=1`` or 2."""

    def run(*arguments: str | Path, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["garch", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == code, printed.out + printed.err
        return printed.err if code else printed.out

    return run


@pytest.fixture(scope="module")
def read_only(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real market's workspace, for commands that only read."""
    folder = tmp_path_factory.mktemp("cli") / "demo-real"
    shutil.copytree(demo_root / "demo-real", folder)
    return folder


@pytest.fixture
def writable(read_only: Path, tmp_path: Path) -> Path:
    """The real market's workspace for a command that changes it."""
    shutil.copytree(read_only, tmp_path / "demo-real")
    return tmp_path / "demo-real"


def contents(folder: Path) -> dict[str, Any]:
    """Every row of the database and every version of the lake."""
    workspace = Workspace(load_settings(folder))
    rows = {name: workspace.database.read_table(name).sort(pl.all()) for name in TABLES}
    versions = {name: workspace.lake.version(name) for name in ("bars", "features")}
    workspace.database.dispose()
    return rows | versions


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before.items():
        equal = value.equals(after[name]) if isinstance(value, pl.DataFrame) else value == after[name]
        assert equal, name


def test_demo_prints_pairs_gates_planted_trials_and_the_next_command(demo_root: Path) -> None:
    log = (demo_root / "demo.log").read_text("utf-8")
    order = [
        "demo-real: real daily closes of US stocks",
        "  21/21  ranking_job 2022-12-28, all",
        f"Pairs of {LAST}: ",
        "What became of the 190 pairs",
        "honest: 190 pairs → ",
        "classic: 190 pairs → ",
        "demo-simulated: a simulated 1-minute market",
        "Pairs of 2024-03-28: ",
        "What became of the 780 pairs",
        "left out of classic: ",
        "honest: 780 pairs → ",
        "Found against planted: of 6 planted pairs",
        "SIM11 SIM12",
        f"report: {demo_root / 'report.html'}",
        "next:   make ui",
    ]
    places = [log.find(text) for text in order]
    assert -1 not in places, dict(zip(order, places, strict=True))
    assert places == sorted(places)
    assert log.count("The classic gates pass pairs by chance") == 2
    floors = re.findall(r"Floor: on 19 markets like this one without cointegration .+ any in \d+%", log)
    assert len(floors) == 4
    assert len(re.findall(r"80 % power up to a half-life of \d", log)) == 2
    gates = log.partition("What became of the 190")[2].partition("honest: ")[0]
    counts = [line.split()[-2:] for line in gates.splitlines() if re.match(r"(coint_pvalue|selected) ", line)]
    assert len(counts) == 2
    assert all(0 <= int(count) <= 190 for line in counts for count in line)


def test_demo_again_changes_nothing_and_runs_nothing(demo_root: Path, tmp_path: Path, garch: Garch) -> None:
    root = tmp_path / "demo"
    shutil.copytree(demo_root, root)
    before = {name: contents(root / name) for name in ("demo-real", "demo-simulated")}
    report = (root / "report.html").read_bytes()
    printed = garch("demo", "--root", root)
    assert printed.count("nothing to run: everything is there already") == 2
    for name, held in before.items():
        assert_same(held, contents(root / name))
    assert (root / "report.html").read_bytes() == report


@pytest.mark.parametrize(("query", "rows"), [(STABLE_FEATURES, 200), (STABILITY_TODAY, 20)])
def test_sql_answers_the_documents_queries(query: str, rows: int, read_only: Path, garch: Garch) -> None:
    text = garch("--workspace", read_only, "sql", "--csv", "--as-of", LAST, query)
    found = pl.read_csv(text.encode(), try_parse_dates=True)
    assert found.height == rows
    assert found["symbol"].n_unique() == 20
    assert garch("--workspace", read_only, "sql", "--csv", "--as-of", "2023-06-30", query).count("\n") == 1


def test_sql_as_a_table_keeps_every_row_on_one_line_in_a_pipe(read_only: Path, garch: Garch) -> None:
    lines = garch("--workspace", read_only, "sql", "--as-of", LAST, STABLE_FEATURES).splitlines()
    assert lines[1].strip() == "200 rows"
    assert len([line for line in lines if line.startswith("AAPL ")]) == 10
    assert max(map(len, lines)) > 200


def test_sql_on_a_narrow_terminal_shows_wide_rows_as_blocks(
    read_only: Path, garch: Garch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.console, "console", Console(force_terminal=True, width=80, no_color=True))
    wide = garch("--workspace", read_only, "sql", "SELECT * FROM symbols WHERE symbol = 'KO'")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", wide)
    assert re.search(r"^history_end +2022-12-14", plain, re.MULTILINE)
    assert max(map(len, plain.splitlines())) <= 80


def test_tables_fit_a_terminal_of_eighty_columns(
    read_only: Path, garch: Garch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.console, "console", Console(force_terminal=True, width=80, no_color=True))
    for command in (["rank"], ["status"], ["doctor"], ["symbols", "status"]):
        text = re.sub(r"\x1b\[[0-9;]*m", "", garch("--workspace", read_only, *command))
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text or command[0] == "symbols"
    rows = re.findall(
        r"^ +(?:\d+|–) +\w+ .*$",
        re.sub(r"\x1b\[[0-9;]*m", "", garch("--workspace", read_only, "rank")),
        re.MULTILINE,
    )
    assert len(rows) == 10
    fell_at = ("Engle-Granger", "return corr.", "confirmation")
    assert all(row.rstrip().endswith(fell_at) is (row.split()[0] == "–") for row in rows)
    assert all(re.match(r" +(?:\d+|–)  [A-Z]+ +[A-Z]+ +\S*\d\.\d", row) for row in rows)


def test_rank_shows_the_asked_session(read_only: Path, garch: Garch) -> None:
    text = garch("--workspace", read_only, "rank", "--date", "2022-12-27", "--top", "3")
    assert "Pairs of 2022-12-27" in text
    assert len(re.findall(r"^ +(?:\d+|–)  \w+ ", text, re.MULTILINE)) == 3


def test_status_counts_rows_symbols_and_sessions(read_only: Path, garch: Garch) -> None:
    text = garch("--workspace", read_only, "status")
    assert re.search(r"^bars +176,322 +22 +1990-01-02 +2022-12-28", text, re.MULTILINE)
    assert re.search(r"^variance_stability_tracking +200 +20 +10 +2022-12-14 +2022-12-28", text, re.MULTILINE)
    assert re.search(r"^pair_rankings +1,900 +10 +2022-12-14 +2022-12-28", text, re.MULTILINE)


def test_symbols_status_says_which_have_data_and_since_when(writable: Path, garch: Garch) -> None:
    garch("--workspace", writable, "symbols", "add", "NVDA")
    text = garch("--workspace", writable, "symbols", "status")
    assert "23 symbols, 22 with data (1Day bars)" in text
    assert re.search(
        r"^KO +Coca-Cola +consumer_staples +8,313 +1990-01-02 +2022-12-28 +ok", text, re.MULTILINE
    )
    assert re.search(r"^\^GSPC .+ 2018-12-31 +retired 2019-01-01", text, re.MULTILINE)
    assert re.search(r"^NVDA .+ technology +no data: garch refresh", text, re.MULTILINE)


def test_symbols_are_added_removed_and_retired_and_comments_stay(writable: Path, garch: Garch) -> None:
    registry = writable / "symbols.yaml"
    registry.write_text(registry.read_text("utf-8").replace("  KO:\n", "  KO:  # since 1886\n"), "utf-8")
    space = ("--workspace", writable, "symbols")
    assert "added NVDA, XYZ; next: garch refresh" in garch(*space, "add", "NVDA", "XYZ", "--sector", "energy")
    assert "retired XYZ on 2022-12-20" in garch(*space, "retire", "XYZ", "--on", "2022-12-20")
    assert "removed PEP; their rows are kept" in garch(*space, "remove", "PEP")
    text = registry.read_text("utf-8")
    assert "  KO:  # since 1886\n" in text
    assert "PEP" not in text
    listed = garch(*space, "list")
    assert re.search(r"^XYZ +energy +equity +2022-12-20", listed, re.MULTILINE)
    workspace = Workspace(load_settings(writable))
    stored = {row["symbol"]: row for row in workspace.symbols().iter_rows(named=True)}
    assert [stored[name]["is_active"] for name in ("KO", "NVDA", "XYZ", "PEP")] == [True, True, False, False]
    assert workspace.lake.coverage("bars", "1Day").filter(pl.col("symbol") == "PEP")["rows"].to_list() == [
        8313
    ]
    keys = Launcher(workspace).planner.symbol_keys()
    assert "NVDA" in keys
    assert "PEP" not in keys
    assert "added: none; retired: none" in garch(*space, "sync")


def test_symbols_outside_the_active_sectors_are_noted(garch: Garch, tmp_path: Path) -> None:
    garch("--workspace", tmp_path / "new", "init")
    text = garch("--workspace", tmp_path / "new", "symbols", "add", "AAPL", "JPM", "SPY")
    assert "note JPM: financial is not active, so kept but not ranked" in text
    assert "note SPY: no sector, so kept but not ranked" in text
    assert "AAPL:" not in text


def test_init_writes_commented_settings_once(garch: Garch, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    first = garch("--workspace", folder, "init")
    settings = folder / "settings.yaml"
    assert str(settings) in first
    assert (folder / "inbox").is_dir()
    lines = settings.read_text("utf-8").splitlines()
    assert all(line.startswith("#") or not line for line in lines)
    uncommented = "\n".join(re.sub(r"^# (?=[a-z ]+\w*:)", "", line) for line in lines[2:])
    settings.write_text(uncommented, "utf-8")
    assert load_settings(folder).model_dump(exclude={"workspace"}) == load_settings(
        tmp_path / "other"
    ).model_dump(exclude={"workspace"})
    again = garch("--workspace", folder, "init")
    assert "kept as it is" in again
    assert settings.read_text("utf-8") == uncommented


def test_report_is_one_file_without_outside_resources(read_only: Path, garch: Garch, tmp_path: Path) -> None:
    text = garch("--workspace", read_only, "report", tmp_path / "deep" / "report.html")
    assert f"report: {tmp_path / 'deep' / 'report.html'}" in text
    page = (tmp_path / "deep" / "report.html").read_text("utf-8")
    assert re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", page) == []
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)
    assert page.count("<img ") == 6
    assert "<h3>Pairs</h3>" in page
    assert "What was rejected, and why" in page


def test_retry_and_stale_say_when_there_is_nothing_to_do(read_only: Path, garch: Garch) -> None:
    assert garch("--workspace", read_only, "retry", "--failed", LAST).strip() == f"no symbol failed on {LAST}"
    assert garch("--workspace", read_only, "stale").strip() == "nothing is stale"


def test_refresh_says_what_is_there(read_only: Path, garch: Garch) -> None:
    text = garch("--workspace", read_only, "refresh")
    assert "0 runs to do, 21 are there already" in text


def test_materialize_one_symbol_again_leaves_the_same_rows(writable: Path, garch: Garch) -> None:
    before = contents(writable)["pair_rankings"]
    text = garch("--workspace", writable, "materialize", "--date", LAST, "--symbols", "KO")
    assert "   1/2  daily_pair_identification_job 2022-12-28, KO" in text
    assert "   2/2  ranking_job 2022-12-28, all" in text
    changing = [
        name
        for name in before.columns
        if name in ("id", "created_at", "updated_at", "lake_version", "computed_at")
    ]
    assert contents(writable)["pair_rankings"].drop(changing).equals(before.drop(changing))


def test_failed_runs_are_named_and_what_builds_on_them_is_counted(garch: Garch, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    garch("--workspace", folder, "init")
    (folder / "settings.yaml").write_text("trading_days: {start: 2024-01-02, end: 2024-01-05}\n", "utf-8")
    (folder / "inbox" / "bars.parquet").write_bytes(b"PAR1 torn")
    garch("--workspace", folder, "symbols", "add", "AAPL")
    error = garch("--workspace", folder, "refresh", code=1)
    assert error.startswith(
        "error GarchPlatformError: 1 of 9 runs failed, and 8 that build on them were left out;"
    )


ERRORS = {
    "reversed": (
        ["materialize", "--start", "2022-12-28", "--end", "2022-12-27"],
        "CalendarError: the range 2022-12-28 to 2022-12-27 is reversed; give the earlier date first",
    ),
    "saturday": (
        ["materialize", "--date", "2022-12-24"],
        "CalendarError: 2022-12-24 is a Saturday on XNYS, not a session; the sessions around it are 2022-12-23 and",
    ),
    "no date": (
        ["materialize"],
        "CalendarError: say which session: --date YYYY-MM-DD, or --start and --end",
    ),
    "two dates": (
        ["materialize", "--date", LAST, "--end", LAST],
        "CalendarError: give either --date or --start and --end, not both",
    ),
    "not a date": (
        ["rank", "--date", "28.12.2022"],
        "CalendarError: '28.12.2022' is not a date; write it as YYYY-MM-DD",
    ),
    "not ranked": (
        ["rank", "--date", "2022-12-01"],
        f"CalendarError: the session 2022-12-01 is not ranked, the last one is {LAST}; run `garch materialize",
    ),
    "unknown symbol": (
        ["materialize", "--date", LAST, "--symbols", "ZZZ"],
        "SymbolError: symbols ZZZ are not registered in this workspace; run `garch symbols add SYMBOL`",
    ),
    "malformed symbol": (
        ["symbols", "add", "nvda"],
        "SymbolError: symbol 'nvda' is malformed; write NVDA",
    ),
    "symbol twice": (
        ["symbols", "add", "NVDA", "NVDA"],
        "SymbolError: symbol NVDA is given twice; name it once",
    ),
    "symbol there": (
        ["symbols", "add", "NVDA", "KO"],
        "SymbolError: symbol KO is already registered in ",
    ),
    "unknown sector": (
        ["symbols", "add", "NVDA", "--sector", "chips"],
        "SymbolError: sector 'chips' is not known; use one of technology, healthcare, financial, ",
    ),
    "remove unknown": (
        ["symbols", "remove", "PEPP"],
        "SymbolError: symbol PEPP is not registered in ",
    ),
    "writing sql": (
        ["sql", "DELETE FROM symbols"],
        "StoreError: DELETE is refused: garch sql only reads; give one SELECT",
    ),
    "unknown table": (
        ["sql", "SELECT * FROM pair_ranking"],
        "StoreError: the query names the table pair_ranking, which does not exist; did you mean pair_rankings",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_values_give_one_message_and_change_nothing(case: str, read_only: Path, garch: Garch) -> None:
    arguments, message = ERRORS[case]
    registry = (read_only / "symbols.yaml").read_bytes()
    error = garch("--workspace", read_only, *arguments, code=1)
    assert error.startswith(f"error {message}")
    assert error.count("\n") == 1
    assert (read_only / "symbols.yaml").read_bytes() == registry


def test_symbol_without_a_known_sector_asks_for_one(garch: Garch, tmp_path: Path) -> None:
    garch("--workspace", tmp_path / "new", "init")
    error = garch("--workspace", tmp_path / "new", "symbols", "add", "AAPL", "ZZZZ", code=1)
    assert error.strip().endswith("say the sector: garch symbols add ZZZZ --sector technology")
    assert not (tmp_path / "new" / "symbols.yaml").exists()


@pytest.mark.parametrize(
    "command", [["status"], ["rank"], ["refresh"], ["symbols", "list"], ["ui"], ["sql", "SELECT 1"]]
)
def test_absent_workspace_is_refused_and_not_created(
    command: list[str], garch: Garch, tmp_path: Path
) -> None:
    error = garch("--workspace", tmp_path / "absent", *command, code=1)
    assert error.startswith(
        f"error ConfigurationError: there is no workspace {tmp_path / 'absent'}; create it with"
    )
    assert not (tmp_path / "absent").exists()


def test_bars_that_end_before_the_window_are_told(garch: Garch, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    garch("--workspace", folder, "init")
    garch("--workspace", folder, "symbols", "add", "AAPL")
    empty = garch("--workspace", folder, "refresh", code=1)
    assert f"the folder {folder / 'inbox'} holds no file that ends in .parquet, .csv, .csv.gz" in empty
    (folder / "inbox" / "AAPL.csv").write_text("date,close\n2020-01-02,75.1\n2020-01-03,74.4\n", "utf-8")
    early = garch("--workspace", folder, "refresh", code=1)
    assert "the last closed session with bars is 2020-01-03, before trading_days.start 2024-01-02" in early


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("GARCH_ENV", "staging", "GARCH_ENV='staging' is not known; use one of dev, test, prod"),
        ("GARCH_FORMATION__SESSIONS", "many", "formation.sessions: Input should be a valid integer"),
        ("GARCH_FORMTION__SESSIONS", "9", "GARCH_FORMTION__SESSIONS names no section of settings"),
    ],
)
def test_wrong_variables_name_themselves(
    variable: str, value: str, message: str, read_only: Path, garch: Garch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    error = garch("--workspace", read_only, "status", code=1)
    assert error.startswith("error ConfigurationError: ")
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ui", "--port", "99999"], "--port"),
        (["bogus"], "No such command 'bogus'"),
        (["rank", "--top", "0"], "--top"),
    ],
)
def test_wrong_options_are_usage_errors(arguments: list[str], message: str, garch: Garch) -> None:
    assert message in garch(*arguments, code=2)


def test_taken_port_is_refused(read_only: Path, garch: Garch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        error = garch("--workspace", read_only, "ui", "--port", str(port), code=1)
    assert error.startswith(
        f"error ConfigurationError: 127.0.0.1:{port} cannot be served (Address already in use)"
    )


@pytest.mark.process
def test_the_installed_command_says_its_version_and_helps() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["garch", *arguments], env=shell_environment(), capture_output=True, text=True, check=False
        )

    assert run("version").stdout == f"{__version__}\n"
    helped = run("--help")
    assert helped.returncode == 0
    assert max(map(len, helped.stdout.splitlines())) <= 80
    for panel in ("Start", "Run", "Look", "Mend"):
        assert f" {panel} " in helped.stdout
    broken = run("--workspace", "/absent", "status")
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 3, ""),
        (0.0, 3, "0.000"),
        (3.3e-8, 3, "3.3e-8"),
        (0.0293, 3, "0.029"),
        (-0.04, 1, "-0.0"),
        (1234.5, 1, "1,234.5"),
    ],
)
def test_numbers_take_few_characters(value: float | None, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_session_dates_are_dates(read_only: Path) -> None:
    assert last_ranking_date(Workspace(load_settings(read_only))) == date(2022, 12, 28)
