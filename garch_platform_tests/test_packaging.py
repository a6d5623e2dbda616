"""The project's own files agree with one another: packages, pins, targets, hooks, data."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import garch_platform
from garch_platform_tests.architecture import PACKAGE, package_modules

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
DEPENDENCIES = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(text) for text in PROJECT["project"]["optional-dependencies"]["dev"]]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GARCH_", "MAKE"))}
    environment = {**inherited, **variables}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("requirement", [*DEPENDENCIES, *DEVELOPMENT], ids=lambda one: one.name)
def test_every_requirement_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_installed_set_is_the_pinned_one() -> None:
    installed = {
        canonicalize_name(distribution.metadata["Name"]): Version(distribution.version)
        for distribution in metadata.distributions()
    }
    pinned = pins()
    different = {
        name: (str(version), str(installed[name]))
        for name, version in pinned.items()
        if name in installed and installed[name] != version
    }
    assert different == {}, "pinned and installed differ; run `make venv`"
    assert {canonicalize_name(one.name) for one in [*DEPENDENCIES, *DEVELOPMENT]} <= set(installed)


def test_dagster_libraries_are_of_one_release() -> None:
    """Release 1.x.y of dagster goes with 0.(x+16).y of its integrations."""
    core, integration = pins()["dagster"], pins()["dagster-postgres"]
    assert (integration.minor, integration.micro) == (core.minor + 16, core.micro)
    assert {pins()[name] for name in ("dagster-graphql", "dagster-pipes", "dagster-webserver")} == {core}


def test_every_import_is_a_declared_dependency() -> None:
    providers = metadata.packages_distributions()
    declared = {canonicalize_name(one.name) for one in DEPENDENCIES}
    undeclared = {
        f"{module.path}:{line}: {name}"
        for module in package_modules().values()
        for line, name in module.imports
        if (top := name.partition(".")[0]) not in {PACKAGE, *sys.stdlib_module_names}
        and not declared & {canonicalize_name(provider) for provider in providers.get(top, [])}
    }
    assert undeclared == set()


def test_every_folder_of_code_is_a_package() -> None:
    """setuptools leaves out a folder without __init__.py."""
    folders = {path.parent for path in (ROOT / PACKAGE).rglob("*.py")}
    without = {str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()}
    assert without == set()


def test_every_data_file_is_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"][PACKAGE]
    files = [
        path for path in (ROOT / PACKAGE).rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    data = [str(path.relative_to(ROOT / PACKAGE)) for path in files if path.suffix != ".py"]
    loose = [
        name
        for name in data
        if not any(fnmatch(f"/{name}", f"/{pattern.replace('**/', '*')}") for pattern in patterns)
    ]
    assert "py.typed" in data
    assert loose == []


def test_version_is_told_once() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "garch_platform.__version__"}
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## \[(\d.*?)\]", changes, re.MULTILINE)[0] == garch_platform.__version__


def test_command_points_at_a_function() -> None:
    module, _, function = PROJECT["project"]["scripts"]["garch"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_dagster_names_one_code_location() -> None:
    (location,) = yaml.safe_load((ROOT / "workspace.yaml").read_text("utf-8"))["load_from"]
    named = PROJECT["tool"]["dagster"]
    assert location["python_module"] == {
        "module_name": named["module_name"],
        "location_name": named["code_location_name"],
    }


def test_license_is_the_declared_one() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004\s", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_help_tells_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^\.PHONY: (\w+)$", makefile, re.MULTILINE)
    shown = run("make", "--no-print-directory")
    assert shown.returncode == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()] == targets
    assert all(len(line.split()) > 2 for line in shown.stdout.splitlines())
    assert {"demo", "ui", "test", "lint", "format", "clean", "bench", "refresh", "venv"} <= set(targets)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo", "garch demo"),
        ("ui", 'garch --workspace ".garch/demo-real" ui'),
        ("refresh", "garch refresh"),
        ("test", "-m pytest -n 3"),
        ("lint", "mypy"),
        ("venv", "-c constraints.txt -e '.[dev]'"),
    ],
)
def test_target_runs_its_command(target: str, command: str) -> None:
    planned = run("make", "--dry-run", "--always-make", "--no-print-directory", target)
    assert planned.returncode == 0, planned.stderr
    assert command in planned.stdout
    assert "-c constraints.txt" in planned.stdout


def test_ui_without_a_workspace_says_what_to_do_first(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    refused = run("make", "--no-print-directory", "--old-file=venv", "ui", f"WORKSPACE={absent}")
    assert refused.returncode != 0
    assert f"No workspace {absent} yet: run make demo, or name one" in refused.stdout
    assert not absent.exists()


def test_old_python_is_refused_with_a_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    refused = run("make", "--no-print-directory", "--always-make", "venv", f"PYTHON={old}")
    assert refused.returncode != 0
    assert "Python 3.11 or newer is needed; name one: make venv PYTHON=" in refused.stdout


@pytest.mark.parametrize("script", [".ci/run", ".ci/system_packages"])
def test_script_is_strict_executable_bash(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & stat.S_IXUSR
    assert "\nset -euo pipefail\n" in path.read_text("utf-8")
    assert run("bash", "-n", script).returncode == 0


def test_check_lints_before_it_tests() -> None:
    commands = [
        line for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines() if line.startswith("make")
    ]
    assert [line.split()[-1] for line in commands] == ["lint", "test"]


def stand_in(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder that is the whole PATH: coreutils, stand-ins, no browser and no PostgreSQL."""
    for name in ("bash", "mktemp", "rm", "sh", "tail"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    return tmp_path


def install(commands: Path) -> subprocess.CompletedProcess[str]:
    return run(str(commands / "bash"), ".ci/system_packages", PATH=str(commands))


def test_nothing_is_installed_where_binaries_are_present(commands: Path) -> None:
    for name in ("initdb", "chromium"):
        stand_in(commands, name, "exit 0")
    stand_in(commands, "apt-get", "exit 9")
    done = install(commands)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_absent_binaries_are_installed_as_root(commands: Path) -> None:
    stand_in(commands, "initdb", "exit 0")
    stand_in(commands, "id", "echo 0")
    copy = f"/bin/cp {commands}/initdb {commands}/chromium"
    stand_in(commands, "apt-get", f'[ "$1" = update ] || {{ echo "$@" > {commands}/asked; {copy}; }}')
    done = install(commands)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Installing chromium" in done.stdout
    assert (commands / "asked").read_text().split()[-1] == "chromium"


@pytest.mark.parametrize(
    ("user", "apt", "reason"),
    [
        ("0", None, "This system has no apt-get."),
        ("1000", "exit 0", "Installing them takes root."),
        ("0", "echo no route; exit 100", "apt-get could not install them."),
        ("0", "exit 0", "apt-get installed them, but the binaries are not where expected"),
    ],
)
def test_absent_binaries_without_a_way_give_a_remedy(
    user: str, apt: str | None, reason: str, commands: Path
) -> None:
    stand_in(commands, "initdb", "exit 0")
    stand_in(commands, "id", f"echo {user}")
    if apt:
        stand_in(commands, "apt-get", apt)
    done = install(commands)
    assert done.returncode == 1
    assert f"The tests need: chromium. {reason}" in done.stderr
    assert "-m 'not postgres and not browser'" in done.stderr


def test_hooks_are_valid_and_local(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["id"]: hook["language"] for hook in hooks} == dict.fromkeys(
        ["ruff", "ruff-format", "mypy", "architecture"], "system"
    )
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    assert run(*command, PRE_COMMIT_HOME=str(tmp_path)).returncode == 0


def test_secrets_and_state_are_never_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert {".env", ".garch/", ".venv/"} <= set(ignored)
