import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import Timeout
from safetensors import SafetensorError

from objectives import files
from objectives.errors import InputError
from objectives.files import LockHeldError, process_lock, replacing, replacing_directory, sync, user_path, write_text
from objectives.tensor_files import save_tensors


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.csv"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("cut off")
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(RuntimeError), replacing_directory(path) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError("cut off")
    assert list(tmp_path.iterdir()) == []
    with replacing_directory(path) as temporary:
        (temporary / "whole").write_text("x")
    assert (path / "whole").read_text() == "x"
    with pytest.raises(FileExistsError), replacing_directory(path):
        pass


def test_tensors_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.zeros(3)}, {})
    before = path.read_bytes()

    def full(tensors: object, where: object, metadata: object) -> None:
        Path(str(where)).write_bytes(before[:20])
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("objectives.tensor_files.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(path, {"a": torch.ones(3)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture(params=[0o022, 0o027])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_all_files_have_the_mode_that_the_umask_gives_new_ones(tmp_path: Path, umask: int) -> None:
    with replacing_directory(tmp_path / "model") as temporary:
        (temporary / "deep").mkdir(mode=0o700)
        for name in ("weights", "deep/weights"):
            (temporary / name).touch(mode=0o600)  # as safetensors writes them
    write_text(tmp_path / "file", "x")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        **{"model": 0o777 & ~umask, "deep": 0o777 & ~umask},
        **{"file": 0o666 & ~umask, "weights": 0o666 & ~umask},
    }


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_modes_keeps_files_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "chmod", refuse)
    write_text(tmp_path / "file", "x")
    with replacing_directory(tmp_path / "model") as temporary:
        (temporary / "weights").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "model", "weights"]


def test_only_a_file_system_that_cannot_sync_is_excused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = errno.EINVAL

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    sync(0)
    write_text(tmp_path / "file", "x")
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "file", "y")
    assert (tmp_path / "file").read_text() == "x"


def without_flock(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_that_refuses_locks_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    without_flock(monkeypatch, code)
    with (
        pytest.raises(OSError, match=r"has no locks .*use a directory on a local disk") as caught,
        process_lock(tmp_path / "lock"),
    ):
        pass
    assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "lock"))


@pytest.mark.filterwarnings("ignore:flock not supported")  # as objectives.files asks for
def test_a_lock_that_a_dead_process_left_elsewhere_is_waited_for_aloud_and_until_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_flock(monkeypatch, errno.ENOSYS)  # filelock then locks by the file's existence
    monkeypatch.setattr(files, "_TELL_AFTER_S", 0.02)
    monkeypatch.setattr(files, "_ASK_AGAIN_S", 0.02)
    lock = tmp_path / "lock"
    with process_lock(lock), pytest.raises(LockHeldError, match=rf"\({os.getpid()} on "), process_lock(lock, 0):
        pass
    assert not lock.exists()
    lock.write_text("4321\nnode17\n", encoding="utf-8")
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    with (
        caplog.at_level(logging.WARNING, "bitfront"),
        pytest.raises(LockHeldError, match=r"\(4321 on node17\) holds this lock; if no such process runs, delete"),
        process_lock(lock, should_stop=should_stop),
    ):
        pass
    assert asked == 3
    [told] = caplog.messages
    assert told.startswith(f"{lock}: waiting, because another process (4321 on node17)")
    lock.unlink()
    with process_lock(lock):
        assert lock.exists()


def test_once_a_wait_is_told_it_can_be_ended_within_half_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal sets only a flag, and batch systems kill a process seconds after SIGTERM."""
    (tmp_path / "lock").write_text("4321\nnode17\n", encoding="utf-8")
    waits: list[float] = []

    class Held:
        is_locked = False

        def __init__(self, path: Path) -> None:
            self.path = path

        def acquire(self, timeout: float, poll_interval: float) -> None:
            waits.append(timeout)
            raise Timeout(str(self.path))

    monkeypatch.setattr(files, "FileLock", Held)
    with pytest.raises(LockHeldError), process_lock(tmp_path / "lock", should_stop=lambda: len(waits) == 4):
        pass
    assert waits == [5.0, 0.5, 0.5, 0.5]


def test_a_users_path_may_begin_with_a_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x"
    assert user_path(Path("a/~/x")) == Path("a/~/x")
    monkeypatch.setenv("HOME", "")
    assert user_path("x") == Path("x")
    for path in ("~/x", "~no-such-user/x"):
        with pytest.raises(InputError, match=f"{path}: there is no such home directory"):
            user_path(path)
