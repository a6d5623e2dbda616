"""Self-contained HTML pages: tables and plots without any outside resource; the same input, the same bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from garch_platform import __version__
from garch_platform.errors import StoreError
from garch_platform.reporting.tables import number

__all__ = ["BLUE", "GREY", "RED", "Grid", "Plot", "draw_plot", "headed", "write_page"]

BLUE: Final = "#2f5d9b"
RED: Final = "#c0504d"
GREY: Final = "#8a93a3"
PLOT_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": "#c5ccd8",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "garch_platform",
}


@dataclass(frozen=True)
class Grid:
    """A table of texts, its numeric columns marked."""

    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]

    @classmethod
    def of(cls, frame: pl.DataFrame, decimals: Mapping[str, int] | None = None) -> Grid:
        """The frame's values as text; floats with three decimals, or with those of ``decimals``."""
        digits = decimals or {}
        return cls(
            frame.columns,
            [
                [_text(value, digits.get(name, 3)) for name, value in row.items()]
                for row in frame.iter_rows(named=True)
            ],
            [dtype.is_numeric() for dtype in frame.dtypes],
        )


@dataclass(frozen=True)
class Plot:
    """A drawing and its title."""

    title: str
    source: str


def headed(frame: pl.DataFrame, headings: Mapping[str, str]) -> pl.DataFrame:
    """The columns of ``headings`` that the frame has, under their headings."""
    return frame.select(pl.col(name).alias(text) for name, text in headings.items() if name in frame.columns)


def draw_plot(title: str, draw: Callable[[Any], Any]) -> Plot:
    """Render ``draw(axes)`` as an SVG image inside a data address."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(5.4, 2.7), layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(labelsize=7, color="#c5ccd8")
        draw(axes)
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return Plot(title, "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode())


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Render a template of the package to ``path`` and return its absolute path.

    Raises:
        StoreError: the file cannot be written.
    """
    from jinja2 import Environment, PackageLoader

    pages = Environment(
        loader=PackageLoader("garch_platform"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = pages.get_template(template).render(version=__version__, **values)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise StoreError(
            f"the report {path} cannot be written ({error.strerror}); choose another file"
        ) from error
    return path.absolute()


def _text(value: Any, digits: int) -> str:
    if value is None:
        return ""
    return number(value, digits) if isinstance(value, float) else str(value)
