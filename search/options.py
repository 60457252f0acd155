"""Options that several commands take, and the terminal that they write to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


class LastingConsole(Console):
    """A console that falls silent where nobody reads it any more: a search does not end of that."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


console = LastingConsole(stderr=True)

Run = Annotated[Path, typer.Option("--run", help="The run's directory.")]
Model = Annotated[str | None, typer.Option("--model", help="A local transformers directory, a hub name, or miniature.")]
Data = Annotated[str | None, typer.Option("--data", help="A local CoLA directory, a hub data set, or miniature.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="miniature, cola, or a TOML file.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
QuantizerOption = Annotated[
    str | None,
    typer.Option(
        "--quantizer",
        help="calibrated: rounding that makes up for errors, on training sentences; affine; or codebook.",
    ),
]
GroupSizeOption = Annotated[
    int | None,
    typer.Option("--group-size", help="Columns that share a scale and a zero point in each row; 0: all of them."),
]
Margin = Annotated[float | None, typer.Option("--margin", help="The loss of MCC against FP32 that counts as none.")]
ReadBitMap = Annotated[Path | None, typer.Option("--bitmap", help="A bit map, as text or JSON.")]
