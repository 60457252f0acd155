"""Returning freed memory to the operating system. Without glibc, nothing here has an effect."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BLOCK = 2**20  # bytes


def give_back_freed() -> None:
    """Return the memory freed so far."""
    _call("malloc_trim", 0)


def give_back_large_blocks() -> None:
    """From now on return each freed tensor of a mebibyte or more at once.

    glibc would keep it for the next one, and gradients and activations of many sizes then leave gaps.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _call(function: str, *arguments: int) -> None:
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), function):
        getattr(libc, function)(*arguments)
