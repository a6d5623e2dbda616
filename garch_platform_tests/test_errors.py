"""The tree drawn in the docstring is the tree of classes."""

from __future__ import annotations

import inspect

import pytest

from garch_platform import errors


def drawn() -> dict[str, str | None]:
    """Each name of the drawing with the name it hangs from."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    lines = (errors.__doc__ or "").partition("::")[2].splitlines()
    for line in lines:
        text = line.removeprefix("    ")
        if not line.startswith("    "):
            continue
        name = text.lstrip("│├└─ ").split()[0]
        depth = (len(text) - len(text.lstrip("│├└─ "))) // 4
        path = [*path[:depth], name]
        parents[name] = path[depth - 1] if depth else None
    return parents


def defined() -> dict[str, type[BaseException]]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {name: kind for name, kind in classes if kind.__module__ == errors.__name__}


def test_drawing_equals_the_classes() -> None:
    bases = {name: kind.__base__.__name__ if kind.__base__ else "" for name, kind in defined().items()}
    assert bases.pop("GarchPlatformError") == "Exception"
    assert drawn() == {"GarchPlatformError": None, **bases}


def test_all_lists_every_error() -> None:
    assert set(errors.__all__) == set(defined())


@pytest.mark.parametrize("name", errors.__all__)
def test_one_except_clause_catches_every_error(name: str) -> None:
    with pytest.raises(errors.GarchPlatformError, match="AAPL has 3 bars; 250 are needed"):
        raise defined()[name]("AAPL has 3 bars; 250 are needed")
