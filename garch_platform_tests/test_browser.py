"""The demo's workspace in a real browser: Dagster's pages load, name the assets and show their plots.

``GARCH_SCREENSHOTS=docs pytest garch_platform_tests/test_browser.py`` renews the pictures of README.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from garch_platform_tests.conftest import free_port, shell_environment

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GROUPS = ("bars", "features", "models", "pairs")
ASSETS = (
    "bar_history",
    "raw_bars",
    "feature_history",
    "features",
    "stability",
    "garch_models",
    "pair_rankings",
    "scan_ledger",
)
PICTURES = ("lineage", "partitions", "report")
"""Screenshots that README.md shows."""

SERVER_DEADLINE = timedelta(seconds=120)
PAGE_DEADLINE_MS = 60_000
expect.set_options(timeout=PAGE_DEADLINE_MS)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium browser is installed"),
]


@pytest.fixture(scope="module")
def url(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `garch ui` on a copy of the demo's real market."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copytree(demo_root / "demo-real", folder / "demo-real")
    port = free_port()
    with (folder / "ui.log").open("wb") as log:
        process = subprocess.Popen(
            ["garch", "--workspace", str(folder / "demo-real"), "ui", "--port", str(port)],
            env=shell_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_served(address, process, folder / "ui.log")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_served(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = datetime.now(UTC) + SERVER_DEADLINE
    while True:
        try:
            urlopen(f"{address}/server_info", timeout=5).close()  # noqa: S310
        except (URLError, ConnectionError):
            assert datetime.now(UTC) < end, f"no answer within {SERVER_DEADLINE}:\n{log.read_text()[-2000:]}"
        else:
            return
        try:
            process.wait(timeout=0.3)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"garch ui ended with {process.returncode}:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One headless Chromium for the module."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which no script may fail."""
    opened = browser.new_page(viewport={"width": 1600, "height": 760})
    opened.set_default_timeout(PAGE_DEADLINE_MS)
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on("console", lambda line: failures.append(line.text) if line.type == "error" else None)
    yield opened
    opened.close()
    assert failures == []


@pytest.fixture
def keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Page, str, float], None]:
    """Save a screenshot and print how long its page took."""
    wanted = os.environ.get("GARCH_SCREENSHOTS")

    def save(page: Page, name: str, began: float) -> None:
        folder = Path(wanted) if wanted and name in PICTURES else tmp_path
        with capsys.disabled():
            print(f"\n{name}: {time.monotonic() - began:.1f} s")
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", animations="disabled")
        assert (folder / f"{name}.png").stat().st_size > 20_000

    return save


def node(page: Page, name: str) -> Locator:
    """A group or asset drawn in the graph."""
    return page.locator("svg foreignObject").get_by_text(name, exact=True).first


def test_lineage_page_names_every_asset(
    url: str, page: Page, keep: Callable[[Page, str, float], None]
) -> None:
    began = time.monotonic()
    page.goto(f"{url}/asset-groups")
    for group in GROUPS:
        expect(node(page, group)).to_be_visible()
    expect(node(page, "garch_models")).to_have_count(0)
    node(page, "models").click()
    expect(node(page, "garch_models")).to_be_visible()

    page.set_viewport_size({"width": 2300, "height": 1250})
    page.get_by_text("Hide navigation").click()
    expanded = "%2C".join(f"global%40global%3A{group}" for group in GROUPS)
    page.goto(f"{url}/asset-groups?expanded={expanded}")
    for asset in ASSETS:
        expect(node(page, asset)).to_be_visible()
    expect(page.get_by_text("220 partitions")).to_have_count(4)
    expect(page.get_by_text("22 partitions", exact=True)).to_have_count(2)
    expect(page.get_by_text("100% filled")).to_have_count(4)
    keep(page, "lineage", began)


def test_partitions_page_shows_symbols_by_days(
    url: str, page: Page, keep: Callable[[Page, str, float], None]
) -> None:
    began = time.monotonic()
    page.goto(f"{url}/assets/stability?view=partitions")
    for text in ("2022-12-14", "2022-12-28", "AAPL", "KO"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    expect(page.get_by_text("Materialized (200)")).to_be_visible()
    expect(page.get_by_text("Failed (0)")).to_be_visible()
    page.get_by_text("2022-12-27", exact=True).first.click()
    page.get_by_text("KO", exact=True).first.click()
    expect(page.get_by_text("2022-12-27|KO").first).to_be_visible()
    expect(page.get_by_text("Materialized", exact=True)).to_be_visible()
    expect(page.get_by_text("lake_version_read")).to_be_visible()
    keep(page, "partitions", began)


@pytest.mark.parametrize("asset", ["features", "stability", "garch_models", "pair_rankings"])
def test_materialisation_shows_its_plot(
    asset: str, url: str, page: Page, keep: Callable[[Page, str, float], None]
) -> None:
    began = time.monotonic()
    page.goto(f"{url}/assets/{asset}?view=events")
    page.get_by_text("[Show Markdown]").first.click()
    plot = page.locator("img[src^='data:image/png']").first
    expect(plot).to_be_visible()
    width, height = plot.evaluate("picture => [picture.naturalWidth, picture.naturalHeight]")
    assert (width, height) == (520, 260)
    keep(page, f"plot_{asset}", began)


def test_checks_of_an_asset_are_listed(
    url: str, page: Page, keep: Callable[[Page, str, float], None]
) -> None:
    began = time.monotonic()
    page.goto(f"{url}/assets/raw_bars?view=checks")
    for check in ("batch_quality", "duplicates", "gaps", "outliers"):
        expect(page.get_by_text(check, exact=True).first).to_be_visible()
    keep(page, "checks", began)


def test_report_needs_nothing_from_outside(
    demo_root: Path, page: Page, keep: Callable[[Page, str, float], None]
) -> None:
    began = time.monotonic()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.split(":")[0]))
    page.goto((demo_root / "report.html").as_uri())
    pictures = page.locator("img").evaluate_all("all => all.map(picture => picture.naturalWidth)")
    assert len(pictures) == 12
    assert min(pictures) > 300
    assert set(asked) <= {"file", "data"}
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0
    keep(page, "report", began)
