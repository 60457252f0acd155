"""Memory that was freed, and is free only for this process until it is given back."""

from __future__ import annotations

import ctypes
import sys


def give_back_freed() -> None:
    """Give memory that was freed back to the system; where the C library is not glibc, do nothing."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
