import errno
import os
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from objectives.errors import InputError
from search.journal import repair_journal
from search.storage import STUDY_NAME, journal_storage, recover_journal


def journal_of(path: Path, trials: int) -> optuna.Study:
    study = optuna.create_study(storage=journal_storage(path), study_name=STUDY_NAME, load_if_exists=True)
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, trial.suggest_int("width", 2, 8))
    return study


def values(path: Path) -> list[float]:
    return [trial.values[0] for trial in optuna.load_study(study_name=STUDY_NAME, storage=journal_storage(path)).trials]


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


def changed_digit(lines: list[bytes]) -> list[bytes]:
    at = next(index for index, line in enumerate(lines) if b'"param_value_internal":' in line)
    head, tail = lines[at].split(b'"param_value_internal":')
    return [*lines[:at], head + b'"param_value_internal":' + bytes([tail[0] ^ 1]) + tail[1:], *lines[at + 1 :]]


@pytest.mark.parametrize(
    "damage",
    [
        changed_digit,
        lambda lines: lines[:5] + lines[6:],
        lambda lines: [*lines[:5], lines[4], *lines[5:]],
        lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]],
        lambda lines: [*lines[:6], lines[6][:20] + lines[6], *lines[7:]],
        lambda lines: [*lines[:6], b"\n", *lines[6:]],
    ],
    ids=["a changed digit", "a lost line", "a doubled line", "swapped lines", "a torn line", "an empty line"],
)
def test_no_damage_goes_unnoticed(journal: Path, damage: Callable[[list[bytes]], list[bytes]]) -> None:
    before = values(journal)
    damaged = b"".join(damage(journal.read_bytes().splitlines(keepends=True)))
    journal.write_bytes(damaged)
    with pytest.raises(InputError, match=r"cannot be read as a study .* is damaged.* start the search again"):
        journal_storage(journal)
    recover_journal(journal)
    study = optuna.load_study(study_name=STUDY_NAME, storage=journal_storage(journal))
    finished = [trial.values[0] for trial in study.trials if trial.state.is_finished()]
    assert finished == before[: len(finished)]
    assert journal.with_name("j.damaged-1").read_bytes() == damaged


def test_lines_of_other_tools_are_read_and_vouched_for(journal: Path) -> None:
    before = values(journal)
    study = optuna.load_study(
        study_name=STUDY_NAME, storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    )
    assert [trial.values[0] for trial in study.trials] == before
    study.set_user_attr("note", "looks good")
    journal_of(journal, 1)
    assert values(journal)[:4] == before
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b"looks good", b"looks poor"))
    with pytest.raises(InputError, match="is damaged"):
        journal_storage(journal)


def test_long_lines_are_vouched_for_too(journal: Path) -> None:
    study = journal_of(journal, 0)
    study.set_user_attr("long", "x" * 100_000)
    journal_of(journal, 1)
    assert len(values(journal)) == 5


def test_what_stands_before_damage_is_kept(journal: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = values(journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    second = next(index for index, line in enumerate(lines) if line.count(b'"op_code":4') and index > 2)
    journal.write_bytes(b"".join([*lines[:second], b"\xff" * 50 + b"\n", *lines[second + 1 :]]))
    recover_journal(journal)
    assert values(journal) == before[:1]
    assert "was damaged; recovered all but" in caplog.text
    assert repair_journal(journal) == ""


def test_a_full_disk_leaves_whole_lines(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = journal_of(journal, 0)
    content = journal.read_bytes()
    honest = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(file, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        with pytest.raises(OSError, match="No space left"):
            study.ask()
    assert journal.read_bytes() == content
    journal_of(journal, 1)
    assert len(values(journal)) == 5
