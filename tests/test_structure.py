"""The import direction objectives <- results <- search, the fences around third-party packages, and rules for tests."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.shared import ROOT

PACKAGES = ("objectives", "results", "search")
MAY_IMPORT = {"objectives": {"objectives"}, "results": {"objectives", "results"}, "search": set(PACKAGES)}
LOADING = {
    "objectives/loading/hub.py",
    "objectives/loading/models.py",
    "objectives/loading/sentences.py",
    "objectives/training/finetune.py",
}
CHECKPOINTS = {"results/export/packed.py", "results/export/torchao.py"}  # what came out as a model, in tensors
FENCES: dict[str, Callable[[str], bool]] = {
    "optuna": lambda path: path.startswith("search/"),
    "transformers": lambda path: path in LOADING,
    "datasets": lambda path: path in LOADING,
    "matplotlib": lambda path: path.startswith("results/") and "plot" in path,
    "torchao": lambda path: path == "results/export/torchao.py",
    "torch": lambda path: not path.startswith("results/") or path in CHECKPOINTS,
    "tests": lambda path: False,
}
READING = (
    "search.cli.status",
    "search.run.reporting",
    "search.cli.comparing",
    "search.run.profile",
    "results.report.report",
)


def modules() -> list[str]:
    """Return every module of the product, relative to the root."""
    return sorted(path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def files_of_tests() -> list[str]:
    """Return every file of the tests, relative to the root."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))


def imported_packages(path: Path) -> Iterator[str]:
    """Yield the top-level package of each import anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import at line {node.lineno}"
            assert node.module is not None
            yield node.module.split(".")[0]


def test_there_are_modules_in_every_package() -> None:
    assert {module.split("/")[0] for module in modules()} == set(PACKAGES)


@pytest.mark.parametrize("module", modules())
def test_imports_follow_the_one_direction(module: str) -> None:
    imported = set(imported_packages(ROOT / module))
    assert imported & set(PACKAGES) <= MAY_IMPORT[module.split("/")[0]]
    outside = {name for name, allows in FENCES.items() if name in imported and not allows(module)}
    assert not outside, f"{module} imports {outside} across its fence"


@pytest.mark.parametrize("file", files_of_tests())
def test_tests_share_helpers_and_wait_with_a_deadline(file: str) -> None:
    """What two test modules need is in a module of its own, and ``tests.waiting`` is the one loop that sleeps."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").rsplit(".", 1)[-1].startswith("test_"), f"line {node.lineno}: {node.module}"
        elif isinstance(node, ast.While) and file != "tests/waiting.py":
            called = {
                ast.unparse(part.func).rsplit(".", 1)[-1] for part in ast.walk(node) if isinstance(part, ast.Call)
            }
            assert not called & {"sleep", "time.sleep"}, f"line {node.lineno}: use wait_until"


def test_what_reads_a_run_waits_for_neither_torch_nor_transformers() -> None:
    program = f"import sys, {', '.join(READING)}\nprint(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    imported = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert imported.stdout == "[]\n"
