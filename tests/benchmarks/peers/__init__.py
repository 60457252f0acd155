"""Other tools on the shared model, at the bytes that they need, beside our maps of at most as many.

`python -m tests.benchmarks peers NAME` runs one of them in an environment of its own:

    python3.11 -m venv /tmp/peers && . /tmp/peers/bin/activate
    pip install -c constraints.txt $(python tools/torch_build.py) -e '.[dev]' torch==2.13.0 PACKAGES

PACKAGES are the peer's, as PEERS lists them; all of them fit in one environment. Options: `--sentences N` scores on few
sentences, to try; `--run RUN` adds the best maps of a finished run; `--sensitivity measured` is for our side. NAME
`ours` prints our maps alone, at most as large as `--at BYTES ...`. NAME `summary` makes one table of `--of FILES`, the
output of the others, and a `--picture`.

Sizes are counted by one rule for all: codes at their width, scales and floating-point zero points at 16 bits, whole
zero points at the width of the codes, and everything else in FP32. A tool that keeps scales in FP32 is so counted as if
it did not. Ours are the bytes of the file, its header and its FP32 scales among them.

Peers see training sentences alone, the first 2,048 of the fixed order at most, as our calibration does. Embeddings that
a tool leaves in FP32 are also coded by hand for it, rounded to nearest in groups of 64 at 8 and at 4 bits. Every
setting that was tried is printed.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.peers import summary
from tests.benchmarks.peers.bed import HAND_WIDTHS, Bed, Result, Settings
from tests.benchmarks.peers.ours import Ours, Split
from tests.shared import ABSENT

PEERS = {
    "nncf": ("nncf==3.4.0", "openvino==2026.4.1"),
    "onnxruntime": ("onnxruntime==1.32.0", "onnx==1.23.2", "onnx-ir==1.1.0"),
    "torchao": ("torchao==0.18.0",),
    "quanto": ("optimum-quanto==0.2.7",),
    "hqq": ("hqq==0.2.8.post1",),
    "auto_round": ("auto-round==0.16.1",),
    "modelopt": ("nvidia-modelopt==0.47.0",),
}
"""The peers and their packages."""

OURS_AT = tuple(round(1e6 * megabytes) for megabytes in (9.5, 10.5, 12, 13, 14, 15, 16, 17, 18, 20, 24, 28, 33))
_HEADINGS = f"{'':58} {'stored':>11} {'file':>11} {'damage':>8} {'unseen':>8} {'MCC':>6} {'CPU s':>7}"


def main(arguments: list[str]) -> None:
    """Print one peer's table, or why there is none."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks peers")
    parser.add_argument("name", nargs="?", choices=[*PEERS, "ours", "summary"])
    parser.add_argument("--sentences", type=int, help="how many of each kind score")
    parser.add_argument("--run", type=Path, help="a finished run on the shared model")
    parser.add_argument("--sensitivity", choices=["gradient", "measured"], default="gradient")
    parser.add_argument("--at", type=int, nargs="+", help="of ours: the most bytes")
    splits = ["training", "validation"]
    parser.add_argument("--split", choices=splits, nargs="+", default=splits, help="sentences of our sensitivities")
    parser.add_argument("--alone", action="store_true", help="without our maps")
    parser.add_argument("--only", default="", help="of the peer's settings, those whose name has this in it")
    parser.add_argument("--of", type=Path, nargs="+", default=[], help="of the summary: files with what was printed")
    parser.add_argument("--picture", type=Path, help="of the summary: the PNG to draw")
    options = parser.parse_args(arguments)
    if options.name == "summary":
        rows, sizes = summary.read(options.of)
        print("\n".join([*summary.table(rows), "", *summary.table_of_ours(rows, sizes)]))
        if options.picture:
            summary.write_picture(rows, options.picture)
        return
    if ABSENT or not options.name:
        print(ABSENT or f"give a name: {', '.join(PEERS)} or ours; see tests/benchmarks/peers/__init__.py")
        return
    if missing := [package for package in PEERS.get(options.name, ()) if not _installed(package)]:
        print(f"{options.name} needs: pip install -c constraints.txt {' '.join(missing)}")
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # these tools say much
    bed = Bed.load(options.sentences)
    ours = Ours(bed, options.sensitivity, options.run)
    counts = {name: len(sentences) for name, sentences in bed.sentences.items()}
    packages = " ".join(PEERS.get(options.name, ("bitfront",)))
    print(f"{packages}; {counts['validation']} validation sentences, {counts['unseen']} unseen")
    print(_HEADINGS, flush=True)
    if options.name == "ours":
        for most_bytes in options.at or OURS_AT:
            print(f"at most {most_bytes:,} bytes")
            _print_ours(ours, most_bytes, options.split)
        return
    peer = importlib.import_module(f"tests.benchmarks.peers.{options.name}_")
    for setting, result in _results(bed, peer.settings(bed), options.only):
        stored = bed.stored_bytes(result)
        _print_row(setting, stored, result.file_bytes, bed.scores(result), result.seconds)
        if not options.alone:
            _print_ours(ours, stored, options.split)


def _results(bed: Bed, settings: Settings, only: str) -> Iterator[tuple[str, Result]]:
    """Yield a peer's settings and results; those that leave embeddings in FP32 with these coded by hand, too."""
    for setting, make in settings:
        if only not in setting:
            continue
        result = make()
        yield setting, result
        if result.logits is None and (left := bed.left(result)):
            parts = "embeddings" if set(left) <= set(bed.embeddings()) else "embeddings and pooler"
            for width in HAND_WIDTHS:
                weights = {**result.weights, **bed.by_hand(left, width)}
                yield f"{setting}, {parts} by hand at {width} bits", replace(result, weights=weights, file_bytes=0)


def _print_ours(ours: Ours, most_bytes: int, splits: Sequence[Split]) -> None:
    for split in splits:
        label = f"  ours, sensitivities on {split} sentences"
        if (bit_map := ours.allocated(most_bytes, split)) is None:
            print(f"{label}: no map is so small")
            continue
        size = ours.problem.footprint.packed_bytes(bit_map)
        _print_row(label, size, size, ours.scores(bit_map), ours.seconds(split))
    if (trial := ours.searched(most_bytes)) is not None:
        size = ours.problem.footprint.packed_bytes(trial.bit_map)
        _print_row(f"  ours, searched: {trial.label}", size, size, ours.scores(trial.bit_map), ours.run_seconds)


def _print_row(label: str, stored: int, file_bytes: int, scores: dict[str, float], seconds: float) -> None:
    file = f"{file_bytes:,}" if file_bytes else "-"
    print(
        f"{label:58} {stored:11,} {file:>11} {scores['damage']:8.3g} {scores['unseen']:8.3g} "
        f"{scores['mcc']:6.3f} {seconds:7.0f}",
        flush=True,
    )


def _installed(package: str) -> bool:
    name, wanted = package.split("==")
    try:
        return version(name) == wanted
    except PackageNotFoundError:
        return False
