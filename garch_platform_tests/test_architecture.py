"""The package keeps its layers, names and sizes, and every rule is able to fail."""

from __future__ import annotations

import subprocess
import sys

import pytest

from garch_platform_tests.architecture import (
    MAX_LINES,
    ROOT,
    RULES,
    Module,
    machine_traces,
    package_modules,
    private_imports,
    violations,
)

DOC = '"""Doc."""\n'

BROKEN = [
    ("layers", "quant/garch.py", "from garch_platform.settings import Settings", 2),
    ("layers", "quant/garch.py", "from garch_platform.sessions import trading_calendar", 2),
    ("layers", "sources/files.py", "from garch_platform.store.lake import Lake", 2),
    ("layers", "store/lake.py", "from garch_platform import sources", 2),
    ("layers", "store/lake.py", "import garch_platform.settings", 2),
    ("layers", "store/lake.py", "from garch_platform.quant.timeseries import generator", 2),
    ("layers", "sources/simulated.py", "from garch_platform.quant.pairs import ranking", 2),
    ("layers", "orchestration/launch.py", "from garch_platform.cli import main", 2),
    ("layers", "orchestration/jobs.py", "import garch_platform.definitions", 2),
    ("layers", "cli.py", "from garch_platform.definitions import defs", 2),
    ("layers", "quant/garch.py", "from . import features", 2),
    ("layers", "elsewhere/garch.py", "", 1),
    ("libraries", "cli.py", "def run():\n    import dagster", 3),
    ("libraries", "store/lake.py", "from dagster_postgres import storage", 2),
    ("libraries", "sources/files.py", "import deltalake", 2),
    ("libraries", "sources/files.py", "from sqlalchemy import select", 2),
    ("libraries", "orchestration/jobs.py", "import typer", 2),
    ("libraries", "quant/garch.py", "import os", 2),
    ("libraries", "quant/garch.py", "import requests", 2),
    ("purity", "quant/garch.py", "x = open('bars.csv')", 2),
    ("purity", "quant/garch.py", "def f(pl):\n    return pl.read_parquet('bars')", 3),
    ("purity", "quant/garch.py", "from datetime import date\nx = date.today()", 3),
    ("naming", "quant/utils.py", "", 1),
    ("naming", "lib/garch.py", "", 1),
    ("naming", "quant/statistics.py", "", 1),
    ("naming", "orchestration/queue/garch.py", "", 1),
    ("size", "quant/garch.py", "\n" * MAX_LINES, MAX_LINES + 1),
    ("light_imports", "quant/garch.py", "from arch import arch_model", 2),
    ("light_imports", "quant/garch.py", "try:\n    import scipy.stats\nexcept ImportError:\n    pass", 3),
    ("light_imports", "store/sql.py", "class Query:\n    import duckdb", 3),
    ("public_names", "quant/garch.py", "def fit(): ...", 1),
    ("public_names", "quant/garch.py", "__all__ = ['fit']", 1),
    ("public_names", "quant/garch.py", "__all__ = ['fit']\ndef fit(): ...", 3),
    ("public_names", "quant/garch.py", "__all__ = ['_x']\n_x = 1", 3),
    ("public_names", "quant/garch.py", "__all__ = ['X', 'X']\nX = 1", 1),
]

SOUND = [
    (
        "quant/garch.py",
        "import math\nimport numpy as np\nfrom garch_platform.errors import DataError\n__all__ = []",
    ),
    ("quant/garch.py", "__all__ = []\nfrom garch_platform.quant import features"),
    ("quant/garch.py", "__all__ = []\ndef _fit():\n    import arch"),
    (
        "quant/garch.py",
        "from typing import TYPE_CHECKING\n__all__ = []\nif TYPE_CHECKING:\n    from arch.univariate import GARCH",
    ),
    ("sources/simulated.py", "from garch_platform.quant.timeseries import generator\n__all__ = []"),
    ("sources/simulated.py", "from garch_platform.quant.timeseries.generator import x\n__all__ = []"),
    ("orchestration/assets/bars.py", "import dagster as dg\nfrom garch_platform import store\n__all__ = []"),
    ("cli.py", "import typer\nfrom garch_platform.orchestration.launch import launch\n__all__ = ['launch']"),
    ("store/__init__.py", ""),
]


