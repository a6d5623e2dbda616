"""``garch ui``: Dagster's webserver and daemon as child processes of this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from garch_platform.orchestration.launch import Launcher

__all__ = ["serve", "serve_command"]

GRACE_SECONDS = 20


def serve_command(host: str, port: int) -> list[str]:
    """The command that serves the code location on ``host``:``port``."""
    return [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "--module-name",
        "garch_platform.definitions",
        "--host",
        host,
        "--port",
        str(port),
    ]


def serve(launcher: Launcher, *, host: str, port: int) -> int:
    """Serve until interrupted; return the exit status of the children."""
    instance = launcher.instance
    environment = os.environ | {
        "DAGSTER_HOME": str(instance.root_directory),
        "GARCH_WORKSPACE": str(launcher.workspace.settings.workspace),
    }
    process = subprocess.Popen(serve_command(host, port), env=environment)  # noqa: S603

    def stop(_signal: int, _frame: object) -> None:
        process.send_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, stop)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        return process.wait(GRACE_SECONDS)
