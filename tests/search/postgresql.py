"""A PostgreSQL server of our own on loopback, started by an unprivileged user and killed at will."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "s3cret-of-the-test"


@dataclass(frozen=True)
class Server:
    """Where it listens and how it is started."""

    binaries: Path
    directory: Path
    port: int

    @property
    def url(self) -> str:
        """What a search is told."""
        return f"postgresql+psycopg://bitfront:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self.directory} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-l", self.directory / "log", "-o", options)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", self.data)

    @property
    def data(self) -> Path:
        """The cluster's directory."""
        return self.directory / "data"

    def initialise(self) -> None:
        """Make the cluster, with a user who needs a password."""
        words = self.directory / "words"
        words.write_text(PASSWORD)
        shutil.chown(words, *_user())
        self._run("initdb", "-D", self.data, "-U", "bitfront", "-A", "scram-sha-256", f"--pwfile={words}", "-N")

    def _run(self, command: str, *arguments: object) -> None:
        user, group = _user()
        words = [str(self.binaries / command), *(str(argument) for argument in arguments)]
        ended = subprocess.run(
            words,
            cwd=self.directory,
            user=user,
            group=group,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr


def _user() -> tuple[int, int]:
    """Return whom the server belongs to: initdb refuses root."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _binaries() -> Path | None:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


@contextmanager
def running_server() -> Iterator[Server]:
    """Give a fresh server; the test is skipped where there is none to start."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server here; Debian's package is postgresql")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed; it is in the extra postgresql")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory = Path(tempfile.mkdtemp(prefix="bitfront-postgresql-"))
    shutil.chown(directory, *_user())
    server = Server(binaries, directory, port)
    try:
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory)


@contextmanager
def server_url() -> Iterator[str | None]:
    """Give a benchmark the URL of a fresh server; None, and why on standard error, where there is none to start."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_server())
        except pytest.skip.Exception as reason:
            print(f"no PostgreSQL: {reason}", file=sys.stderr)
            yield None
        else:
            yield server.url
