"""What a search is asked to do: a profile in TOML, overridden by flags, checked as a whole."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from objectives.confirmation import AUTO
from objectives.errors import InputError, all_faults
from objectives.schemes import QuantizerName
from objectives.scores import Precision
from objectives.sizes import SizeAxis
from results.outcome import DEFAULT_MARGIN, Quality
from search.samplers import SAMPLERS

PROFILES = ("miniature", "cola")
GUIDED = "guided"
MOST_WORKERS = 1024
Source = Literal["measured", "gradient"]
"""``gradient``: every width from one backward pass. ``measured``: the widths where that is too coarse are evaluated."""
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Profile:
    """The settings of a search.

    Attributes:
        model: a local directory, a hub name, or ``miniature``.
        data: a local directory in the public CoLA layout, a hub data set, or ``miniature``.
        trials: how many maps the run shall have evaluated in all; 0 for no limit.
        hours: how long this start may take; 0 for no limit. Whatever ends first ends the search.
        quality: the study's first objective.
        size: what the constraint and the size axis count.
        min_compression: the size constraint, in times the FP32 size.
        quantizer: how weights become codes.
        group_size: how many neighbouring columns share a scale and a zero point in each row; 0 for all of them.
        sampler: who proposes maps.
        sensitivity: where the damage of each layer alone comes from; the guided sampler and the plain allocations among
            the contenders need it.
        precision: of the evaluations that the search makes; what it shows in the end is FP32 all the same.
        device: where the model computes; ``auto`` takes a GPU where there is one.
        polish: whether the picks and the reference are polished when the search is over.
        seed: reproduces a run of one worker exactly, however often it was stopped and continued.
        workers: how many processes evaluate at the same time.
        margin: the loss of MCC against FP32 that counts as none, for the report and ``smallest@margin``.
        confirm: the sentences that no search sees, opened once at the end: a share of the data as ``0.3``, where others
            are, ``none``, or ``auto`` for the miniature's own.
        unseen: how many training sentences the best maps are scored on at the end, without labels; 0 for none.
    """

    model: str
    data: str
    trials: int = 0
    hours: float = 0.0
    quality: Quality = "damage"
    size: SizeAxis = "nominal"
    min_compression: float = 5.5
    sampler: str = GUIDED
    quantizer: QuantizerName = "calibrated"
    group_size: int = 0
    sensitivity: Source | Literal["none"] = "measured"
    precision: Precision = "fp32"
    device: Device = "auto"
    polish: bool = False
    seed: int = 0
    workers: int = 1
    margin: float = DEFAULT_MARGIN
    confirm: str = AUTO
    unseen: int = 2000

    # What makes two searches different ones; the rest may change when a run is continued.
    @property
    def objective(self) -> dict[str, str | float]:
        """The settings that a continued run must share."""
        return {
            "quality": self.quality,
            "size": self.size,
            "min_compression": self.min_compression,
            "precision": self.precision,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


def only_limit(trials: int | None, hours: float | None) -> dict[str, int | float]:
    """Return both limits where just one of them is given: it takes the place of the profile's other one."""
    if (trials is None) == (hours is None):
        return {}
    return {"trials": trials or 0, "hours": hours or 0.0}


def resolve_profile(name: str, flags: Mapping[str, Any]) -> Profile:
    """Return the profile ``name`` (``miniature``, ``cola`` or a TOML file) with the given flags over it.

    Args:
        name: a shipped profile or the path of a TOML file.
        flags: settings that override the profile's; None means not given.

    Raises:
        InputError: no such profile, not TOML, unknown keys, or values out of range; all faults together.
    """
    if name in PROFILES:
        text, subject = files("search").joinpath(f"{name}.toml").read_text(encoding="utf-8"), f"profile {name}"
    else:
        text, subject = _read_file(Path(name)), name
    try:
        given = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError of another kind
        raise InputError(f"{subject}: not valid TOML: {error}") from None
    return checked_profile(given | {key: value for key, value in flags.items() if value is not None}, subject)


def checked_profile(settings: Mapping[str, Any], subject: str) -> Profile:
    """Return the profile with these settings, defaults where there is none; ``subject`` names them in errors.

    Raises:
        InputError: unknown keys, missing ones, or values out of range; all faults together.
    """
    if faults := _faults(settings):
        raise all_faults(subject, faults)
    # TOML and the shell write 8 where 8.0 is meant; a fingerprint must not tell them apart.
    checked: dict[str, Any] = {key: float(value) if key in _FLOATS else value for key, value in settings.items()}
    return Profile(**checked)


_FLOATS = ("hours", "min_compression", "margin")
_CHOICES: dict[str, tuple[str, ...]] = {
    "quality": get_args(Quality),
    "size": get_args(SizeAxis),
    "quantizer": get_args(QuantizerName),
    "sampler": (GUIDED, *SAMPLERS),
    "sensitivity": (*get_args(Source), "none"),
    "precision": get_args(Precision),
    "device": get_args(Device),
}


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no profile {str(path)!r}; there are {', '.join(PROFILES)}, or give a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a profile ({error}); give a TOML file in UTF-8") from None


def _faults(settings: Mapping[str, Any]) -> list[str]:
    known = {field.name for field in fields(Profile)}
    faults = [f"unknown key {key!r}; known are {', '.join(sorted(known))}" for key in settings if key not in known]
    faults += [
        f"{key!r} is missing; give --{key} or write it in the profile"
        for key in ("model", "data")
        if key not in settings
    ]
    for key, value in settings.items():
        match key:
            case "model" | "data" | "confirm" if not (isinstance(value, str) and value):
                faults.append(f"{key} must be a non-empty text, not {value!r}")
            case "trials" | "seed" | "unseen" | "group_size" if not (_is_number(value, int) and 0 <= value < 2**32):
                faults.append(f"{key} must be a whole number of 0 or more, not {value!r}")
            case "workers" if not (_is_number(value, int) and 1 <= value <= MOST_WORKERS):
                faults.append(f"workers must be a whole number from 1 to {MOST_WORKERS}, not {value!r}")
            case "hours" if not (_is_number(value) and 0 <= value < 1e6):
                faults.append(f"hours must be a number of 0 or more, not {value!r}")
            case "polish" if not isinstance(value, bool):
                faults.append(f"polish must be true or false, not {value!r}")
            case "margin" if not (_is_number(value) and 0 <= value <= 1):
                faults.append(f"margin is a loss of MCC from 0 to 1, not {value!r}")
            case "min_compression" if not (_is_number(value) and 1 <= value < 1e6):
                faults.append(f"min_compression must be a number of 1 or more, not {value!r}")
            case "quality" | "size" | "quantizer" | "sampler" | "sensitivity" | "precision" | "device" if (
                value not in _CHOICES[key]
            ):
                faults.append(f"{key} must be one of {', '.join(_CHOICES[key])}, not {value!r}")
            case _:
                pass
    if settings.get("quantizer") == "codebook" and settings.get("group_size", 0) != 0:
        faults.append(
            "codebook has one scale a row and takes no group_size; choose another --quantizer or --group-size 0"
        )
    if settings.get("sensitivity") == "none" and settings.get("sampler", GUIDED) == GUIDED:
        faults.append("the guided sampler needs sensitivities; choose another --sampler or --sensitivity gradient")
    return faults


def _is_number(value: object, kind: type = float) -> bool:
    return isinstance(value, (int, kind)) and not isinstance(value, bool)
