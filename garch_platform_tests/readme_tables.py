"""The tables of README.md that are made from the code: settings and commands.

``python -m garch_platform_tests.readme_tables`` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer

from garch_platform.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
LINE = re.compile(r"^(?P<indent> *)(?P<name>\w+):\s*(?P<value>[^#]*?)\s*(?:#\s*(?P<comment>.*))?$")


def settings() -> Iterator[tuple[str, str, str]]:
    """Every setting of config/base.yaml: dotted name, default, and what its comment says."""
    path: list[tuple[int, str]] = []
    for line in (ROOT / "config" / "base.yaml").read_text("utf-8").splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        indent = len(found["indent"])
        path = [(depth, name) for depth, name in path if depth < indent] + [(indent, found["name"])]
        if found["value"]:
            yield ".".join(name for _, name in path), found["value"], found["comment"] or ""


def commands() -> Iterator[tuple[str, str]]:
    """Every command of `garch` and the first line of its help."""
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        if below is None:
            yield f"garch {name}", _first_line(command.help)
        else:
            if command.invoke_without_command:  # type: ignore[attr-defined]
                yield f"garch {name}", _first_line(command.help)
            yield from ((f"garch {name} {inner}", _first_line(one.help)) for inner, one in below.items())


def tables() -> dict[str, str]:
    """Each generated table by the name of its marker."""
    rows = [f"| `{name}` | `{value}` | {_cell(meaning)} |" for name, value, meaning in settings()]
    listed = [f"| `{name}` | {_cell(text)} |" for name, text in commands()]
    return {
        "settings": "\n".join(["| Setting | Default | Meaning |", "|---|---|---|", *rows]),
        "commands": "\n".join(["| Command | What it does |", "|---|---|", *listed]),
    }


def written(text: str) -> str:
    """README's ``text`` with every generated table as it should be."""
    for name, table in tables().items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    README.write_text(written(README.read_text("utf-8")), "utf-8")
