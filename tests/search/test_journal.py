import errno
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from objectives.errors import InputError
from search.recovery import repair_journal
from search.storage import STUDY_NAME, JournalStore, journal_storage, recover_journal
from tests.malformed import malformed


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


def test_what_is_written_together_is_one_piece_at_the_end_or_nothing(tmp_path: Path) -> None:
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
    study = optuna.load_study(study_name=STUDY_NAME, storage=journal_storage(path))
    assert study.trials[0].params == widths


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
    finished = {trial.number: trial.values[0] for trial in study.trials if trial.state == TrialState.COMPLETE}
    assert finished.items() <= dict(enumerate(before)).items()
    assert len(finished) >= 2
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


def busy_journal(path: Path) -> dict[int, FrozenTrial]:
    """Write a journal in which trials overlap, wait, fail, die and are remarked upon, and return them."""
    study = journal_of(path, 0)
    for width in range(3):
        study.enqueue_trial({"width": 2 + width}, user_attrs={"label": f"uniform {width}"})
    hands: list[optuna.Trial] = []
    for number in range(12):
        hands.append(study.ask())
        hands[-1].set_user_attr("map", [number])
        if number % 3 == 2:
            for trial in (hands.pop(0), hands.pop()):
                trial.suggest_int("width", 2, 8)
                trial.set_user_attr("scores", f"of {trial.number}")
                study.tell(trial, trial.number, state=TrialState.COMPLETE)
        if number == 4:
            study.tell(hands.pop(), state=TrialState.FAIL)
        if number == 6:
            study.enqueue_trial({"width": 7})
            note = optuna.load_study(
                study_name=STUDY_NAME, storage=optuna.storages.JournalStorage(JournalFileBackend(str(path)))
            )
            note.set_user_attr("note", "looks good")
            note.enqueue_trial({"width": 3})
        study.set_user_attr(f"confirmation {number}", number)
    return {trial.number: trial for trial in study.trials}


def recovered(path: Path, damaged: bytes, whole: dict[int, FrozenTrial]) -> tuple[set[int], str]:
    """Recover a journal, check that each trial is what it was or nothing, and return which are and what was said."""
    path.write_bytes(damaged)
    said = repair_journal(path, STUDY_NAME, [StudyDirection.MINIMIZE])
    try:
        trials = optuna.load_study(study_name=STUDY_NAME, storage=journal_storage(path)).trials
    except KeyError:
        trials = []
    kept = set()
    for trial in trials:
        if trial.state == TrialState.COMPLETE or "label" in trial.user_attrs or "map" in trial.user_attrs:
            true = whole[trial.number]
            attributes = {key: trial.user_attrs.get(key, value) for key, value in true.user_attrs.items()}
            assert attributes == true.user_attrs
            assert trial.system_attrs == true.system_attrs
            if trial.state == TrialState.COMPLETE:
                assert trial == true
                kept.add(trial.number)
    assert not said or path.with_name("j.damaged-1").read_bytes() == damaged
    path.with_name("j.damaged-1").unlink(missing_ok=True)
    assert repair_journal(path, STUDY_NAME) == ""
    return kept, said


@pytest.mark.parametrize(
    "damage",
    [lambda line: b"", lambda line: b"\xff" * 50 + b"\n", lambda line: line[:-1], lambda line: line[:40] + line],
)
def test_damage_of_any_line_costs_what_was_in_hand_then(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    whole = busy_journal(tmp_path / "j")
    complete = {number for number, trial in whole.items() if trial.state == TrialState.COMPLETE}
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    for at, line in enumerate(lines):
        kept, said = recovered(tmp_path / "j", b"".join([*lines[:at], damage(line), *lines[at + 1 :]]), whole)
        assert len(complete - kept) <= 5, (at, complete - kept)  # as many as were evaluated at the same time, and two
        if at < len(lines) - 3:  # else nothing behind it is certain
            assert "was damaged; recovered all but" in said
            set_aside = {int(word) for word in re.findall(r"\d+", said.partition("told of ")[2].partition(";")[0])}
            assert complete - kept <= set_aside | {
                number for number in complete if whole[number].datetime_start is None
            }


def test_no_damage_mixes_trials_up(tmp_path: Path) -> None:
    whole = busy_journal(tmp_path / "j")
    content = (tmp_path / "j").read_bytes()
    kept = [len(recovered(tmp_path / "j", damaged, whole)[0]) for _, damaged in malformed(content, 7, 300)]
    lines = content.splitlines(keepends=True)
    for start in range(0, len(lines), 7):  # whole blocks lost, and moved to the end
        block, rest = lines[start : start + 9], [*lines[:start], *lines[start + 9 :]]
        blocks = (b"".join(rest), b"".join([*rest, *block]))
        kept.extend(len(recovered(tmp_path / "j", damaged, whole)[0]) for damaged in blocks)
    assert max(kept) > min(kept)


def test_a_search_goes_on_behind_damage(journal: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = values(journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    second = next(index for index, line in enumerate(lines) if line.count(b'"op_code":4') and index > 2)
    journal.write_bytes(b"".join([*lines[:second], b"\xff" * 50 + b"\n", *lines[second + 1 :]]))
    recover_journal(journal)
    study = journal_of(journal, 1)
    assert [trial.values and trial.values[0] for trial in study.trials][:4] == [before[0], None, *before[2:]]
    assert study.trials[1].state == TrialState.FAIL
    assert study.trials[4].state == TrialState.COMPLETE
    assert "was damaged; recovered all but" in caplog.text
    assert "told of trial 1; it is kept as j.damaged-1" in caplog.text
    assert repair_journal(journal, STUDY_NAME) == ""


def test_a_damaged_last_line_is_not_written_behind(journal: Path) -> None:
    study = journal_of(journal, 0)
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b'"trials":4,"check"', b'"trials":9,"check"'))
    with pytest.raises(InputError, match=r"is damaged.* start the search again"):
        study.set_user_attr("note", "x")


def test_lines_lost_in_front_of_another_tools_are_missed(journal: Path) -> None:
    study = optuna.load_study(
        study_name=STUDY_NAME, storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    )
    study.set_user_attr("note", "looks good")
    journal_of(journal, 1)
    lines = journal.read_bytes().splitlines(keepends=True)
    note = next(at for at, line in enumerate(lines) if b"looks good" in line)
    journal.write_bytes(b"".join([*lines[: note - 2], *lines[note:]]))
    with pytest.raises(InputError, match="is damaged"):
        journal_storage(journal)


def test_journals_of_before_are_continued(journal: Path) -> None:
    before = values(journal)
    uncounted: list[bytes] = []
    for line in journal.read_bytes().splitlines(keepends=True):
        text = line[: line.rindex(b',"line":')]
        last = zlib.crc32(uncounted[-1]) if uncounted else 0
        uncounted.append(text + b',"check":"%08x"}\n' % zlib.crc32(text, last))
    journal.write_bytes(b"".join(uncounted))
    assert values(journal) == before
    journal_of(journal, 2)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert b',"line":%d,"trials":6,' % len(lines) in lines[-1]
    assert values(journal)[:4] == before
    journal.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    recover_journal(journal)
    study = optuna.load_study(study_name=STUDY_NAME, storage=journal_storage(journal))
    assert [trial.state == TrialState.COMPLETE for trial in study.trials] == [False, False, False, False, True, True]


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
