"""Workspaces that were filled once and are copied for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from garch_platform import cli
from garch_platform.orchestration.launch import Launcher
from garch_platform_tests.orchestration import last_session, small_market


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the shell reaches a test, and none that a launcher sets leaves it."""
    for name in [*os.environ]:
        if name.startswith(("GARCH_", "DAGSTER_HOME", "DAGSTER_POSTGRES")):
            monkeypatch.delenv(name)
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture(autouse=True)
def blank_pictures() -> Iterator[None]:
    """No test's own runs turn their plots into pixels; fixtures of a wider scope do, and test_pipeline.py looks."""
    with small_market.blank_pictures():
        yield


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> last_session.Once:
    """Build a folder once for all workers of pytest-xdist: ``once("name", build)`` gives its path."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build_once(name: str, build: Callable[[Path], object]) -> Path:
        folder, built = shared / name, shared / f"{name}.built"
        with FileLock(shared / f"{name}.lock"):
            if not built.exists():
                build(folder)
                built.touch()
        return folder

    return build_once


@pytest.fixture(scope="session")
def market_template(once: last_session.Once) -> Path:
    """The small market with all its days. Copy it; never run in it."""

    def build(folder: Path) -> None:
        opened = small_market.launcher(small_market.create(folder, small_market.daily_bars()))
        small_market.fill(opened)
        opened.instance.dispose()
        opened.workspace.database.dispose()

    return once("daily", build)


@pytest.fixture
def market(market_template: Path, tmp_path: Path) -> Iterator[Launcher]:
    """A launcher of a filled workspace of the test's own."""
    opened = small_market.launcher(small_market.copy_workspace(market_template, tmp_path / "market"))
    yield opened
    opened.instance.dispose()
    opened.workspace.database.dispose()


@pytest.fixture(scope="session")
def eve_template(once: last_session.Once) -> Path:
    """The nine symbols before their last session. Copy it; never run in it."""
    return once("eve", last_session.create)


@pytest.fixture(scope="session")
def undisturbed(once: last_session.Once, eve_template: Path) -> last_session.Rows:
    """What the stores hold when the last session was run on sound input."""

    def build(folder: Path) -> None:
        opened = last_session.memory_launcher(small_market.copy_workspace(eve_template, folder / "market"))
        assert all(one.success for one in last_session.run_day(opened))
        last_session.save(last_session.contents(opened), folder / "rows")
        last_session.close(opened)

    return last_session.saved(once("undisturbed", build) / "rows")


@pytest.fixture
def eve(eve_template: Path, tmp_path: Path) -> Iterator[Launcher]:
    """A launcher of a workspace of the test's own that stands before its last session."""
    opened = last_session.launcher(small_market.copy_workspace(eve_template, tmp_path / "eve"))
    yield opened
    last_session.close(opened)


@pytest.fixture
def quick_eve(eve_template: Path, tmp_path: Path) -> Iterator[Launcher]:
    """The same, with its runs and events in memory."""
    opened = last_session.memory_launcher(small_market.copy_workspace(eve_template, tmp_path / "eve"))
    yield opened
    last_session.close(opened)


@pytest.fixture
def garch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> last_session.Garch:
    """The command line, in this process: ``garch(launcher, "retry", ...)`` gives what it prints, on one line.

    A deliberate error is given in its place as ``error NAME: message``.
    """

    def run(opened: Launcher, *arguments: str) -> str:
        folder = str(opened.workspace.settings.workspace)
        monkeypatch.setattr("sys.argv", ["garch", "--workspace", folder, *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert ended.value.code == (1 if printed.err else 0)
        return " ".join((printed.err or printed.out).split())

    return run


@pytest.fixture
def forgetful(market_template: Path, tmp_path: Path) -> Iterator[Launcher]:
    """A launcher of a filled workspace of the test's own that keeps its runs and events in memory."""
    opened = small_market.memory_launcher(small_market.copy_workspace(market_template, tmp_path / "market"))
    yield opened
    opened.instance.dispose()
    opened.workspace.database.dispose()
