"""``garch ui``: Dagster's webserver and daemon as child processes of this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from garch_platform.errors import ConfigurationError
from garch_platform.orchestration.launch import Launcher

__all__ = ["require_free_port", "serve", "serve_command"]


def require_free_port(host: str, port: int) -> None:
    """Refuse an address on which nothing can be served.

    Raises:
        ConfigurationError: the port is taken, or the host is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be served ({error.strerror}); end the program that has the port "
            "(perhaps another `garch ui`), or choose another one: garch ui --port N"
        ) from None


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
    # In a session of its own, so that Ctrl-C reaches it once, through this process.
    process = subprocess.Popen(serve_command(host, port), env=environment, start_new_session=True)  # noqa: S603

    def stop(_signal: int, _frame: object) -> None:
        process.send_signal(signal.SIGINT)

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    return process.wait()
