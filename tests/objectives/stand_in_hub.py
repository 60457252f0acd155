"""A stand-in for the Hugging Face hub on the loopback interface: enough of its HTTP for the libraries to load from it.

It answers as the hub does: repository information and file trees under ``/api``, files under ``/resolve`` with commit
and ETag, a redirect to a second server (the hub's content network) for the large ones, and the hub's error codes. What
is loaded from it must run in a process of its own, because the libraries read ``HF_ENDPOINT`` when they are imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pandas as pd

Files = Mapping[str, bytes]
Trouble = Literal["gated", "broken", "cut", "silent"]
"""What is wrong with a repository: its files need a login, every answer is HTTP 500, its large files break off halfway,
or nothing is answered at all."""

_LARGE = (".safetensors", ".bin", ".parquet")


@dataclass(frozen=True)
class StandInHub:
    """A running stand-in: its address, and each request that it got so far as "METHOD /path"."""

    endpoint: str
    requests: list[str] = field(default_factory=list)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Return this process's environment with the hub replaced, ``home`` as its cache, and ``more`` on top."""
        return hub_environment(self.endpoint, home, **more)


def hub_environment(endpoint: str, home: Path, **more: str) -> dict[str, str]:
    """Return this process's environment with ``endpoint`` for the hub, ``home`` as its cache, and ``more`` on top."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",  # its protocol is not served here
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",  # several children share the cores
        **more,
    }


@contextmanager
def stand_in_hub(
    *,
    models: Mapping[str, Files] | None = None,
    datasets: Mapping[str, Files] | None = None,
    trouble: Mapping[str, Trouble] | None = None,
) -> Iterator[StandInHub]:
    """Serve repositories on 127.0.0.1 until the block ends.

    Args:
        models: repository name -> its files by path.
        datasets: the same for data sets.
        trouble: repository name -> what is wrong with it.
    """
    repositories = [
        _Repository(kind, name, dict(files), (trouble or {}).get(name))
        for kind, served in (("models", models or {}), ("datasets", datasets or {}))
        for name, files in served.items()
    ]
    with _serving() as hub_server, _serving() as network_server:
        network = f"http://127.0.0.1:{network_server.server_port}"
        hub = StandInHub(f"http://127.0.0.1:{hub_server.server_port}")
        stopping = threading.Event()
        hub_server.answer = network_server.answer = _Answers(repositories, network, hub.requests, stopping)
        try:
            yield hub
        finally:
            stopping.set()


def files_of(directory: Path) -> dict[str, bytes]:
    """Return the files of a directory by their paths in it, as a repository to serve."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def glue_files(train: pd.DataFrame, validation: pd.DataFrame) -> dict[str, bytes]:
    """Return the files of ``nyu-mll/glue`` with its configuration ``cola``, and ``sst2`` as one of the others.

    Args:
        train: columns ``sentence`` and ``label``.
        validation: the same.
    """
    splits = {"train": train, "validation": validation, "test": validation.assign(label=-1)}
    header = ["---", "dataset_info:"]
    for config in ("cola", "sst2"):
        header += [
            f"- config_name: {config}",
            "  features:",
            "  - name: sentence",
            "    dtype: string",
            "  - name: label",
            "    dtype:",
            "      class_label:",
            "        names:",
            "          '0': unacceptable",
            "          '1': acceptable",
            "  - name: idx",
            "    dtype: int32",
            "  splits:",
        ]
        for split, table in splits.items():
            header += [f"  - name: {split}", "    num_bytes: 1", f"    num_examples: {len(table)}"]
        header += ["  download_size: 1", "  dataset_size: 1"]
    header.append("configs:")
    for config in ("cola", "sst2"):
        header += [f"- config_name: {config}", "  data_files:"]
        for split in splits:
            header += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    header += ["---", "", "# GLUE"]
    files = {"README.md": "\n".join(header).encode()}
    for split, table in splits.items():
        indexed = table.assign(idx=pd.Series(range(len(table)), dtype="int32"))
        for config in ("cola", "sst2"):
            parquet = indexed.to_parquet(None, index=False)
            assert parquet is not None
            files[f"{config}/{split}-00000-of-00001.parquet"] = parquet
    return files


