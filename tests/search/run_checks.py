"""What a run holds after anything that befell it, and whether that is complete and true."""

from __future__ import annotations

from objectives.bit_maps import parse_bit_map
from objectives.errors import InputError
from objectives.layers import BitMap
from results.outcome import Outcome, Trial
from search.run.run_directory import RunDirectory
from search.study.reading import load_study, outcome
from tests.search.commands import rows

LOCKS = {".lock", ".study.journal.lock", ".study.journal.claim.lock"}


def recorded(run: RunDirectory) -> dict[int, tuple[BitMap, object]]:
    """Return each finished trial's map and scores, by its number; none where the study is not made yet."""
    try:
        found = outcome(load_study(run.journal), "x")
    except InputError:
        return {}
    return {trial.number: (trial.bit_map, trial.scores) for trial in found.trials}


def slow_front(found: Outcome) -> set[int]:
    """Return the numbers of the front's trials by looking at every pair of them."""

    def beats(other: Trial, trial: Trial) -> bool:
        assert other.scores is not None
        assert trial.scores is not None
        ours = (other.scores.damage, -other.nominal_compression)
        theirs = (trial.scores.damage, -trial.nominal_compression)
        return ours != theirs and all(mine <= its for mine, its in zip(ours, theirs, strict=True))

    usable = [trial for trial in found.trials if trial.feasible and trial.scores is not None]
    return {trial.number for trial in usable if not any(beats(other, trial) for other in usable)}


def check(run: RunDirectory, wanted: int) -> None:
    """Check that a run that has come to its end is complete and true."""
    found = outcome(load_study(run.journal), run.name)
    maps = [trial.bit_map for trial in found.trials]
    assert len(maps) == len(set(maps)) >= wanted
    assert [int(row["number"]) for row in rows(run.path / "trials.csv")] == [trial.number for trial in found.trials]
    front = slow_front(found)
    assert {int(row["number"]) for row in rows(run.path / "front.csv")} == front
    texts = list((run.path / "bitmaps").glob("*.txt"))
    exported = {parse_bit_map(path.read_text(), found.footprint.layers, path.name) for path in texts}
    with_files = front | {int(row["number"]) for row in rows(run.path / "picks.csv")}
    assert exported == {trial.bit_map for trial in found.trials if trial.number in with_files}
    assert len(texts) == len(with_files)
    hidden = {path.name for path in run.path.rglob(".*")}
    assert hidden <= LOCKS
