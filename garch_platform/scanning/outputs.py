"""Where the result of a scan goes: Parquet, CSV, or a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from garch_platform.errors import ConfigurationError, StoreError
from garch_platform.quant.pairs.spread import spread
from garch_platform.reporting.page import BLUE, GREY, RED, Grid, Plot, draw_plot, headed, write_page
from garch_platform.reporting.selection import CHANCE_NOTE, PAIR_DECIMALS, PAIR_HEADINGS
from garch_platform.scanning.file_scan import FileScan

__all__ = ["require_format", "write_scan"]

FORMATS: Final = (".parquet", ".csv", ".html")
PLOTTED_PAIRS: Final = 4


def require_format(path: Path | None) -> None:
    """Raise `ConfigurationError` if ``path`` ends in none of the known formats."""
    if path is not None and path.suffix not in FORMATS:
        raise ConfigurationError(f"{path} ends in none of {', '.join(FORMATS)}; choose one of them")


def write_scan(scan: FileScan, path: Path) -> Path:
    """Write all pairs (Parquet, CSV) or a report of the best (HTML); returns the absolute path.

    Raises:
        ConfigurationError: ``path`` ends in no known format.
        StoreError: it cannot be written.
    """
    require_format(path)
    if path.suffix == ".html":
        return _write_html(scan, path)
    table = scan.selection.table
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            table.write_csv(path)
        else:
            table.write_parquet(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); choose another file") from error
    return path.absolute()


def _write_html(scan: FileScan, path: Path) -> Path:
    view, stamps = scan.view, scan.closes["timestamp"]
    best = view.best()
    facts = {
        "pairs": f"{len(view.pairs):,}",
        "selected (honest)": f"{view.selected('honest'):,}",
        "selected (classic)": f"{view.selected('classic'):,}",
        "bars": f"{len(stamps):,} of {scan.timeframe}",
        "from": f"{stamps[0]:%Y-%m-%d}",
        "to": f"{stamps[-1]:%Y-%m-%d}",
    }
    rejected = scan.rejected["reason"].value_counts(sort=True)
    return write_page(
        "scan.html.j2",
        path,
        name=scan.request.path.name,
        note=CHANCE_NOTE,
        facts=facts,
        bar=str(scan.timeframe),
        passed=view.passed,
        top=Grid.of(headed(best, PAIR_HEADINGS), PAIR_DECIMALS),
        gates=Grid.of(view.gates()),
        stages=list(view.stages()),
        rejected=[f"{count:,} bars: {reason}" for reason, count in rejected.iter_rows()],
        plots=[_spread_plot(scan, pair) for pair in best.head(PLOTTED_PAIRS).iter_rows(named=True)],
    )


def _spread_plot(scan: FileScan, pair: dict[str, Any]) -> Plot:
    legs = scan.closes.with_row_index("row").select(
        "row", "timestamp", y=pair["symbol_y"], x=pair["symbol_x"]
    )
    present = legs.drop_nulls()
    known = scan.selection.table.filter(
        (scan.selection.table["symbol_y"] == pair["symbol_y"])
        & (scan.selection.table["symbol_x"] == pair["symbol_x"])
    ).row(0, named=True)
    values = spread(
        present["y"].to_numpy(),
        present["x"].to_numpy(),
        hedge_ratio=known["hedge_ratio"],
        intercept=known["intercept"],
    )
    starts = [
        int((present["row"] < row).sum()) for row in (scan.panel.formation_end, scan.panel.confirmation_end)
    ]
    days = present["timestamp"].dt.date()

    def draw(axes: Any) -> None:
        for start, shade in zip(starts, (GREY, RED), strict=True):
            axes.axvspan(start, len(values), color=shade, alpha=0.07, lw=0)
        axes.plot(range(len(values)), values, lw=0.8, color=BLUE)
        axes.axhline(0.0, lw=0.8, color=GREY)
        places = sorted({0, min(starts[0], len(values) - 1), len(values) - 1})
        axes.set_xticks(places, [str(days[place]) for place in places])
        axes.margins(x=0.01)

    place = f"fell at {pair['gate']}" if pair["rank"] is None else f"#{pair['rank']}"
    return draw_plot(f"{pair['symbol_y']} − {pair['hedge_ratio']:.3f} · {pair['symbol_x']}  ({place})", draw)
