"""The style that all plots share, and saving a plot as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from objectives.files import replacing

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

PNG_DPI = 160

DAMAGE_FLOOR = 1e-6
"""Nats a sentence: damage below this is rounding error. It is drawn here, as the axis is logarithmic."""

# Okabe and Ito, "Color universal design" (2008): distinct under the common forms of colour blindness.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
BLACK = "#000000"
GREY = "#9a9a9a"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, BLACK, SKY)

_STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "svg.fonttype": "none",  # text stays text: searchable, and the file is smaller
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "bitfront",  # the same outcome gives the same file
}


def drawn_heights(damages: Iterable[float]) -> list[float]:
    """Return damages as the logarithmic axis draws them: at least ``DAMAGE_FLOOR``."""
    return [max(damage, DAMAGE_FLOOR) for damage in damages]


def set_damage_axis(axes: Axes, label: str) -> None:
    """Make the y axis logarithmic, with plain decimals."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda damage, _: f"{damage:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(label)


def save_plot(draw: Callable[[], Figure], directory: Path, stem: str) -> str:
    """Draw a figure in the shared style, save it as ``stem.png`` and ``stem.svg``, and return the SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = draw()
        with replacing(directory / f"{stem}.png") as temporary:
            figure.savefig(temporary, dpi=PNG_DPI)
        with replacing(directory / f"{stem}.svg") as temporary:
            figure.savefig(temporary, dpi=PNG_DPI, metadata={"Date": None})
            return temporary.read_text(encoding="utf-8")
