"""Returning freed memory to the operating system."""

from __future__ import annotations

import ctypes
import sys


def give_back_freed() -> None:
    """Return freed memory to the system; do nothing if the C library is not glibc."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
