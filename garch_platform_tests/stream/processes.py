"""A recycler and a client in processes of their own, for tests that kill them.

``python -m garch_platform_tests.stream.processes server|client FOLDER``: settings come from the folder's
``settings.yaml``, the lake and the database are its own.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import yaml

from garch_platform import stream
from garch_platform.recycler import service
from garch_platform.settings import Settings, load_secrets, load_settings
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform_tests.conftest import shell_environment
from garch_platform_tests.stream.edge import SYMBOLS


def save(settings: Settings) -> None:
    """Write what the processes need of ``settings`` into their folder."""
    content = settings.model_dump(mode="json", include={"universe": {"timeframe"}, "websocket": True})
    (settings.workspace / "settings.yaml").write_text(yaml.safe_dump(content))


def start(role: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start ``server`` or ``client`` on ``folder``; its log goes to ``<role>.log``."""
    log = (folder / f"{role}.log").open("ab")
    command = [sys.executable, "-m", __name__, role, str(folder)]
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=shell_environment())


def main(role: str, folder: Path) -> None:
    """Be the server or the client until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = load_settings(folder)
    if role == "server":
        lake = Lake(folder / "lake", reproducibility_days=400, lock_timeout=20)
        asyncio.run(service.run(service.build(settings, load_secrets(), lake)))
    else:
        database = Database(settings.database_url)
        summary = stream.run(stream.build(settings, load_secrets(), database, SYMBOLS))
        logging.getLogger(__name__).info("summary %s", summary)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
