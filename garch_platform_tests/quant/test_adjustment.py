"""Forward adjustment for splits: what it does to prices, and that it never needs what comes later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from garch_platform.quant.adjustment import with_split_adjustment

START = datetime(2024, 3, 28, tzinfo=UTC)


def bars(factors: list[float | None], symbol: str = "AAA", adjustment: str = "raw") -> pl.DataFrame:
    """One bar a day with these split factors."""
    return pl.DataFrame(
        {
            "symbol": symbol,
            "timestamp": [START + timedelta(days=day) for day in range(len(factors))],
            "adjustment": adjustment,
            "split_factor": pl.Series(factors, dtype=pl.Float64),
        }
    )


def adjustments(frame: pl.DataFrame) -> list[float]:
    return frame["split_adjustment"].to_list()


def test_factors_accumulate_from_their_own_bar_on() -> None:
    seen = with_split_adjustment(bars([None, 4.0, None, 1.0, 0.5, None]))
    assert adjustments(seen) == [1.0, 4.0, 4.0, 4.0, 2.0, 2.0]


def test_adjusted_returns_are_those_of_backward_adjustment() -> None:
    """Apple, 7 for 1 on 2014-06-09: closes 645.57 and 93.70 (https://www.apple.com/newsroom, split of June 2014)."""
    closes = pl.Series([647.35, 645.57, 93.70, 94.25])
    forward = closes * with_split_adjustment(bars([None, None, 7.0, None]))["split_adjustment"]
    backward = closes / pl.Series([7.0, 7.0, 1.0, 1.0])
    assert forward.log().diff().drop_nulls().to_list() == pytest.approx(
        backward.log().diff().drop_nulls().to_list(), rel=1e-12
    )


@pytest.mark.parametrize("adjustment", ["split", "all"])
def test_factors_beside_adjusted_prices_are_not_applied(adjustment: str) -> None:
    assert adjustments(with_split_adjustment(bars([None, 4.0], adjustment=adjustment))) == [1.0, 1.0]


def test_symbols_do_not_mix_and_rows_keep_their_order() -> None:
    mixed = pl.concat([bars([None, 2.0], "BBB"), bars([3.0, None])]).sort("timestamp", descending=True)
    seen = with_split_adjustment(mixed)
    assert seen.drop("split_adjustment").equals(mixed)
    found = dict(seen.group_by("symbol", maintain_order=True).agg("split_adjustment").iter_rows())
    assert {name: list(values) for name, values in found.items()} == {"BBB": [2.0, 1.0], "AAA": [3.0, 3.0]}


FACTORS = st.one_of(st.none(), st.sampled_from([1.0, 2.0, 3.0, 7.0, 0.1, 1 / 3, 1.5]))


@given(factors=st.lists(FACTORS, min_size=1, max_size=30), cut=st.integers(0, 30))
def test_appending_gives_the_bits_of_one_computation_and_the_future_changes_nothing(
    factors: list[float | None], cut: int
) -> None:
    rows = bars(factors)
    whole = with_split_adjustment(rows)
    head = with_split_adjustment(rows.head(cut))
    assert head.equals(whole.head(cut))
    before = {"AAA": head["split_adjustment"][-1]} if cut and len(head) else None
    assert with_split_adjustment(rows.slice(min(cut, len(rows))), before).equals(whole.slice(cut))


def test_nothing_to_adjust() -> None:
    assert adjustments(with_split_adjustment(bars([]))) == []
