"""Run a benchmark by name; what follows the name goes to it. Without a name, run them all."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import (
    ablation,
    bert_base,
    checkpoint,
    contention,
    distill,
    evaluate,
    floor,
    luck,
    onnx_export,
    overhead,
    peers,
    quantizers,
    screening,
    search,
    search_end,
    shrinkage,
    storage,
    target_widths,
    trained_allocation,
    workers,
)

BENCHMARKS: dict[str, Callable[[list[str]], None]] = {
    "evaluate": evaluate.main,
    "search": search.main,
    "search_end": search_end.main,
    "floor": floor.main,
    "overhead": overhead.main,
    "screening": screening.main,
    "luck": luck.main,
    "quantizers": quantizers.main,
    "checkpoint": checkpoint.main,
    "bert_base": bert_base.main,
    "storage": storage.main,
    "workers": workers.main,
    "shrinkage": shrinkage.main,
    "contention": contention.main,
    "onnx": onnx_export.main,
    "peers": peers.main,
    "target_widths": target_widths.main,
    "distill": distill.main,
    "ablation": ablation.main,
    "trained_allocation": trained_allocation.main,
}


def main(arguments: list[str]) -> int:
    """Run the named benchmark, or all, and return the exit status."""
    if arguments and arguments[0] not in BENCHMARKS:
        print(f"no benchmark {arguments[0]}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in arguments[:1] or BENCHMARKS:
        print(f"== {name}")
        BENCHMARKS[name](arguments[1:])
    return 0


sys.exit(main(sys.argv[1:]))
