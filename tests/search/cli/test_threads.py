import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from search.cli.app import BRIEFLY, let_waiting_threads_sleep
from tests.shared import ROOT

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def own_environment(**chosen: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in VARIABLES} | chosen


def libgomp() -> Path | None:
    """Return the OpenMP library of torch's wheel, without importing torch."""
    torch = find_spec("torch")
    assert torch is not None and torch.origin is not None
    return next((Path(torch.origin).parent / "lib").glob("libgomp*"), None)


@pytest.mark.skipif(libgomp() is None, reason="this torch has no libgomp, which says what it has read")
def test_the_command_line_sets_the_policy_before_torch_loads_openmp() -> None:
    code = (
        "import ctypes, os, sys\nfrom search.cli import app\n"
        "assert 'torch' not in sys.modules and 'GOMP_SPINCOUNT' not in os.environ\n"
        f"app.app = lambda: ctypes.CDLL({str(libgomp())!r})\napp.main()"
    )
    environment = own_environment(OMP_DISPLAY_ENV="verbose")
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert "GOMP_SPINCOUNT = '1000'" in ended.stderr  # 300000 by default


@pytest.mark.parametrize("variable", VARIABLES)
def test_what_the_user_chose_stays(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", own_environment(**{variable: "7"}))
    let_waiting_threads_sleep()
    assert {name: os.environ[name] for name in VARIABLES if name in os.environ} == {variable: "7"}


def test_otherwise_waiting_threads_sleep_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", own_environment())
    let_waiting_threads_sleep()
    assert {name: os.environ[name] for name in VARIABLES if name in os.environ} == BRIEFLY
