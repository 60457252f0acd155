"""Which build of torch `make setup` asks pip for; pip is a fake."""

import subprocess
import sys

import pytest

from tests.shared import ROOT
from tools.torch_build import CPU_INDEX, choose

LINUX = ("Linux", "x86_64")
CPU_FLAGS = f"--extra-index-url {CPU_INDEX}"


class FakePip:
    def __init__(self, settings: str = "", reachable: bool = True) -> None:
        self.settings = settings
        self.reachable = reachable
        self.asked: list[str] = []

    def __call__(self, *arguments: str) -> tuple[bool, str]:
        self.asked.append(arguments[0])
        return (True, self.settings) if arguments[0] == "config" else (self.reachable, "")


def test_linux_without_nvidia_gets_the_cpu_build() -> None:
    flags, message = choose([], {}, LINUX, False, FakePip("global.timeout='60'\nglobal.cert='/etc/index-url'\n"))
    assert flags == CPU_FLAGS
    assert "the CPU build" in message


@pytest.mark.parametrize(
    ("pip_flags", "machine", "nvidia", "reason"),
    [
        (["--pre"], LINUX, False, "PIP_FLAGS"),
        ([], ("Darwin", "arm64"), False, "Darwin arm64"),
        ([], ("Linux", "aarch64"), False, "Linux aarch64"),
        ([], LINUX, True, "NVIDIA device"),
    ],
)
def test_elsewhere_pip_is_not_even_asked(
    pip_flags: list[str], machine: tuple[str, str], nvidia: bool, reason: str
) -> None:
    pip = FakePip()
    flags, message = choose(pip_flags, {}, machine, nvidia, pip)
    assert (flags, pip.asked) == ("", [])
    assert reason in message


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        ("global.index-url='https://mirror.example/simple'\n", {}),
        (":env:.extra-index-url='https://mirror.example/simple'\n", {}),
        ("install.find-links='/opt/wheels'\n", {}),
        ("user.no-index='true'\n", {}),
        ("", {"UV_DEFAULT_INDEX": "https://mirror.example/simple"}),
    ],
)
def test_an_index_of_the_users_own_is_left_alone(settings: str, environment: dict[str, str]) -> None:
    pip = FakePip(settings)
    flags, message = choose([], environment, LINUX, False, pip)
    assert (flags, pip.asked) == ("", ["config"])
    assert "configured" in message


def test_an_index_out_of_reach_gives_the_plain_build_and_says_so() -> None:
    flags, message = choose([], {}, LINUX, False, FakePip(reachable=False))
    assert flags == ""
    assert CPU_INDEX in message
    assert "\n" not in message


def test_the_script_prints_flags_and_message_apart() -> None:
    command = [sys.executable, "tools/torch_build.py", "--pre"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("\n", "torch: as PIP_FLAGS says\n")
