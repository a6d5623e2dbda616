"""Workspaces that were refreshed once and are copied for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from garch_platform.orchestration.launch import Launcher
from garch_platform_tests.orchestration import small_market


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


@pytest.fixture(scope="session")
def market_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small market, refreshed. Copy it; never run in it."""
    folder = small_market.create(tmp_path_factory.mktemp("template") / "daily", small_market.daily_bars())
    opened = small_market.launcher(folder)
    small_market.refresh(opened)
    opened.instance.dispose()
    opened.workspace.database.dispose()
    return folder


@pytest.fixture
def market(market_template: Path, tmp_path: Path) -> Iterator[Launcher]:
    """A launcher of a refreshed workspace of the test's own."""
    opened = small_market.launcher(small_market.copy_workspace(market_template, tmp_path / "market"))
    yield opened
    opened.instance.dispose()
    opened.workspace.database.dispose()
