"""The rules that keep the house in order, as functions from one module's syntax tree to violations.

Each rule yields (line, message); `test_architecture` runs all of them over the package and shows that
each can fail.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

PACKAGE: Final = "garch_platform"
ROOT: Final = Path(__file__).resolve().parent.parent

Violations = Iterator[tuple[int, str]]

MAX_LINES: Final = 450

BOTTOM: Final = frozenset({"bars", "errors", "sessions"})
ADAPTERS: Final = frozenset({"broker", "sources", "store"})
SERVICES: Final = frozenset({"recycler", "stream", "trading_desk", "tracking"})
BELOW: Final = BOTTOM | ADAPTERS | SERVICES | {"quant", "reporting", "rest", "scanning", "settings"}
ALLOWED: Final[dict[str, frozenset[str]]] = {
    "": frozenset(),
    "errors": frozenset(),
    "bars": frozenset({"errors"}),
    "sessions": frozenset({"bars", "errors"}),
    "settings": BOTTOM,
    "quant": frozenset({"errors"}),
    "rest": BOTTOM,
    **dict.fromkeys(ADAPTERS, BOTTOM | {"rest"}),
    **dict.fromkeys(SERVICES, BOTTOM | {"quant", "rest", "settings"}),
    "reporting": BOTTOM | {"quant"},
    "scanning": BOTTOM | ADAPTERS | {"quant", "reporting", "settings"},
    "workspace": BELOW,
    "orchestration": BELOW | {"workspace"},
    "definitions": frozenset({"orchestration", "settings", "workspace"}),
    "__main__": frozenset({"cli"}),
    "cli": BELOW | {"orchestration", "workspace"},
}
"""Which parts of the package each part may import beside itself."""

EXCEPTIONS: Final = {("garch_platform.sources.simulated", "garch_platform.quant.timeseries")}
"""The simulated source stamps sessions and symbols on the arrays of the pure generator."""

QUANT_LIBRARIES: Final = frozenset(
    {"arch", "llvmlite", "numba", "numpy", "polars", "scipy", "sklearn", "statsmodels"}
)
OUTSIDE_WORLD: Final = frozenset(
    "asyncio http io logging os pathlib random shutil socket sqlite3 subprocess tempfile time urllib".split()
)
CONFINED: Final[dict[str, frozenset[str]]] = {
    "alpaca": frozenset({"broker", "rest", "sources", "stream"}),
    "dagster": frozenset({"definitions", "orchestration"}),
    "deltalake": frozenset({"store"}),
    "mlflow": frozenset({"orchestration", "tracking"}),
    "alembic": frozenset({"store"}),
    "sqlalchemy": frozenset({"orchestration", "store", "workspace"}),
    "typer": frozenset({"cli"}),
    "websockets": frozenset({"recycler"}),
    "yfinance": frozenset({"sources"}),
}
"""Libraries that only some parts may import."""

HEAVY: Final = frozenset(
    "alpaca arch duckdb exchange_calendars matplotlib mlflow numba pandas scipy skfolio sklearn statsmodels torch "
    "yfinance".split()
)
BANNED_NAMES: Final = frozenset({"common", "dagster", "helper", "helpers", "lib", "misc", "util", "utils"})

MACHINE_PATH: Final = re.compile(r"(?<![\w.~$}>-])/(?:work|root|home|Users|tmp)/\w")
REGISTRY: Final = re.compile(
    r"pypi[.]org|python[h]osted|artifac[t]ory|trusted[-]host|index[-]url|docker[.]io|ghcr[.]io|quay[.]io|[.]internal\b"
)


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    path: str
    source: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of folders and module below the package; no ``__init__``."""
        names = Path(self.path).with_suffix("").parts[1:]
        return names[:-1] if names and names[-1] == "__init__" else names

    @property
    def name(self) -> str:
        """Dotted name."""
        return ".".join((PACKAGE, *self.parts))

    @property
    def part(self) -> str:
        """The part of the package (a top-level folder or module) that it belongs to."""
        return self.parts[0] if self.parts else ""

    @property
    def is_migration(self) -> bool:
        """Whether Alembic loads it by path."""
        return "migrations" in self.parts

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """Line and dotted name of every import; ``from a import b`` gives ``a.b``."""
        return [found for node in ast.walk(self.tree) for found in _imported(node)]

    @cached_property
    def exports(self) -> list[str] | None:
        """The literal value of ``__all__``, None where absent."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(_named(target, "__all__") for target in node.targets):
                return list(ast.literal_eval(node.value))
        return None

    @cached_property
    def bound(self) -> dict[str, ast.stmt]:
        """Names that the module binds at its top level, with the binding statement."""
        return {name: node for node in self.tree.body for name in _binds(node)}


def _named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _imported(node: ast.AST) -> list[tuple[int, str]]:
    if isinstance(node, ast.Import):
        return [(node.lineno, alias.name) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        source = "." * node.level + (node.module or "")
        return [(node.lineno, f"{source}.{alias.name}") for alias in node.names]
    return []


def _binds(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        case ast.Assign():
            names = [leaf for target in node.targets for leaf in ast.walk(target)]
            return [leaf.id for leaf in names if isinstance(leaf, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def _inside(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _outer(name: str) -> str:
    return name.partition(".")[0]


def layers(module: Module) -> Violations:
    """Imports inside the package point downwards only."""
    if module.part not in ALLOWED:
        yield 1, f"{module.part!r} has no layer; give it one in DESIGN's order"
        return
    for line, name in module.imports:
        if name.startswith("."):
            yield line, "imports are absolute"
        elif _inside(name, PACKAGE):
            target = [*name.split("."), ""][1]
            known = target if target in ALLOWED else ""
            excepted = any(module.name == who and _inside(name, what) for who, what in EXCEPTIONS)
            if known not in {module.part, "", *ALLOWED[module.part]} and not excepted:
                yield line, f"{module.part} does not import {known} ({name})"


def libraries(module: Module) -> Violations:
    """Dagster, stores and the command line stay where they belong; quant takes numerics only."""
    for line, name in module.imports:
        library = _outer(name)
        owners = CONFINED.get("dagster" if library.startswith("dagster_") else library)
        if owners is not None and module.part not in owners:
            yield line, f"only {' and '.join(sorted(owners))} import {library}"
        elif module.part == "quant" and library not in {PACKAGE, "__future__"}:
            if library in OUTSIDE_WORLD:
                yield line, f"quant is pure: no files, clock, environment or network ({library})"
            elif library not in QUANT_LIBRARIES | sys.stdlib_module_names:
                yield line, f"quant imports numerics only, not {library}"


def purity(module: Module) -> Violations:
    """quant neither opens a file nor reads the clock."""
    if module.part != "quant":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if _named(node.func, "open") or called.startswith(("read_", "scan_", "write_", "sink_")):
                yield node.lineno, "quant is pure: no file is read or written"
            elif called in {"now", "today", "utcnow"}:
                yield node.lineno, "quant is pure: the clock is an argument"


def naming(module: Module) -> Violations:
    """A module or folder is named after its subject, and never like one of the standard library."""
    for name in module.parts:
        if name in BANNED_NAMES:
            yield 1, f"{name!r} names no subject"
        elif name in sys.stdlib_module_names and not name.startswith("__"):
            yield 1, f"{name!r} is a module of the standard library"


def size(module: Module) -> Violations:
    """A module is one noun; past the limit it is two."""
    lines = len(module.source.splitlines())
    if lines > MAX_LINES:
        yield MAX_LINES + 1, f"{lines} lines; more than {MAX_LINES} are two modules"


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from _top_level(node.orelse)
            case ast.If() | ast.For() | ast.While():
                yield from _top_level([*node.body, *node.orelse])
            case ast.Try():
                nested = [statement for handler in node.handlers for statement in handler.body]
                yield from _top_level([*node.body, *nested, *node.orelse, *node.finalbody])
            case ast.With() | ast.ClassDef():
                yield from _top_level(node.body)


def light_imports(module: Module) -> Violations:
    """Heavy libraries are imported inside functions, so that the code location loads fast.

    So are modules of kernels, except by one another.
    """
    kernels = module.parts[-1].endswith("_kernels") if module.parts else False
    for node in _top_level(module.tree.body):
        for line, name in _imported(node):
            if _outer(name) in HEAVY:
                yield line, f"{_outer(name)} is heavy; import it inside the function that needs it"
            elif not kernels and any(part.endswith("_kernels") for part in name.split(".")):
                yield line, f"{name} compiles when imported; import it inside the function that needs it"


def public_names(module: Module) -> Violations:
    """``__all__`` is there, and lists documented names that the module has."""
    if module.is_migration or module.parts[-1:] == ("__main__",):
        return
    if module.exports is None:
        if any(not name.startswith("_") for name in module.bound):
            yield 1, "no __all__"
        return
    for name in module.exports:
        node = module.bound.get(name)
        if node is None:
            yield 1, f"__all__ lists {name!r}, which the module does not have"
        elif name.startswith("_"):
            yield node.lineno, f"__all__ lists the private {name!r}"
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not ast.get_docstring(node):
            yield node.lineno, f"public {name!r} has no docstring"
    for name in sorted({name for name in module.exports if module.exports.count(name) > 1}):
        yield 1, f"__all__ lists {name!r} twice"


def docstring(module: Module) -> Violations:
    """A module says at its top what it is."""
    if module.bound and not ast.get_docstring(module.tree):
        yield 1, "no docstring at the top of the module"


RULES: Final[tuple[Callable[[Module], Violations], ...]] = (
    layers,
    libraries,
    purity,
    naming,
    size,
    light_imports,
    public_names,
    docstring,
)


def private_imports(modules: dict[str, Module]) -> Iterator[str]:
    """Across modules, only what ``__all__`` lists is imported."""
    for module in modules.values():
        for line, name in module.imports:
            owner, _, item = name.rpartition(".")
            source = modules.get(owner)
            if source is None or name in modules or source.exports is None or item.startswith("__"):
                continue
            if item not in source.exports:
                yield f"{module.path}:{line}: {item!r} is not in __all__ of {owner} (rule private_imports)"


def violations(module: Module) -> list[str]:
    """All violations of one module as ``file:line: message (rule)``."""
    return [
        f"{module.path}:{line}: {message} (rule {rule.__name__})"
        for rule in RULES
        for line, message in rule(module)
    ]


def machine_traces(path: str, text: str) -> list[str]:
    """Paths of one machine and hosts of package registries in a text file."""
    return [
        f"{path}:{number}: {found.group()!r} belongs to one machine or network (rule machine_traces)"
        for number, line in enumerate(text.splitlines(), start=1)
        for pattern in (MACHINE_PATH, REGISTRY)
        if (found := pattern.search(line))
    ]


def package_modules() -> dict[str, Module]:
    """Every module of the package by dotted name."""
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    modules = [Module(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in paths]
    return {module.name: module for module in modules}