@dataclass(frozen=True)
class _Repository:
    kind: str
    name: str
    files: dict[str, bytes]
    trouble: Trouble | None

    @property
    def commit(self) -> str:
        return hashlib.sha1(self.name.encode()).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _sha1(content)}
        if path.endswith(_LARGE):
            entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 132}
        return entry

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        prefix = f"{folder}/" if folder else ""
        inside = [path.removeprefix(prefix) for path in self.files if path.startswith(prefix)]
        folders = sorted({path.split("/")[0] for path in inside if "/" in path})
        return [{"type": "directory", "path": prefix + name, "oid": _sha1(name.encode())} for name in folders] + [
            self.entry(prefix + path) for path in inside if recursive or "/" not in path
        ]

    def paths_info(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        known = [self.entry(path) for path in paths if path in self.files]
        folders = [path for path in paths if any(file.startswith(f"{path}/") for file in self.files)]
        return known + [{"type": "directory", "path": path, "oid": _sha1(path.encode())} for path in folders]


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True)
class _Answers:
    """What to answer to which request."""

    repositories: list[_Repository]
    network: str
    requests: list[str]
    stopping: threading.Event

    def __call__(self, method: str, target: str, body: bytes) -> _Answer:
        url = urlsplit(target)
        path = unquote(url.path)
        self.requests.append(f"{method} {path}")
        if path.startswith("/network/"):
            return self._large_file(*path.removeprefix("/network/").rsplit("/", 1))
        for repository in self.repositories:
            prefix = "/datasets" if repository.kind == "datasets" else ""
            for start, answer in (
                (f"/api/{repository.kind}/{repository.name}", self._api),
                (f"{prefix}/{repository.name}/resolve", self._file),
            ):
                if path == start or path.startswith(f"{start}/"):
                    if repository.trouble == "silent":
                        self.stopping.wait()
                    if repository.trouble == "broken":
                        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, None, "Internal Error - We're working on it")
                    return answer(repository, path.removeprefix(start).strip("/"), parse_qs(url.query), body)
        # To somebody who is not logged in the hub does not tell what is missing from what is private.
        return _error(HTTPStatus.UNAUTHORIZED, "RepoNotFound", "Repository not found")

    def _api(self, repository: _Repository, rest: str, query: Mapping[str, list[str]], body: bytes) -> _Answer:
        action, _, rest = rest.partition("/")
        revision, _, folder = rest.partition("/")
        if revision not in ("", "main", repository.commit):
            return _error(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        if action == "tree":
            return _json(repository.tree(folder, query.get("recursive", ["false"])[0].lower() == "true"))
        if action == "paths-info":
            paths = parse_qs(body.decode()).get("paths", []) if not body.startswith(b"{") else json.loads(body)["paths"]
            return _json(repository.paths_info([paths] if isinstance(paths, str) else paths))
        if action in ("", "revision"):
            return _json(
                {
                    "id": repository.name,
                    "sha": repository.commit,
                    "private": False,
                    "gated": "manual" if repository.trouble == "gated" else False,
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [{"rfilename": path} for path in sorted(repository.files)],
                }
            )
        return _error(HTTPStatus.NOT_FOUND, None, "Sorry, we can't find the page you are looking for.")

    def _file(self, repository: _Repository, rest: str, _query: Mapping[str, list[str]], _body: bytes) -> _Answer:
        revision, _, path = rest.partition("/")
        commit = {"X-Repo-Commit": repository.commit}
        if revision not in ("main", repository.commit):
            return _error(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        if repository.trouble == "gated":
            return _error(
                HTTPStatus.UNAUTHORIZED,
                "GatedRepo",
                f"Access to {repository.kind[:-1]} {repository.name} is restricted.",
            )
        content = repository.files.get(path)
        if content is None:
            return _error(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", commit)
        if not path.endswith(_LARGE):
            return _Answer(HTTPStatus.OK, content, {"ETag": f'"{_sha1(content)}"', **commit})
        return _Answer(
            HTTPStatus.FOUND,
            headers={
                "Location": f"{self.network}/network/{repository.name}/{_sha256(content)}",
                "X-Linked-Etag": f'"{_sha256(content)}"',
                "X-Linked-Size": str(len(content)),
                **commit,
            },
        )

    def _large_file(self, name: str, digest: str) -> _Answer:
        for repository in self.repositories:
            for content in repository.files.values():
                if repository.name == name and _sha256(content) == digest:
                    cut = repository.trouble == "cut"
                    return _Answer(HTTPStatus.OK, content, {"ETag": f'"{digest}"'}, cut)
        return _error(HTTPStatus.FORBIDDEN, None, "no such object")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: _Answers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _reply(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answer(self.command, self.path, body)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
        if answer.cut:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = _reply  # noqa: N815 # the names that http.server calls

    def log_message(self, *_: object) -> None:
        pass  # it would go to the terminal; StandInHub.requests has it


@contextmanager
def _serving() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _json(value: object) -> _Answer:
    return _Answer(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _error(status: HTTPStatus, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> _Answer:
    codes = {} if code is None else {"X-Error-Code": code}
    return _Answer(
        status,
        json.dumps({"error": message}).encode(),
        {"Content-Type": "application/json", "X-Error-Message": message, **codes, **(headers or {})},
    )


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
