"""Saving plots as files: one style for all, PNG and SVG, each in one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from objectives.files import replacing

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

PNG_DPI = 160

# Okabe and Ito, "Color universal design" (2008): told apart with any common colour blindness.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
BLACK = "#000000"
GREY = "#9a9a9a"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, BLACK, SKY)

_STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "svg.fonttype": "none",  # text stays text: crisp, searchable, and less to load
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


def save_plot(draw: Callable[[], Figure], directory: Path, stem: str) -> str:
    """Draw a figure in the common style, save it as PNG and SVG and return the text of the SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = draw()
        with replacing(directory / f"{stem}.png") as temporary:
            figure.savefig(temporary, dpi=PNG_DPI)
        with replacing(directory / f"{stem}.svg") as temporary:
            figure.savefig(temporary, dpi=PNG_DPI, metadata={"Date": None})
            return temporary.read_text(encoding="utf-8")
