"""The report and the outcome of a ranking: counts that add up, the same bytes, nothing from outside."""

from __future__ import annotations

import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest

from garch_platform.errors import CalendarError, StoreError
from garch_platform.orchestration.launch import Launcher
from garch_platform.orchestration.outcomes import RankingOutcome
from garch_platform.orchestration.report import write_report
from garch_platform.orchestration.workspace import Workspace
from garch_platform.settings import load_settings
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


def test_gates_add_up_to_all_pairs_and_stand_in_order(market: Launcher) -> None:
    outcome = RankingOutcome.of(market.workspace)
    gates = outcome.gates()
    assert gates["pairs"].sum() == len(outcome.rankings) == 6 + 15
    assert outcome.passed == sum(gates.filter(gates["gate"] == "passed all gates")["pairs"])
    order = ["excluded", "coverage", "price_correlation", "cointegration", "coint_pvalue", "garch", "score"]
    named = [gate for gate in gates["gate"] if gate in order]
    assert named == sorted(named, key=order.index)
    assert gates["asks"].null_count() == 0


def test_best_pairs_come_ranked_first_and_by_score(market: Launcher) -> None:
    outcome = RankingOutcome.of(market.workspace, DAYS[-1])
    best = outcome.best(top=5)
    assert len(best) > 0
    for _, part in best.group_by("sector"):
        passed, fallen = part.filter(part["rank"].is_not_null()), part.filter(part["rank"].is_null())
        assert part["rank"].is_null().is_sorted()
        assert passed["rank"].to_list() == list(range(1, len(passed) + 1))
        assert fallen["score"].is_sorted(descending=True)
        assert set(fallen["gate"]) <= {"score"}


def test_trials_say_how_many_passes_chance_explains(market: Launcher) -> None:
    outcome = RankingOutcome.of(market.workspace)
    rows = outcome.rankings
    tested = rows.filter(rows["coint_pvalue"].is_not_null(), rows["price_correlation"] >= 0.8)
    passed = tested.filter(tested["coint_pvalue"] <= 0.05)
    text = outcome.trials()
    assert text.startswith(
        f"Trials: 21 pairs, of which {len(tested)} reached the Engle-Granger test and {len(passed)} passed it at 0.05"
    )
    assert (
        f"about {0.09 * len(tested):.0f} to {0.20 * len(tested):.0f} of {len(tested)} would pass it." in text
    )


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
