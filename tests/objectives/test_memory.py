from __future__ import annotations

import subprocess
import sys

import pytest

from tests.shared import ROOT

_BLOCKS = """
import torch
from objectives.memory import give_back_large_blocks
from tests.results.random_checkpoint import memory_bytes

give_back_large_blocks()
torch.ones(2**20).sum()  # glibc would take the size of this freed block as a hint to keep such blocks
before = memory_bytes("VmRSS")
blocks = []
for _ in range(40):
    blocks += [torch.ones(2**19), torch.ones(2**13)]  # 2 MiB, and 32 KiB that stay behind them
full = memory_bytes("VmRSS")
del blocks[::2]
print(full - before, memory_bytes("VmRSS") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the memory of a process here")
def test_large_blocks_go_back_to_the_system_at_once() -> None:
    command = [sys.executable, "-c", _BLOCKS]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    full, left = (int(word) for word in told.split())
    assert full >= 40 * 2**21
    assert left < 4 * 2**20
