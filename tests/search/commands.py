"""The command line as tests start it, and the tables that it writes."""

import csv
import sys
from pathlib import Path


def command_line(*arguments: object) -> list[str]:
    """Return the command line for a process of its own."""
    return [sys.executable, "-m", "search.cli.app", *(str(argument) for argument in arguments)]


def rows(path: Path) -> list[dict[str, str]]:
    """Return a CSV file's rows by column name."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
