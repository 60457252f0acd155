"""How a GPU is kept busy: kernels of our own where they can run, and graphs of launches in place of the launches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from objectives.evaluation.forward import States

log = logging.getLogger("bitfront")

Step = Callable[[States], States]

_FIRST_WITH_BF16 = (8, 0)  # compute capability


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether a processor multiplies bf16 matrices itself; others are far slower than in FP32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _FIRST_WITH_BF16
    capable = torch.cpu.get_capabilities()
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))


@cache
def kernels_on(device: torch.device) -> ModuleType | None:
    """Return the module of Triton kernels if it can run; None on a CPU, on an old GPU and without Triton.

    Triton also needs a C compiler, and whatever else it may miss is told once.
    """
    if device.type != "cuda" or find_spec("triton") is None or not multiplies_bf16(device):
        return None
    try:
        from objectives.evaluation import triton_kernels as kernels

        row = torch.ones(1, 16, device=device)
        kernels.add_norm(row, row, row[0], row[0], 1.0, row.dtype)
    except Exception as error:
        log.warning("scoring without kernels of our own, slower: Triton fails here: %s", error)
        return None
    return kernels


class Recorded:
    """A step whose launches are recorded once and sent to the GPU as one graph from then on.

    What it returns lies in the same memory every time: it is good until this step or one recorded before it is called.
    """

    def __init__(self, step: Step, states: States, pool: Any) -> None:
        """Record a step from states that the step before it returns, or that are given to :meth:`__call__` later.

        ``pool`` is the memory that graphs share which never run at the same time.
        """
        self._states = states
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            step(states)  # compiles kernels, which cannot be recorded
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self.returned = step(states)

    def __call__(self, states: States) -> States:
        """Return what the step returns."""
        for own, given in zip(self._states, states, strict=True):
            if own is not given:
                own.copy_(given)
        self._graph.replay()
        return self.returned


def record(steps: Sequence[Step]) -> list[Step]:
    """Return steps that follow each other, the first from nothing, as graphs on the current GPU.

    What each of them returns stays in the GPU's memory: for bert-base and CoLA 12 times 37 MB in FP32.
    """
    pool = torch.cuda.graph_pool_handle()
    states: States = ()
    recorded: list[Step] = []
    for step in steps:
        graph = Recorded(step, states, pool)
        states = graph.returned
        recorded.append(graph)
    return recorded
