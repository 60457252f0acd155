"""Imports form a tree between packages, between rooms and towards third-party packages; rules for tests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.shared import ROOT

PACKAGES = ("objectives", "results", "search")
MAY_IMPORT = {"objectives": {"objectives"}, "results": {"objectives", "results"}, "search": set(PACKAGES)}
ROOMS = {
    "objectives": ("heads", "packing", "miniature", "loading", "quantization", "evaluation", "training"),
    "results": ("statistics", "export", "plots", "report"),
    "search": ("storage", "allocation", "study", "samplers", "run", "cli"),
}
"""The rooms of each package, from the bottom up: a room imports only from those before it."""
INDEPENDENT = {"search.storage", "search.allocation"}  # side by side: neither imports the other
LOADING = ("objectives/loading/", "objectives/training/")
EXPORTED_MODELS = {
    *("results/export/packed.py", "results/export/packed_modules.py", "results/export/torchao.py")
}  # tensors leave the product here
FENCES: dict[str, Callable[[str], bool]] = {
    "optuna": lambda path: path.startswith("search/"),
    "transformers": lambda path: path.startswith(LOADING),
    "datasets": lambda path: path.startswith(LOADING),
    "matplotlib": lambda path: path.startswith("results/plots/"),
    "torchao": lambda path: path == "results/export/torchao.py",
    "onnx": lambda path: path.startswith("results/export/onnx/"),
    "onnxruntime": lambda path: path == "results/export/onnx_session.py",
    "torch": lambda path: not path.startswith("results/") or path in EXPORTED_MODELS,
    "tests": lambda path: False,
}
READING = (
    *("search.cli.status", "search.cli.comparing", "search.run.reporting", "search.run.profile"),
    "results.report.report",
)
MOST_MODULES = 14
GIVEN = re.compile(r"bitfront [a-z]+( --[a-z]+ ?\S*)* --(run|model|data|out|checkpoint|bitmap|profile) $")
"""A printed command up to what the user gave for one of its options."""


def modules() -> list[str]:
    """Return every module of the product, relative to the root."""
    return sorted(path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def files_of_tests() -> list[str]:
    """Return every file of the tests, relative to the root."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of each module that is imported anywhere in a file, or of what is imported from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import at line {node.lineno}"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def node_of(dotted: str) -> str:
    """Return the room of a module, or the module itself if it lies at the top of its package."""
    return ".".join(dotted.split(".")[:2])


def test_there_are_modules_in_every_room() -> None:
    rooms = {tuple(module.split("/")[:2]) for module in modules() if module.count("/") > 1}
    assert rooms == {(package, room) for package in PACKAGES for room in ROOMS[package]}


@pytest.mark.parametrize("module", modules())
def test_imports_follow_the_one_direction(module: str) -> None:
    imported = list(imports(ROOT / module))
    packages = {name.split(".")[0] for name in imported}
    package, *inner = module.split("/")
    assert packages & set(PACKAGES) <= MAY_IMPORT[package]
    outside = {name for name, allows in FENCES.items() if name in packages and not allows(module)}
    assert not outside, f"{module} imports {outside} across its fence"
    if len(inner) > 1:
        order = ROOMS[package]
        below = {f"{package}.{room}" for room in order[: order.index(inner[0])]}
        rooms = {f"{package}.{room}" for room in order}
        used = {node_of(name) for name in imported} & rooms - {f"{package}.{inner[0]}"}
        assert used <= below, f"{module} imports {used - below}, which lie above it"
        assert not (f"{package}.{inner[0]}" in INDEPENDENT and used & INDEPENDENT)


def test_rooms_and_top_modules_form_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for module in modules():
        own = node_of(module.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        used = {node_of(name) for name in imports(ROOT / module) if name.split(".")[0] in PACKAGES}
        graph.setdefault(own, set()).update(used - {own})
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_no_folder_is_too_full_to_find_a_module_in() -> None:
    folders = {path.parent for path in map(Path, modules())}
    for folder in folders:
        count = sum(path.name != "__init__.py" for path in (ROOT / folder).glob("*.py"))
        assert count <= MOST_MODULES, f"{folder} has {count} modules"


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


def unquoted(node: ast.JoinedStr) -> Iterator[str]:
    """Yield what follows ``bitfront COMMAND --run`` and the like in a text without being quoted for a shell."""
    before = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            before += str(part.value)
        elif isinstance(part, ast.FormattedValue):
            given = re.search(
                r"bitfront [a-z]+( --[a-z]+ ?\S*)* --(run|model|data|out|checkpoint|bitmap|profile) $", before
            )
            if given and not ast.unparse(part.value).startswith("quoted("):
                yield ast.unparse(part.value)
            before += "X"


def test_every_command_that_is_printed_can_be_pasted() -> None:
    found = {
        f"{module}: {value}"
        for module in modules()
        for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr)
        for value in unquoted(node)
    }
    assert not found
    [bad] = ast.parse('f"run bitfront distill --trial {n} --run {run}"').body
    assert isinstance(bad, ast.Expr) and isinstance(bad.value, ast.JoinedStr)
    assert [*unquoted(bad.value)] == ["run"]


def test_what_reads_a_run_waits_for_neither_torch_nor_transformers() -> None:
    program = f"import sys, {', '.join(READING)}\nprint(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    imported = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert imported.stdout == "[]\n"