def module(path: str, body: str) -> Module:
    return Module(f"garch_platform/{path}", DOC + body)


@pytest.mark.parametrize("name", package_modules())
def test_module_keeps_every_rule(name: str) -> None:
    found = violations(package_modules()[name])
    assert not found, "\n".join(found)


def test_only_public_names_cross_modules() -> None:
    found = list(private_imports(package_modules()))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("rule", "path", "body", "line"), BROKEN)
def test_rule_fails_and_names_file_line_and_rule(rule: str, path: str, body: str, line: int) -> None:
    found = violations(module(path, body))
    of_rule = [text for text in found if text.endswith(f"(rule {rule})")]
    assert of_rule, found
    assert of_rule[0].startswith(f"garch_platform/{path}:{line}: ")


def test_docstring_rule_fails() -> None:
    found = violations(Module("garch_platform/quant/garch.py", "__all__ = []\n"))
    assert found == [
        "garch_platform/quant/garch.py:1: no docstring at the top of the module (rule docstring)"
    ]


def test_each_rule_has_a_failing_example() -> None:
    assert {rule for rule, *_ in BROKEN} | {"docstring"} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(("path", "body"), SOUND)
def test_sound_module_passes(path: str, body: str) -> None:
    assert violations(module(path, body)) == []


def test_private_import_is_found() -> None:
    modules = [
        module("quant/returns.py", "__all__ = ['logs']\nlogs = SCALE = 1"),
        module("quant/garch.py", "from garch_platform.quant.returns import SCALE, logs"),
    ]
    found = list(private_imports({one.name: one for one in modules}))
    place, owner = "garch_platform/quant/garch.py:2", "garch_platform.quant.returns"
    assert found == [f"{place}: 'SCALE' is not in __all__ of {owner} (rule private_imports)"]


def tracked_text() -> dict[str, str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout, so which files are tracked is not known")
    texts = {}
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b"\0"
        if b"\0" not in content:
            texts[name] = content.decode("utf-8")
    return texts


def test_no_text_file_names_a_machine_or_a_registry() -> None:
    texts = tracked_text()
    assert {"pyproject.toml", "constraints.txt", "Makefile"} <= set(texts)
    found = [trace for name, text in texts.items() for trace in machine_traces(name, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "open('" + "/ro" + "ot/bars.csv')",
        "path: " + "/ho" + "me/someone/bars",
        "cache = '" + "/tm" + "p/bars'",
        "--index" + "-url somewhere",
        "see py" + "pi.org",
    ],
)
def test_machine_trace_is_found(line: str) -> None:
    assert machine_traces("notes.md", f"fine\n{line}\n")[0].startswith("notes.md:2: ")


def test_relative_and_url_paths_are_no_traces() -> None:
    places = ("docs/{}/index.md", "https://example.com/{}/paper", "<workspace>/{}/x", "~/{}/x")
    text = "\n".join(place.format(name) for place in places for name in ("home", "tmp", "work"))
    assert machine_traces("notes.md", text) == []


@pytest.mark.process
def test_code_location_imports_no_heavy_library() -> None:
    """Loading the definitions leaves the numerical libraries unloaded.

    pandas is not judged: exchange_calendars, which names the partitions' holidays, is built on it.
    """
    script = (
        "import sys, garch_platform.definitions; "
        "print(sorted({'arch', 'duckdb', 'matplotlib', 'mlflow', 'scipy', 'skfolio', 'sklearn', 'statsmodels', 'torch'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr[-2000:]
