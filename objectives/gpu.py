"""How a GPU is kept busy: kernels of our own where they can run, and graphs of launches in place of the launches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from objectives.forward import States

Step = Callable[[States], States]

_OLDEST = (8, 0)  # compute capability: the first that multiplies bf16


@cache
def kernels_on(device: torch.device) -> ModuleType | None:
    """Return ``objectives.kernels`` where they can run; None on a CPU, on an old GPU and where Triton is missing."""
    if device.type != "cuda" or find_spec("triton") is None or torch.cuda.get_device_capability(device) < _OLDEST:
        return None
    from objectives import kernels

    return kernels


class Recorded:
    """A step whose launches are recorded once and sent to the GPU as one graph from then on.

    What it returns lies in the same memory every time: it is good until the next call.
    """

    def __init__(self, step: Step, states: States, pool: Any) -> None:
        """Record a step from states that the step before it returns, or that are given to :meth:`__call__` later.

        ``pool`` is the memory that graphs share which never run at the same time.
        """
        self._states = states
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(stream):
            step(states)  # compiles kernels and makes workspaces, which cannot be recorded
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self.returned = step(states)

    def __call__(self, states: States) -> States:
        """Return what the step returns."""
        for own, given in zip(self._states, states, strict=True):
            if own is not given:
                own.copy_(given)
        self._graph.replay()
        return self.returned


def record(steps: Sequence[Step]) -> list[Step]:
    """Return steps that follow each other, the first from nothing, as graphs on the current GPU."""
    pool = torch.cuda.graph_pool_handle()
    states: States = ()
    recorded: list[Step] = []
    for step in steps:
        graph = Recorded(step, states, pool)
        states = graph.returned
        recorded.append(graph)
    return recorded
