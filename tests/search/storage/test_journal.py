import errno
import fcntl
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from typing_extensions import Buffer

from objectives import files
from objectives.errors import InputError
from objectives.files import LockHeldError
from search.storage.stores import STUDY_NAME, JournalStore


def journal_of(path: Path, trials: int) -> optuna.Study:
    study = optuna.create_study(storage=JournalStore(path).backend, study_name=STUDY_NAME, load_if_exists=True)
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, trial.suggest_int("width", 2, 8))
    return study


def values(path: Path) -> list[float]:
    return [trial.values[0] for trial in journal_of(path, 0).trials]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    journal_of(tmp_path / "j", 4)
    return tmp_path / "j"


@pytest.mark.parametrize("torn", [b'{"op_code":5,"wor', b"\x00\x00\x00"])
def test_a_torn_last_line_is_set_aside_by_the_next_writer(journal: Path, torn: bytes) -> None:
    before = values(journal)
    with journal.open("ab") as file:
        file.write(torn)
    assert values(journal) == before  # a reader waits for the rest of the line
    journal_of(journal, 1)
    assert values(journal)[:4] == before
    assert len(values(journal)) == 5
    assert journal.with_name("j.torn").read_bytes() == torn + b"\n"


def test_a_batch_is_written_whole_at_its_end_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "j"
    store = JournalStore(path)
    trial = optuna.create_study(storage=store.backend, study_name=STUDY_NAME).ask()
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), store.together():
        trial.suggest_int("a", 2, 8)
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    with store.together():
        widths = {name: trial.suggest_int(name, 2, 8) for name in "bc"}
        assert path.read_bytes() == before
    assert path.read_bytes().startswith(before)
    study = optuna.load_study(study_name=STUDY_NAME, storage=JournalStore(path).backend)
    assert study.trials[0].params == widths


@pytest.mark.filterwarnings("ignore:flock not supported")  # as objectives.files asks for
def test_a_stop_request_ends_the_wait_for_a_lock_that_another_machine_left(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(files, "_TELL_AFTER_S", 0.01)
    store = JournalStore(journal, should_stop=lambda: True)
    study = optuna.load_study(study_name=STUDY_NAME, storage=store.backend)
    for name, wait in (("", study.ask), (".claim", store.exclusive().__enter__)):
        lock = journal.with_name(f".{journal.name}{name}.lock")
        lock.write_text("4321\nnode17\n", encoding="utf-8")
        with pytest.raises(LockHeldError, match=r"4321 on node17.*delete the file") as caught:
            wait()
        assert caught.value.filename == str(lock)
        lock.unlink()
    assert study.ask().number == 4


def changed_digit(lines: list[bytes]) -> list[bytes]:
    at = next(index for index, line in enumerate(lines) if b'"param_value_internal":' in line)
    head, tail = lines[at].split(b'"param_value_internal":')
    return [*lines[:at], head + b'"param_value_internal":' + bytes([tail[0] ^ 1]) + tail[1:], *lines[at + 1 :]]


def by_another_tool(path: Path) -> optuna.Study:
    """Open a journal as Optuna's own file backend does."""
    return optuna.load_study(
        study_name=STUDY_NAME, storage=optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    )


@pytest.mark.parametrize(
    ("damage", "sound"),
    [
        (changed_digit, 2),
        (lambda lines: lines[:5] + lines[6:], 5),
        (lambda lines: [*lines[:5], lines[4], *lines[5:]], 5),
        (lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]], 5),
        (lambda lines: [*lines[:6], lines[6][:20] + lines[6], *lines[7:]], 6),
        (lambda lines: [*lines[:6], lines[6].replace(b'"check":', b'"chfck":'), *lines[7:]], 6),
        (lambda lines: [*lines[:6], b"\xff" * 50 + b"\n", *lines[7:]], 6),
        (lambda lines: [*lines[:6], b'{"op_code":99}\n', *lines[6:]], 6),
        (lambda lines: [b"\xff" * 50 + b"\n", *lines[1:]], 0),
        (lambda lines: lines[1:], 0),
    ],
    ids=[
        "a changed digit",
        "a lost line",
        "a doubled line",
        "swapped lines",
        "a torn line",
        "a changed name",
        "no text",
        "no operation",
        "damage at the first line",
        "the first line lost",
    ],
)
def test_no_damage_goes_unnoticed_and_the_sound_beginning_is_kept(
    journal: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[list[bytes]], list[bytes]], sound: int
) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = b"".join(damage(lines))
    journal.write_bytes(damaged)
    with pytest.raises(InputError, match=r"cannot be read as a study .*; start the search again, which keeps"):
        JournalStore(journal)
    assert journal.read_bytes() == damaged
    JournalStore(journal, recover=True)
    assert journal.read_bytes() == b"".join(lines[:sound])
    assert journal.with_name("j.damaged-1").read_bytes() == damaged
    assert f"was damaged; kept the first {journal.stat().st_size:,} of its {len(damaged):,} bytes" in caplog.text
    study = journal_of(journal, 1)  # it goes on from there
    assert study.trials[-1].state == TrialState.COMPLETE
    JournalStore(journal, recover=True)
    assert [path.name for path in journal.parent.glob("j.damaged-*")] == ["j.damaged-1"]


