"""The examples of the documents give what they say, and name what the interface has."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from garch_platform import quant

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_examples_of_the_interface_give_what_they_say() -> None:
    result = doctest.testfile(str(DOCS / "api.md"), module_relative=False, encoding="utf-8")
    assert result.attempted > 20
    assert result.failed == 0


def test_the_interface_is_listed_in_full() -> None:
    table = (DOCS / "api.md").read_text("utf-8").partition("| Name |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table))
    rules = {"StabilityGate", "FeatureWindows"}
    assert set(quant.__all__) - rules == named - {"arch"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_inside_the_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
