"""One table and one picture of what the runs of this benchmark printed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OURS = "ours"
RANGES = (0, 14_000_000, 16_000_000, 20_000_000, 30_000_000, 36_000_000)
"""Bytes. Larger results have embeddings in FP32, and are left out."""

_NUMBER = r"-?[\d.]+(?:e-\d+)?"
_ROW = re.compile(
    rf"(?P<setting>\S.*?)\s+(?P<stored>[\d,]+)\s+(?P<file>[\d,]+|-)\s+(?P<damage>{_NUMBER})\s+(?P<unseen>{_NUMBER})"
    rf"\s+(?P<mcc>{_NUMBER})\s+(?P<seconds>\d+)"
)
_SIZE = re.compile(r"at most ([\d,]+) bytes")
_KINDS = {
    "training": "`allocate`, training sentences",
    "validation": "`allocate`, validation sentences",
    "searched": "an hour's search",
}


@dataclass(frozen=True)
class Row:
    """A line that was printed: a peer's setting or a map of ours."""

    setting: str
    stored: int
    file: str
    damage: float
    unseen: float
    mcc: str
    seconds: str

    @property
    def tool(self) -> str:
        """The first word of the setting."""
        return self.setting.split(",")[0].split(" ")[0]


def read(paths: Iterable[Path]) -> tuple[list[Row], set[int]]:
    """Return the rows of printed files (of a setting's, the last), and the sizes that ours were given."""
    rows, sizes = dict[tuple[str, int], Row](), set[int]()
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            if match := _SIZE.fullmatch(line.strip()):
                sizes.add(_bytes(match[1]))
            elif match := _ROW.fullmatch(line.strip()):
                stored, damages = _bytes(match["stored"]), (float(match["damage"]), float(match["unseen"]))
                row = Row(match["setting"], stored, match["file"], *damages, match["mcc"], match["seconds"])
                rows[row.setting, stored if row.tool == OURS else 0] = row
    return [row for row in rows.values() if row.stored <= RANGES[-1]], sizes


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield lines of Markdown: in each range of bytes, of every tool the setting of least damage, beside ours."""
    headings = "setting", "bytes needed", "its file", "damage, unseen", "ours", "times less", "MCC, ours", "CPU s"
    yield f"| {' | '.join(headings)} |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    tools = sorted({row.tool for row in rows} - {OURS})
    for least, most in pairwise(RANGES):
        for tool in tools:
            within = [row for row in rows if row.tool == tool and least < row.stored <= most]
            row = min(within, key=lambda row: row.damage, default=None)
            if row is None or (ours := _fitting(rows, "training", row.stored)) is None:
                continue
            pairs = (row.damage, ours.damage), (row.unseen, ours.unseen)
            times = ", ".join(_times(theirs / own) for theirs, own in pairs if own)
            file = "" if row.file == "-" else row.file
            yield (
                f"| {row.setting} | {row.stored:,} | {file} | {_damages(row)} | {_damages(ours)} | {times} "
                f"| {row.mcc}, {ours.mcc} | {row.seconds} |"
            )


def table_of_ours(rows: Sequence[Row], sizes: Iterable[int]) -> Iterator[str]:
    """Yield lines of Markdown: our maps of at most so many bytes, by what their widths were chosen."""
    kinds = [kind for kind in _KINDS if any(_is_ours(row, kind) for row in rows)]
    yield f"| at most | {' | '.join(_KINDS[kind] for kind in kinds)} |"
    yield f"| --- |{' --- |' * len(kinds)}"
    for size in sorted(sizes):
        cells = [_fitting(rows, kind, size) for kind in kinds]
        yield f"| {size / 1e6:.1f} MB | {' | '.join(_damages(cell) if cell else '' for cell in cells)} |"


def write_picture(rows: Sequence[Row], path: Path) -> None:
    """Draw every setting of every tool, and our curve, as a PNG."""
    from PIL import Image

    from results.plots.style import save_plot

    with tempfile.TemporaryDirectory() as folder:
        save_plot(lambda: _draw(rows), Path(folder), path.stem)
        with Image.open(Path(folder) / f"{path.stem}.png") as drawn:
            drawn.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(path, optimize=True)


def _draw(rows: Sequence[Row]) -> Figure:
    from matplotlib.figure import Figure

    from results.plots.style import BLACK, COLOURS, GREY, set_damage_axis

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    set_damage_axis(axes, "damage on validation sentences, nats")
    tools = sorted({row.tool for row in rows} - {OURS})
    colours = [colour for colour in COLOURS if colour != BLACK] + [GREY]
    for tool, colour, marker in zip(tools, colours, "os^DvPX", strict=False):
        own = [row for row in rows if row.tool == tool]
        places = [row.stored / 1e6 for row in own], [row.damage for row in own]
        axes.plot(
            *places, marker, color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.5, label=tool
        )
    own = sorted((row for row in rows if _is_ours(row, "training")), key=lambda row: row.stored)
    curve = [row.stored / 1e6 for row in own], [row.damage for row in own]
    axes.plot(*curve, color=BLACK, linewidth=1.8, label="bitfront allocate")
    axes.set_xlabel("MB: codes, scales, zero points, and what is left in FP32")
    axes.legend(loc="upper right", ncols=2, columnspacing=1, handletextpad=0.3, fontsize=9)
    return figure


def _is_ours(row: Row, kind: str) -> bool:
    return row.tool == OURS and kind in row.setting


def _fitting(rows: Sequence[Row], kind: str, most_bytes: int) -> Row | None:
    fitting = [row for row in rows if _is_ours(row, kind) and row.stored <= most_bytes]
    return max(fitting, key=lambda row: row.stored, default=None)


def _bytes(printed: str) -> int:
    return int(printed.replace(",", ""))


def _damages(row: Row) -> str:
    return f"{row.damage:.2g}, {row.unseen:.2g}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"