def test_every_damaged_file_is_kept(journal: Path) -> None:
    content = journal.read_bytes()
    for damaged in (content[20:], content[30:]):
        journal.write_bytes(damaged)
        JournalStore(journal, recover=True)
    assert journal.with_name("j.damaged-1").read_bytes() == content[20:]
    assert journal.with_name("j.damaged-2").read_bytes() == content[30:]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"\n", b" \n"),
        lambda content: content.replace(b"\n", b"\n\n"),
    ],
    ids=["CRLF", "spaces", "empty lines"],
)
def test_other_line_ends_and_blanks_are_no_damage(journal: Path, change: Callable[[bytes], bytes]) -> None:
    before = values(journal)
    journal.write_bytes(change(journal.read_bytes()))
    assert values(journal) == before
    journal_of(journal, 2)
    journal.write_bytes(change(journal.read_bytes()))
    journal_of(journal, 1)
    assert values(journal)[:4] == before
    assert len(values(journal)) == 7


def test_lines_of_other_tools_are_read_and_covered_by_our_checksum(journal: Path) -> None:
    before = values(journal)
    study = by_another_tool(journal)
    assert [trial.values[0] for trial in study.trials] == before
    study.set_user_attr("note", "looks good")
    journal_of(journal, 1)
    assert values(journal)[:4] == before
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b"looks good", b"looks poor"))
    with pytest.raises(InputError, match="is damaged"):
        JournalStore(journal)


def test_long_lines_are_covered_too(journal: Path) -> None:
    study = journal_of(journal, 0)
    study.set_user_attr("long", "x" * 100_000)
    journal_of(journal, 1)
    assert len(values(journal)) == 5


def test_lines_of_other_tools_before_damage_are_dropped(journal: Path) -> None:
    content = journal.read_bytes()
    by_another_tool(journal).set_user_attr("note", "looks good")
    with journal.open("ab") as file:
        file.write(b"\xff" * 50 + b"\n")
    JournalStore(journal, recover=True)
    assert journal.read_bytes() == content


def test_two_writers_follow_each_other(journal: Path) -> None:
    one, two = journal_of(journal, 0), journal_of(journal, 0)
    for number in range(4):
        (one, two)[number % 2].set_user_attr("note", number)
        by_another_tool(journal).set_user_attr("remark", number)
    study = journal_of(journal, 0)
    assert study.user_attrs == {"note": 3, "remark": 3}


def test_lines_lost_in_front_of_another_tools_are_missed(journal: Path) -> None:
    study = by_another_tool(journal)
    study.set_user_attr("note", "looks good")
    journal_of(journal, 1)
    lines = journal.read_bytes().splitlines(keepends=True)
    note = next(at for at, line in enumerate(lines) if b"looks good" in line)
    journal.write_bytes(b"".join([*lines[: note - 2], *lines[note:]]))
    with pytest.raises(InputError, match="is damaged"):
        JournalStore(journal)


def as_written_before(content: bytes, marks: Callable[[int, int], bytes]) -> bytes:
    """Return a journal's lines with the marks that older versions gave them: from the numbers of lines and trials."""
    trials, lines = 0, [b""]
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        trials += b'"op_code":4,' in line
        text = line[: line.rindex(b',"line":')] + marks(number, trials)
        lines.append(text + b',"check":"%08x"}\n' % zlib.crc32(text, zlib.crc32(lines[-1])))
    return b"".join(lines)


@pytest.mark.parametrize(
    "marks", [lambda number, trials: b"", lambda number, trials: b',"line":%d,"trials":%d' % (number, trials)]
)
def test_journals_of_older_versions_are_continued(journal: Path, marks: Callable[[int, int], bytes]) -> None:
    before = values(journal)
    content = as_written_before(journal.read_bytes(), marks)
    journal.write_bytes(content)
    assert values(journal) == before
    journal_of(journal, 2)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert b',"line":%d,"check"' % len(lines) in lines[-1]
    assert values(journal)[:4] == before
    assert len(values(journal)) == 6
    journal.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    JournalStore(journal, recover=True)
    assert journal.read_bytes() == b"".join(lines[:2])


def test_a_full_disk_leaves_whole_lines(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = journal_of(journal, 0)
    content = journal.read_bytes()

    class FullDisk(io.FileIO):
        def write(self, data: Buffer, /) -> int:
            if len(memoryview(data)) < 40:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(memoryview(data)[: len(memoryview(data)) // 2])

    with monkeypatch.context() as patched:
        patched.setattr("os.fdopen", lambda file, mode, buffering: FullDisk(file, mode))
        with pytest.raises(OSError, match="No space left"):
            study.ask()
    assert journal.read_bytes() == content
    journal_of(journal, 1)
    assert len(values(journal)) == 5
