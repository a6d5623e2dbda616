"""Every command of README.md runs, its tables are those of the code, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from garch_platform.settings import Settings, load_settings
from garch_platform_tests import readme_tables
from garch_platform_tests.architecture import ALLOWED
from garch_platform_tests.conftest import free_port, shell_environment

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = SHELL.findall(TEXT)
COPIED = (
    "Makefile",
    "config",
    "constraints.txt",
    "dagster.yaml",
    "docker",
    "pyproject.toml",
    "workspace.yaml",
)
SERVING = "make ui\n"
NOT_RUN = {
    "make test\n": "it is what runs this test",
    "POSTGRES_PASSWORD=letters4nd1gits docker compose -f docker/compose.yaml up --build --detach\n": (
        "test_deployment.py starts the same services with the same commands, without Docker"
    ),
}
DEADLINE = timedelta(seconds=240)


def project(folder: Path) -> None:
    """A fresh clone in ``folder``, whose .venv is this Python's, marked as installed."""
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    environment = Path(sys.executable).parent.parent
    (folder / ".venv").mkdir()
    for entry in environment.iterdir():
        if entry.name != ".installed":
            (folder / ".venv" / entry.name).symlink_to(entry)
    (folder / ".venv" / ".installed").touch()


def run(block: str, folder: Path) -> str:
    """What a block of commands prints."""
    environment = shell_environment(
        GARCH_CONFIG=str(folder / "config"),
        GARCH_WEBSOCKET__RECYCLER__SERVER_URL=f"ws://127.0.0.1:{free_port()}",
    )
    with (folder / "printed.txt").open("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout=DEADLINE.total_seconds())
        finally:
            end(process)
        printed.seek(0)
        text = printed.read()
    assert process.returncode == 0, f"{block}\nended with {process.returncode}:\n{text[-3000:]}"
    return text


def end(process: subprocess.Popen[bytes], received: int = signal.SIGKILL) -> None:
    """End a shell and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, received)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def serve(block: str, folder: Path) -> str:
    """Start a command that goes on until it is interrupted; return the page that it serves."""
    port = free_port()
    environment = shell_environment(GARCH_CONFIG=str(folder / "config"), GARCH_UI_PORT=str(port))
    with (folder / "serving.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", block],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return wait_for_page(f"http://127.0.0.1:{port}/", process)
    finally:
        end(process, signal.SIGINT)


def wait_for_page(url: str, process: subprocess.Popen[bytes]) -> str:
    end = datetime.now(UTC) + DEADLINE
    while True:
        try:
            with urlopen(url, timeout=5) as answer:  # noqa: S310
                return str(answer.read().decode())
        except (URLError, ConnectionError):
            assert datetime.now(UTC) < end, f"{url} does not answer within {DEADLINE}"
        try:
            process.wait(timeout=0.3)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"the server of {url} ended with {process.returncode}")


def blocks(*chapters: str) -> list[str]:
    """The shell commands of some chapters, but for those that are not run."""
    texts = [text for text in re.split(r"^## ", TEXT, flags=re.MULTILINE) if text.startswith(chapters)]
    assert len(texts) == len(chapters)
    return [block for text in texts for block in SHELL.findall(text) if block not in NOT_RUN]


@pytest.fixture
def clone(demo_root: Path, tmp_path: Path) -> Path:
    """A fresh clone in which the demo has run."""
    project(tmp_path)
    shutil.copytree(demo_root, tmp_path / ".garch")
    return tmp_path


RUN_BY = {
    "test_make": ("Two commands",),
    "test_own_bars_and_a_scan_of_them": ("Your own bars", "A scan without a workspace"),
    "test_live_edge": ("The live edge",),
    "test_questions": ("Questions",),
}
"""The chapters whose commands each of the next tests runs, in their order, in a clone of its own."""


@pytest.mark.process
def test_every_command_is_run_by_a_test() -> None:
    ran = [block for chapters in RUN_BY.values() for block in blocks(*chapters)]
    assert sorted([*ran, *NOT_RUN]) == sorted(BLOCKS)
    assert all(callable(globals()[name]) for name in RUN_BY)


@pytest.mark.slow
@pytest.mark.process
def test_make(clone: Path) -> None:
    demo, ui = blocks(*RUN_BY["test_make"])
    assert "nothing to run: everything is there already" in run(demo, clone)
    assert ui == SERVING
    assert "dagster" in serve(ui, clone).lower()


@pytest.mark.slow
@pytest.mark.process
def test_own_bars_and_a_scan_of_them(clone: Path) -> None:
    chapters = blocks(*RUN_BY["test_own_bars_and_a_scan_of_them"])
    read, mine, scanned = (run(block, clone) for block in chapters)
    assert "ticker,day,last\nCVX,2018-01-02," in read
    assert "5 runs in" in mine
    assert "Pairs of 2022-12-28" in mine
    assert "15 pairs" in mine
    assert "closes.csv: 4 symbols" in scanned
    assert (clone / "scan.html").is_file()


@pytest.mark.slow
@pytest.mark.process
def test_live_edge(clone: Path) -> None:
    replayed, served = (run(block, clone) for block in blocks(*RUN_BY["test_live_edge"]))
    assert "status complete" in " ".join(replayed.split())
    assert re.search(r"^SIM01 +389 ", replayed, re.MULTILINE)
    assert re.search(r"^session +2024-03-27", served, re.MULTILINE)
    assert re.search(r"^connected +yes", served, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.process
def test_questions(clone: Path) -> None:
    asked, again = (run(block, clone) for block in blocks(*RUN_BY["test_questions"]))
    assert re.search(r"^AAPL +True", asked, re.MULTILINE)
    assert (clone / "closer_look.html").is_file()
    assert (clone / "pairs.csv").read_text("utf-8").startswith("symbol_1,symbol_2,score\n")
    assert "nothing is stale" in again


def test_what_is_not_run_is_named_with_a_reason() -> None:
    assert set(NOT_RUN) <= set(BLOCKS)
    assert SERVING in BLOCKS
    assert len(BLOCKS) == len(set(BLOCKS)) == 11
    fences = set(re.findall(r"^```(\w+)", TEXT, re.MULTILINE))
    assert fences == {"mermaid", "sh", "yaml"}, "a shell command outside ```sh is run by nobody"


def test_generated_tables_are_up_to_date() -> None:
    assert readme_tables.written(TEXT) == TEXT, "run python -m garch_platform_tests.readme_tables"


def test_packages_are_listed_from_the_ground_up() -> None:
    table = TEXT.partition("## The code")[2].partition("\n## ")[0]
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines() if row.startswith("| `")]
    listed = [name for row in rows for name in row]
    found = {path.stem for path in (ROOT / "garch_platform").iterdir() if path.suffix in ("", ".py")}
    assert sorted(listed) == sorted(
        found - {"__init__", "__main__", "__pycache__", "definitions", "templates"}
    )
    above: set[str] = set()
    for row in rows:
        above.update(row)
        for name in row:
            assert ALLOWED[name] & set(listed) <= above, name


def test_settings_table_has_every_setting_and_its_default() -> None:
    base = yaml.safe_load((ROOT / "config" / "base.yaml").read_text("utf-8"))
    listed = {name: (yaml.safe_load(value), meaning) for name, value, meaning in readme_tables.settings()}

    def leaf(name: str) -> object:
        value: object = base
        for part in name.split("."):
            assert isinstance(value, dict)
            value = value[part]
        return value

    assert {name: leaf(name) for name in listed} == {name: value for name, (value, _) in listed.items()}
    sections = {name.split(".")[0] for name in listed}
    assert sections == set(Settings.model_fields)
    assert [name for name, (_, meaning) in listed.items() if not meaning] == []


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
def test_settings_shown_are_valid(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("GARCH_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text(block, "utf-8")
    taken = load_settings(tmp_path).model_dump(mode="json")
    for section, values in yaml.load(block, yaml.BaseLoader).items():  # noqa: S506 - texts, as written
        for name, value in values.items():
            assert str(taken[section][name]) == str(value) or taken[section][name] == value, (section, name)


def test_messages_of_troubleshooting_are_those_of_the_code() -> None:
    sources = [*(ROOT / "garch_platform").rglob("*.py"), ROOT / "Makefile"]
    code = "\n".join(path.read_text("utf-8") for path in sources)
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    table = TEXT.partition("## Troubleshooting")[2].partition("\n## ")[0]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) >= 10
    assert [message for message in messages if message not in joined] == []


def test_links_lead_to_files() -> None:
    targets = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert {"docs/lineage.png", "docs/partitions.png", "LICENSE"} <= set(targets)
    assert [link for link in targets if not (ROOT / link).is_file()] == []
    assert len(TEXT.partition("## Two commands")[0].strip().splitlines()) == 5
