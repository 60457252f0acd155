"""What polishing made of a run's maps: a table beside the search's own results, never among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from objectives.errors import InputError
from results.tables import write_csv
from results.words import nats, times

FOLDER = "polished"
"""Where a run's polished checkpoints lie; their table lies beside it."""


@dataclass(frozen=True)
class PolishedMap:
    """One map before and after polishing; damage in nats a sentence, intervals of 95%.

    Attributes:
        number: its trial.
        label: what it is called.
        nominal_compression: FP32 size over size, codes only; polishing changes neither size.
        packed_compression: FP32 size over size, every byte.
        kept: whether it did less damage on the held-out sentences; where it did not, both figures are of the same map.
        held_out_damage_before: on the training sentences that decided, which polishing did not see.
        held_out_damage_after: likewise, after polishing.
        damage_before: on the validation sentences, with ``damage_before_low`` to ``damage_before_high``.
        damage_after: likewise, after polishing.
        mcc_before: on the validation sentences, with ``mcc_before_low`` to ``mcc_before_high``.
        mcc_after: likewise, after polishing.
        checkpoint: its directory within the run's.
    """

    number: int
    label: str
    nominal_compression: float
    packed_compression: float
    kept: bool
    held_out_damage_before: float
    held_out_damage_after: float
    damage_before: float
    damage_before_low: float
    damage_before_high: float
    damage_after: float
    damage_after_low: float
    damage_after_high: float
    mcc_before: float
    mcc_before_low: float
    mcc_before_high: float
    mcc_after: float
    mcc_after_low: float
    mcc_after_high: float
    checkpoint: str


_TYPES = {field.name: str(field.type) for field in fields(PolishedMap)}  # the column types, by pandas' own names


@dataclass(frozen=True)
class PolishedRow:
    """A polished map as words, for the report."""

    label: str
    nominal: str
    packed: str
    mcc_before: str
    mcc_after: str
    damage_before: str
    damage_after: str
    checkpoint: str


def polished_row(polished: PolishedMap) -> PolishedRow:
    """Return a polished map as words; what was not kept is told by its label."""

    def mcc(value: float, low: float, high: float) -> str:
        return f"{value:.3f} ({low:.3f} to {high:.3f})"

    def damage(value: float, low: float, high: float) -> str:
        return f"{nats(value)} ({nats(low)} to {nats(high)})"

    return PolishedRow(
        label=polished.label
        if polished.kept
        else f"{polished.label}, left as it was: held-out sentences were worse off",
        nominal=times(polished.nominal_compression),
        packed=times(polished.packed_compression),
        mcc_before=mcc(polished.mcc_before, polished.mcc_before_low, polished.mcc_before_high),
        mcc_after=mcc(polished.mcc_after, polished.mcc_after_low, polished.mcc_after_high),
        damage_before=damage(polished.damage_before, polished.damage_before_low, polished.damage_before_high),
        damage_after=damage(polished.damage_after, polished.damage_after_low, polished.damage_after_high),
        checkpoint=polished.checkpoint,
    )


def polished_line(polished: PolishedMap) -> str:
    """Return what became of a map, in one line."""
    row = polished_row(polished)
    return (
        f"{row.label}: {row.nominal} nominal, {row.packed} packed, damage {row.damage_before} before, "
        f"{row.damage_after} polished, MCC {row.mcc_before} before, {row.mcc_after} polished"
    )


def polished_path(run: Path) -> Path:
    """Return where a run's table of polished maps lies."""
    return run / f"{FOLDER}.csv"


def write_polished(maps: Sequence[PolishedMap], run: Path) -> None:
    """Write a run's table of polished maps, from the largest to the smallest."""
    rows = [asdict(polished) for polished in sorted(maps, key=lambda polished: polished.nominal_compression)]
    write_csv(pd.DataFrame(rows, columns=list(_TYPES)), polished_path(run))


def read_polished(run: Path) -> tuple[PolishedMap, ...]:
    """Return a run's polished maps, of which there may be none.

    Raises:
        InputError: the table cannot be read.
    """
    path = polished_path(run)
    if not path.is_file():
        return ()
    try:
        table = pd.read_csv(path, dtype=_TYPES)
        if list(table.columns) != list(_TYPES):
            raise ValueError("its columns are others")
        return tuple(PolishedMap(**{str(key): value for key, value in row.items()}) for row in table.to_dict("records"))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it and polish again") from None
