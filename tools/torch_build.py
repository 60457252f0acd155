"""Print pip's flags for the build of torch that fits this machine, and say on stderr which it is.

The Makefile runs it in a fresh environment and passes PIP_FLAGS as arguments. On Linux torch's plain wheels bring
gigabytes of CUDA libraries, which are of no use without an NVIDIA device.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_SOURCES = ("index-url", "extra-index-url", "find-links", "no-index")
_UV_SOURCES = (
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_TORCH_BACKEND",
)

Pip = Callable[..., tuple[bool, str]]
"""Runs pip with these arguments; returns whether it succeeded, and what it printed."""


def run_pip(*arguments: str) -> tuple[bool, str]:
    """Run this interpreter's pip, which knows the user's proxies and certificates."""
    command = [sys.executable, "-m", "pip", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own arguments
    return ended.returncode == 0, ended.stdout


def has_nvidia() -> bool:
    """Return whether there is a sign of an NVIDIA device."""
    return any(Path("/dev").glob("nvidia*")) or shutil.which("nvidia-smi") is not None


def choose(
    pip_flags: Sequence[str], environment: Mapping[str, str], machine: tuple[str, str], nvidia: bool, pip: Pip
) -> tuple[str, str]:
    """Return flags for pip, empty for a plain install, and a line that says what was chosen and why.

    Args:
        pip_flags: what the user gave as PIP_FLAGS.
        environment: the environment variables.
        machine: the system and the processor, as ``("Linux", "x86_64")``.
        nvidia: whether there is an NVIDIA device.
        pip: runs pip.
    """
    if pip_flags:
        return "", "torch: as PIP_FLAGS says"
    if machine != ("Linux", "x86_64"):
        return "", f"torch: the plain build, for {' '.join(machine)}"
    if nvidia:
        return "", "torch: the build with CUDA, for there is an NVIDIA device"
    _, settings = pip("config", "list")
    # Lines such as global.index-url='...'; variables like PIP_INDEX_URL are among them as :env:.index-url='...'
    keys = {line.partition("=")[0].rpartition(".")[2] for line in settings.splitlines()}
    if keys & set(_SOURCES) or any(environment.get(name) for name in _UV_SOURCES):
        return "", "torch: from the package index that is configured here"
    reached, _ = pip("index", "versions", "torch", "--index-url", CPU_INDEX, "--retries", "0", "--timeout", "10")
    if not reached:
        return "", f"torch: the plain build, with gigabytes of CUDA libraries, for {CPU_INDEX} cannot be reached"
    other = "PIP_FLAGS='--index-url https://pypi.org/simple'"
    return f"--extra-index-url {CPU_INDEX}", f"torch: the CPU build, for there is no NVIDIA device; else give {other}"


if __name__ == "__main__":
    flags, message = choose(sys.argv[1:], os.environ, (platform.system(), platform.machine()), has_nvidia(), run_pip)
    print(message, file=sys.stderr)
    print(flags)
