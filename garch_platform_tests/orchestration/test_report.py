"""The report and the outcome of a ranking: counts that add up, the same bytes, nothing from outside."""

from __future__ import annotations

import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from garch_platform.errors import CalendarError, StoreError
from garch_platform.orchestration.launch import Launcher
from garch_platform.quant.pairs.gates import gate_names
from garch_platform.quant.pairs.rules import PROFILES
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform.workspace.outcomes import RankingOutcome
from garch_platform.workspace.report import write_report
from garch_platform_tests.orchestration.small_market import DAYS


class Balanced(HTMLParser):
    """Notes every reference to another resource, and fails at a tag that is not closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_whole_self_contained_and_repeatable(market: Launcher, tmp_path: Path) -> None:
    first = write_report([market.workspace], tmp_path / "new" / "first.html")
    page = first.read_text("utf-8")
    parsed = Balanced()
    parsed.feed(page)
    assert parsed.open == []
    assert parsed.references
    assert all(reference.startswith("data:image/svg+xml;base64,") for reference in parsed.references)
    assert not re.search(r"https?:|@import|url\(", re.sub(r'"data:[^"]*"', "", page))
    assert str(DAYS[-1]) in page
    assert write_report([market.workspace], tmp_path / "second.html").read_bytes() == first.read_bytes()


def test_report_of_an_unranked_workspace_says_so(tmp_path: Path) -> None:
    workspace = Workspace(load_settings(tmp_path / "empty"))
    workspace.prepare()
    assert "nothing ranked yet" in write_report([workspace], tmp_path / "report.html").read_text("utf-8")
    with pytest.raises(CalendarError, match=r"nothing is ranked yet in .*empty; run `garch refresh`"):
        RankingOutcome.of(workspace)
    workspace.database.dispose()


def test_report_that_cannot_be_written_names_the_file(market: Launcher, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StoreError, match=r"the report .*taken/report.html cannot be written"):
        write_report([market.workspace], tmp_path / "taken" / "report.html")


def test_gates_of_both_profiles_add_up_and_stand_in_order(market: Launcher) -> None:
    view = RankingOutcome.of(market.workspace).view
    gates = view.gates()
    for profile in PROFILES:
        own = gates.drop_nulls(profile)
        assert own[profile].sum() == len(view.pairs) == 6 + 15
        assert own["gate"].to_list()[:-1] == [
            gate for gate in gates["gate"] if gate in gate_names(profile, view.rules)
        ]
        assert view.selected(profile) == own.filter(pl.col("gate") == "selected")[profile][0]
    assert gates["asks"].null_count() == 0


def test_best_pairs_come_ranked_first_then_those_that_came_farthest(market: Launcher) -> None:
    view = RankingOutcome.of(market.workspace, DAYS[-1]).view
    best = view.best(top=5)
    names = gate_names(view.rules.profile, view.rules)
    for _, part in best.group_by("sector"):
        selected, fallen = part.filter(part["rank"].is_not_null()), part.filter(part["rank"].is_null())
        assert part["rank"].is_null().is_sorted()
        assert selected["rank"].to_list() == list(range(1, len(selected) + 1))
        depths = [names.index(gate) for gate in fallen["gate"]]
        assert depths == sorted(depths, reverse=True)
    assert best.filter(pl.col("rank") == 1).height == 2


def test_stages_name_the_counts_the_floor_and_the_reach(market: Launcher) -> None:
    outcome = RankingOutcome.of(market.workspace)
    lines = list(outcome.view.stages())
    assert len(lines) == 4
    row = outcome.ledger.row(
        by_predicate=(pl.col("sector") == "all") & (pl.col("profile") == "honest"), named=True
    )
    (line,) = [line for line in lines if line.startswith("all, honest: 15 pairs")]
    assert f"→ {row['correlated']} correlated → {row['significant']} significant" in line
    assert "Floor: on 2 markets like this one without cointegration the same selection passed" in line
    assert f"80 % power up to a half-life of {row['detectable_half_life']:.1f} 1Day bars." in line


@pytest.mark.parametrize(
    ("day", "message"),
    [
        (date(2024, 3, 23), "2024-03-23 is a Saturday on XNYS, not a session"),
        (
            date(2024, 3, 21),
            f"the session 2024-03-21 is not ranked, the last one is {DAYS[-1]}; run `garch mater",
        ),
    ],
)
def test_session_without_a_ranking_is_refused(day: date, message: str, market: Launcher) -> None:
    with pytest.raises(CalendarError) as refused:
        RankingOutcome.of(market.workspace, day)
    assert str(refused.value).startswith(message)
