"""Run benchmarks by name; without a name, list them and run them all."""

from __future__ import annotations

import sys

from tests.benchmarks import evaluate

BENCHMARKS = {"evaluate": evaluate.main}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all, and return the exit status."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names or BENCHMARKS:
        print(f"== {name}")
        BENCHMARKS[name]()
    return 0


sys.exit(main(sys.argv[1:]))
