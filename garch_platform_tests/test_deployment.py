"""The container deployment: what compose.yaml says, and the same commands started without Docker."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from sqlalchemy import create_engine, text

from garch_platform.orchestration.instance import dagster_postgres_url
from garch_platform.settings import Settings
from garch_platform_tests.conftest import free_port

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DEADLINE = timedelta(seconds=150)
"""How long a service may take to become healthy on a busy machine."""


def test_every_service_is_checked_and_restarts() -> None:
    assert SERVICES["init"]["restart"] == "no"
    for service in (service for name, service in SERVICES.items() if name != "init"):
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"


def test_services_wait_for_what_they_need() -> None:
    needs = {
        name: {need: how["condition"] for need, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    assert needs == {
        "postgres": {},
        "init": {"postgres": "service_healthy"},
        "code": {"init": "service_completed_successfully"},
        "webserver": {"code": "service_healthy"},
        "daemon": {"code": "service_healthy"},
    }


def test_secrets_come_from_the_environment_only() -> None:
    text = (ROOT / "docker" / "compose.yaml").read_text("utf-8")
    passwords = re.findall(r"(?:PASSWORD: |garch:)(.+?)(?=@|$)", text, re.MULTILINE)
    assert len(passwords) == 3
    assert all(re.fullmatch(r"\$\{POSTGRES_PASSWORD(:\?[^}]+)?\}", password) for password in passwords)
    assert "PASSWORD" not in (ROOT / "docker" / "Dockerfile").read_text("utf-8")


def test_stores_have_a_database_each_and_the_right_driver() -> None:
    variables = SERVICES["code"]["environment"]
    assert variables["DAGSTER_POSTGRES_URL"].startswith("postgresql+psycopg2://")
    assert variables["DAGSTER_POSTGRES_URL"].endswith("@postgres:5432/dagster")
    assert variables["GARCH_STORAGE__DATABASE_URL"].startswith("postgresql+psycopg://")
    assert variables["GARCH_STORAGE__DATABASE_URL"].endswith(
        "/" + SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    )
    assert "CREATE DATABASE dagster;" in (ROOT / "docker" / "create_databases.sql").read_text("utf-8")


def test_only_the_webserver_is_reached_and_only_from_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"webserver": ["127.0.0.1:3000:3000"]}


def test_variables_of_the_platform_are_settings() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text("utf-8")
    named = set(re.findall(r"\bGARCH_(\w+)=", dockerfile)) | {
        name.removeprefix("GARCH_") for name in SERVICES["code"]["environment"] if name.startswith("GARCH_")
    }
    sections = {name.partition("__")[0].lower() for name in named} - {"env", "config"}
    assert sections == {"storage", "workspace"}
    assert sections <= set(Settings.model_fields)


def test_image_copies_what_the_build_context_lets_in() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text("utf-8")
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")
    }
    copied = {
        name for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE) for name in line.split()[:-1]
    }
    assert copied == allowed
    assert "USER garch" in dockerfile
    assert "DAGSTER_HOME=/var/lib/garch/dagster" in dockerfile
    assert "GARCH_WORKSPACE=/var/lib/garch\n" in dockerfile


@dataclass
class Deployment:
    """The services' own commands on free loopback ports of this machine."""

    folder: Path
    environment: dict[str, str]
    code_port: int
    web_port: int

    def command(self, words: list[str]) -> list[str]:
        """A command of compose.yaml with this machine's program, host and ports."""
        local = {
            "0.0.0.0": "127.0.0.1",  # noqa: S104
            "4000": str(self.code_port),
            "3000": str(self.web_port),
            "docker/workspace.yaml": str(self.folder / "workspace.yaml"),
        }
        program = sys.executable if words[0] == "python" else str(Path(sys.executable).parent / words[0])
        return [
            program,
            *(local.get(word, word.replace(":3000/", f":{self.web_port}/")) for word in words[1:]),
        ]

    def write_workspace(self) -> None:
        """docker/workspace.yaml with this machine's host and port."""
        workspace = yaml.safe_load((ROOT / "docker" / "workspace.yaml").read_text("utf-8"))
        (location,) = workspace["load_from"]
        assert (location["grpc_server"]["host"], location["grpc_server"]["port"]) == ("code", 4000)
        location["grpc_server"] |= {"host": "127.0.0.1", "port": self.code_port}
        (self.folder / "workspace.yaml").write_text(yaml.safe_dump(workspace), "utf-8")

    def initialise(self) -> None:
        """Run the service that prepares the stores, to its end."""
        done = subprocess.run(
            self.command(SERVICES["init"]["command"]),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start service ``name`` in a process group of its own."""
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                self.command(SERVICES[name]["command"]),
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_healthy(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until the service's health check passes; it is not tried before its port answers."""
        end = datetime.now(UTC) + DEADLINE
        port = {"code": self.code_port, "webserver": self.web_port}.get(name)
        check = self.command(SERVICES[name]["healthcheck"]["test"][1:])
        while (port is not None and not listens(port)) or subprocess.run(
            check, cwd=ROOT, env=self.environment, capture_output=True, check=False
        ).returncode:
            log = (self.folder / f"{name}.log").read_text("utf-8")[-3000:]
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{log}"
            assert datetime.now(UTC) < end, f"{name} is not healthy after {DEADLINE}:\n{log}"
            time.sleep(0.2)

    def graphql(self, query: str) -> dict[str, Any]:
        """Ask the webserver."""
        request = Request(
            f"http://127.0.0.1:{self.web_port}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=60) as answer:  # noqa: S310
            data: dict[str, Any] = json.load(answer)["data"]
        return data


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of this machine."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def stop(process: subprocess.Popen[bytes]) -> int:
    """End a service as its container is ended, by SIGTERM; return its exit status."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


@pytest.fixture
def deployment(postgres_url: str, tmp_path: Path) -> Iterator[Deployment]:
    """The deployment's environment on two fresh PostgreSQL databases, nothing started yet."""
    admin = create_engine(dagster_postgres_url(postgres_url), isolation_level="AUTOCOMMIT")
    names = ["deployment_dagster", "deployment_garch"]
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name}"))
    urls = [admin.url.set(drivername="postgresql", database=name) for name in names]
    dagster_url, garch_url = (url.render_as_string(hide_password=False) for url in urls)
    home = tmp_path / "workspace"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GARCH_", "PYTEST_"))},
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_POSTGRES_URL": dagster_postgres_url(dagster_url),
        "GARCH_ENV": "prod",
        "GARCH_STORAGE__DATABASE_URL": garch_url,
        "GARCH_WORKSPACE": str(home),
    }
    built = Deployment(tmp_path, environment, free_port(), free_port())
    built.write_workspace()
    yield built
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_services_start_answer_and_end(deployment: Deployment) -> None:
    """init prepares both stores, each health check passes, the webserver sees the code, SIGTERM ends all."""
    deployment.initialise()
    home = Path(deployment.environment["DAGSTER_HOME"])
    assert (home / "dagster.yaml").read_bytes() == (ROOT / "docker" / "dagster.yaml").read_bytes()
    started: dict[str, subprocess.Popen[bytes]] = {}
    ended: dict[str, int] = {}
    try:
        for together in (("code",), ("webserver", "daemon")):
            for name in together:
                started[name] = deployment.start(name)
            for name in together:
                deployment.wait_until_healthy(name, started[name])
        seen = deployment.graphql(
            "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus locationOrLoadError"
            " { __typename ... on PythonError { message } } } } }"
            " assetNodes { assetKey { path } }"
            " instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
        )
    finally:
        ended = {name: stop(process) for name, process in reversed(started.items())}
    (location,) = seen["workspaceOrError"]["locationEntries"]
    assert location["name"] == "garch_platform"
    assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location
    assets = {node["assetKey"]["path"][-1] for node in seen["assetNodes"]}
    assert {"raw_bars", "features", "stability", "garch_models", "pair_rankings"} <= assets
    daemons = seen["instance"]["daemonHealth"]["allDaemonStatuses"]
    assert {one["daemonType"]: one["healthy"] for one in daemons if one["required"]}.get("SCHEDULER") is True
    assert set(ended.values()) <= {0, -signal.SIGTERM}, ended
