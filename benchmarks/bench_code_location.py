"""Load time of the code location and of Dagster's pages with many partition keys.

    python benchmarks/bench_code_location.py [--symbols 500] [--sessions 200] [--browser chromium]

Every key of the symbol x trading day assets is recorded as materialised. Then: the import of the definitions
in a new process, what the code server does (`dg.Definitions` to repository), and, with a webserver on a free
port, the partition states of an asset over GraphQL, and its pages in a headless browser where one is named.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import dagster as dg
import polars as pl
import yaml

from garch_platform.orchestration.launch import Launcher
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace

LAST = date(2024, 12, 30)
ASSETS = ("raw_bars", "features", "stability", "garch_models")
KEYS_QUERY = """
query Keys($asset: AssetKeyInput!) { assetNodeOrError(assetKey: $asset) { ... on AssetNode {
  partitionStats { numMaterialized numPartitions }
  partitionKeysByDimension { name partitionKeys }
  assetPartitionStatuses { ... on MultiPartitionStatuses { ranges { primaryDimStartKey } } } } } }
"""
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print the wall-clock time of the block."""
    started = time.perf_counter()
    yield
    print(f"{name:<58} {time.perf_counter() - started:8.2f} s", flush=True)


def fill(folder: Path, symbols: int, sessions: int) -> Launcher:
    """A workspace of ``symbols`` over ``sessions`` days, with every key recorded as materialised."""
    workspace = Workspace(load_settings(folder))
    days = workspace.calendar.sessions(workspace.calendar.window_start(LAST, sessions), LAST)
    window = {"start": days[0], "end": days[-1], "max_keys": 1_000_000}
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text(yaml.safe_dump({"trading_days": window}), "utf-8")
    workspace = Workspace(load_settings(folder))
    names = [f"S{number:03d}" for number in range(symbols)]
    registry = pl.DataFrame({"symbol": names}).with_columns(
        sector=pl.lit("technology"), asset_class=pl.lit("equity")
    )
    workspace.registry.write_new(registry)
    launcher = Launcher(workspace)
    launcher.prepare()
    keys = [f"{day}|{name}" for day in days for name in names]
    for asset in ASSETS:
        record(launcher, asset, keys)
    return launcher


def record(launcher: Launcher, asset: str, keys: list[str]) -> None:
    """Record ``keys`` of ``asset`` as materialised: the first by Dagster, the others as copies of its row.

    Dagster's own way takes 16 to 40 ms a key on SQLite; what the pages read of an event is its key.
    """
    day, _, name = keys[0].partition("|")
    first = dg.MultiPartitionKey({"date": day, "symbol": name})
    launcher.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=first))
    path = launcher.workspace.settings.dagster_home / "history" / "runs" / "index.db"
    with sqlite3.connect(path) as events:
        events.row_factory = sqlite3.Row
        where = "asset_key = ? AND partition = ? AND dagster_event_type = 'ASSET_MATERIALIZATION'"
        row = dict(
            events.execute(f"SELECT * FROM event_logs WHERE {where}", (f'["{asset}"]', keys[0])).fetchone()  # noqa: S608
        )
        del row["id"]
        columns = ", ".join(row)
        rows = [
            tuple(
                key if column == "partition" else copied(value, keys[0], key) for column, value in row.items()
            )
            for key in keys[1:]
        ]
        places = ", ".join("?" * len(row))
        events.executemany(f"INSERT INTO event_logs ({columns}) VALUES ({places})", rows)  # noqa: S608


def copied(value: Any, old: str, new: str) -> Any:
    """``value`` of an event's column with the key ``new`` in the place of ``old``."""
    return value.replace(old, new) if isinstance(value, str) else value


def probe(folder: Path) -> None:
    """Time the definitions in this process, which has imported nothing yet but what this script needs."""
    from garch_platform.orchestration.code_location import CodeLocation

    workspace = Workspace(load_settings(folder))
    with timed("definitions built and resolved to a repository"):
        repository = CodeLocation(workspace).definitions.get_repository_def()
    with timed("partition keys of one asset listed"):
        graph = repository.asset_graph
        partitions = graph.get(dg.AssetKey("features")).partitions_def
        instance = dg.DagsterInstance.from_config(str(workspace.settings.dagster_home))
        assert partitions is not None
        count = len(partitions.get_partition_keys(dynamic_partitions_store=instance))
    print(f"{'keys of one asset':<58} {count:>8,}")


def ask(address: str, query: str, **variables: Any) -> dict[str, Any]:
    """One GraphQL request."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = Request(f"{address}/graphql", data=body, headers={"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request, timeout=300) as answer:  # noqa: S310
        data: dict[str, Any] = json.load(answer)["data"]
    return data


@contextmanager
def webserver(folder: Path) -> Iterator[str]:
    """Dagster's webserver alone on a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = os.environ | {"DAGSTER_HOME": str(folder / "dagster"), "GARCH_WORKSPACE": str(folder)}
    command = ["-m", "dagster_webserver", "-m", "garch_platform.definitions", "-p", str(port)]
    log = (folder / "webserver.log").open("wb")
    process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        with timed("webserver and code server answer"):
            while True:
                try:
                    ask(address, "{ version }")
                    break
                except (URLError, ConnectionError):
                    assert process.poll() is None, (folder / "webserver.log").read_text()[-2000:]
                    time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()
        log.close()


def browse(address: str, program: str, materialized: int) -> None:
    """Time the asset's pages in a headless browser, each on a new page."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        pages = {
            "lineage page": ("asset-groups", "models"),
            "asset overview page": ("assets/features", "Description"),
            "asset partitions page": ("assets/features?view=partitions", f"Materialized ({materialized})"),
            "asset partitions page again": (
                "assets/features?view=partitions",
                f"Materialized ({materialized})",
            ),
        }
        for name, (path, text) in pages.items():
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            with timed(name):
                page.goto(f"{address}/{path}")
                expect(page.get_by_text(text).first).to_be_visible(timeout=300_000)
            page.close()
        browser.close()


def main() -> None:
    """Fill a workspace in a temporary folder and time what stands in front of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--browser", help="path of a Chromium")
    parser.add_argument("--workspace", type=Path, help="keep the workspace here, and use it if it is filled")
    parser.add_argument("--probe", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.probe:
        probe(chosen.probe)
        return
    with tempfile.TemporaryDirectory(prefix="garch_code_location_") as temporary:
        folder = chosen.workspace or Path(temporary) / "workspace"
        keys = chosen.symbols * chosen.sessions
        if not folder.exists():
            with timed(f"{keys * len(ASSETS):,} keys of {len(ASSETS)} assets recorded"):
                fill(folder, chosen.symbols, chosen.sessions)
        environment = os.environ | {"GARCH_WORKSPACE": str(folder), "DAGSTER_HOME": str(folder / "dagster")}
        with timed("new process: import garch_platform.definitions"):
            subprocess.run(
                [sys.executable, "-c", "import garch_platform.definitions"], env=environment, check=True
            )
        subprocess.run([sys.executable, __file__, "--probe", str(folder)], env=environment, check=True)
        with webserver(folder) as address:
            with timed("GraphQL: partition states of one asset"):
                node = ask(address, KEYS_QUERY, asset={"path": ["features"]})["assetNodeOrError"]
            print(f"{'materialised keys of one asset':<58} {node['partitionStats']['numMaterialized']:>8,}")
            if chosen.browser:
                browse(address, chosen.browser, keys)


if __name__ == "__main__":
    main()
