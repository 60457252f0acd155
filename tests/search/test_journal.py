import errno
import os
from pathlib import Path

import optuna
import pytest

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


def test_what_was_written_behind_a_torn_line_is_kept(journal: Path) -> None:
    before = values(journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    torn = b"".join([*lines[:6], lines[6][:20] + lines[6], *lines[7:]])
    journal.write_bytes(torn)
    with pytest.raises(InputError, match=r"cannot be read as a study .* start the search again"):
        journal_storage(journal)
    recover_journal(journal)
    assert values(journal) == before
    assert journal.with_name("j.damaged-1").read_bytes() == torn


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
