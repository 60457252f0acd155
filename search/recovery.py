"""Recovering a damaged journal: every trial that the damage cannot have touched, exactly as it was.

What makes that certain: a line is believed where its checksum holds against the line before it, and it tells how many
lines and how many trials there were up to it (`search.journal`). So it is known where something is missing and how many
trials were created there. Optuna numbers trials as they are created, so an empty one takes the place of each of these;
operations on a trial name its number. Which trials the missing operations belonged to is not known: each that was being
evaluated then is set aside, as one that a dead process left, and its map is tried again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from optuna.study import StudyDirection
from optuna.trial import TrialState

from objectives.files import replacing
from search.journal import CREATE_TRIAL, Count, Operation, count_of, has_checksum, journal_lock, lines, operation_of

_CREATE_STUDY, _DELETE_STUDY, _SET_STATE = 0, 1, 6  # Optuna's codes
_STUDY = 0  # the id of the only one
_BY = "recovery"


def repair_journal(path: Path, study_name: str, directions: Sequence[StudyDirection] = ()) -> str:
    """Write a damaged journal anew with all that is certain, and return what was done in a sentence.

    Each finished trial is there as it was, or its number stands for an empty or a failed one, whose map is tried again
    where it is known. The file as it was is kept beside it. Nobody else has it open.

    Args:
        path: the journal.
        study_name: the name of its study.
        directions: of the study; without them nothing is recovered where its creation is lost.

    Returns:
        The sentence; empty where nothing was wrong.
    """
    with journal_lock(path):
        content = path.read_bytes()
        damaged = content.splitlines(keepends=True)
        sound = _sound_part(damaged)
        first = len(sound)
        if first == len(damaged):
            return ""
        replay = _Replay()
        for operation in sound:
            replay.take(operation)
        whole = b"".join(damaged[:first])
        count = Count(first, len(replay.states), zlib.crc32(damaged[first - 1]) if first else 0)
        replay.operations = []
        if not first and directions:
            ways = [int(way) for way in directions]
            replay.take({"op_code": _CREATE_STUDY, "worker_id": _BY, "study_name": study_name, "directions": ways})
        recovered_bytes = replay.take_behind(count, [*_certain(damaged, first)]) if first or directions else 0
        aside = next(candidate for number in range(1, 1000) if not (candidate := _aside(path, number)).exists())
        with replacing(aside) as temporary:
            temporary.write_bytes(content)
        with replacing(path) as temporary:
            temporary.write_bytes(whole + (lines(replay.operations, count) if recovered_bytes else b""))
    lost = len(content) - len(whole) - recovered_bytes
    said = f"{path}: was damaged; recovered all but {lost:,} of its {len(content):,} bytes"
    if recovered_bytes and replay.set_aside:
        said += f", and set aside what they may have told of {_numbers(replay.set_aside)}"
    return f"{said}; it is kept as {aside.name}"


@dataclass
class _Replay:
    """Operations in their order, and what they have made of each trial, by its number.

    Attributes:
        operations: what has been taken, with what stands for what is missing.
        states: of each trial.
        set_aside: numbers of the trials that something may be missing of.
        untold: trials that waited where something is missing, and have not been heard of since.
    """

    operations: list[Operation] = field(default_factory=list)
    states: list[TrialState] = field(default_factory=list)
    set_aside: list[int] = field(default_factory=list)
    untold: set[int] = field(default_factory=set)

    def take(self, operation: Operation) -> None:
        """Take what was done next; what was done to a trial that has ended has no effect, and is left out."""
        if operation["op_code"] == CREATE_TRIAL:
            self.states.append(TrialState(operation.get("state", TrialState.RUNNING)))
        elif (number := operation.get("trial_id")) is not None:
            if number in self.untold:
                self.untold.remove(number)
                if not _begins(operation):  # it began where something is missing
                    self._set_aside(number)
            if number >= len(self.states) or self.states[number].is_finished():
                return
            if operation["op_code"] == _SET_STATE:
                self.states[number] = TrialState(operation["state"])
        self.operations.append(operation)

    def miss(self, created: int) -> None:
        """Take note that something is missing here, the creation of so many trials among it."""
        for number, state in enumerate(self.states):
            if state == TrialState.RUNNING:
                self._set_aside(number)
        self.untold = {number for number, state in enumerate(self.states) if state == TrialState.WAITING}
        for _ in range(created):
            self.set_aside.append(len(self.states))
            empty = {"study_id": _STUDY, "state": TrialState.FAIL, "datetime_start": None, "datetime_complete": _now()}
            self.take({"op_code": CREATE_TRIAL, "worker_id": _BY, **empty})

    def take_behind(self, count: Count, certain: Sequence[_Line]) -> int:
        """Take what is certain behind ``count``, with a note of what is missing, and return how many bytes that is."""
        taken_bytes, number, check = 0, count.lines, count.check
        for line in sorted(certain, key=lambda line: line.number):
            if line.number <= number:
                continue  # doubled
            missing, created = line.number > number + 1, line.trials_before - len(self.states)
            if created < 0 or not (missing or (created == 0 and line.check_before in (None, check))):
                break  # of another journal
            if line.operation["op_code"] == _DELETE_STUDY or line.operation.get("study_id", _STUDY) != _STUDY:
                break  # none of ours
            if missing:
                self.miss(created)
            self.take(line.operation)
            taken_bytes, number, check = taken_bytes + len(line.content), line.number, zlib.crc32(line.content)
        return taken_bytes

    def _set_aside(self, number: int) -> None:
        self.set_aside.append(number)
        ended = {"trial_id": number, "state": TrialState.FAIL, "values": None, "datetime_complete": _now()}
        self.take({"op_code": _SET_STATE, "worker_id": _BY, **ended})


@dataclass(frozen=True)
class _Line:
    """A line that is certain.

    Attributes:
        number: the how-manieth it is.
        trials_before: how many trials had been created before it.
        check_before: checksum of the line before it; None where it does not tell.
        content: its bytes.
        operation: what it says.
    """

    number: int
    trials_before: int
    check_before: int | None
    content: bytes
    operation: Operation


def _sound_part(damaged: Sequence[bytes]) -> list[Operation]:
    """Return what the lines before the first damage say; all of them where there is none."""
    sound: list[Operation] = []
    before = vouched_for = 0
    for line in damaged:
        operation = operation_of(line, before, len(sound)) if line.endswith(b"\n") else None
        if operation is None:
            return sound[:vouched_for]  # other tools' lines in front of damage may have lost what they followed
        sound.append(operation)
        before = zlib.crc32(line)
        vouched_for = len(sound) if has_checksum(line) else vouched_for
    return sound


def _certain(damaged: Sequence[bytes], first: int) -> Iterator[_Line]:
    """Yield the lines from ``first`` on that are certain: our own, and another tool's that our next one vouches for."""
    for at in range(first, len(damaged)):
        content, before = damaged[at], damaged[at - 1] if at else b""
        check = zlib.crc32(before)
        counted, operation = count_of(content), operation_of(content, check)
        if counted is None or operation is None:
            continue
        trials = counted.trials - _creates(operation)
        foreign = operation_of(before, 0) if at > first and before.endswith(b"\n") and not count_of(before) else None
        if foreign is not None:
            yield _Line(counted.lines - 1, trials - _creates(foreign), None, before, foreign)
        yield _Line(counted.lines, trials, check, content, operation)


def _creates(operation: Operation) -> bool:
    return bool(operation["op_code"] == CREATE_TRIAL)


def _begins(operation: Operation) -> bool:
    return bool(operation["op_code"] == _SET_STATE and operation["state"] == TrialState.RUNNING)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _numbers(numbers: Sequence[int]) -> str:
    words = [str(number) for number in sorted(numbers)]
    many = f"{', '.join(words[:10])} and {len(words) - 10} more" if len(words) > 10 else ", ".join(words)
    return f"trial{'s' * (len(words) > 1)} {many}"


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")
