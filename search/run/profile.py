"""What a search is asked to do: a profile in TOML, overridden by flags, checked as a whole."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from objectives.errors import InputError, all_faults
from objectives.loading.holdout import AUTO
from objectives.packing.footprint import SizeAxis
from objectives.packing.scheme import QuantizerName
from objectives.scores import Precision
from results.outcome import DEFAULT_MARGIN, Quality
from search.allocation.knapsack import Source

PROFILES = ("miniature", "cola")
GUIDED: Literal["guided"] = "guided"
Sampler = Literal["guided", "nsga2", "tpe", "random"]
Device = Literal["auto", "cpu", "cuda"]

_MODEL, _SEARCH, _BUDGET, _AFTER = "Model and data", "Search", "Budget", "After the search"
_Text = Annotated[StrictStr, Field(min_length=1)]
_Whole = Annotated[StrictInt, Field(ge=0, le=2**32 - 1)]


def _setting(group: str, help_: str, **limits: Any) -> Any:
    """Describe a field: the heading of its option in the help, the help, and pydantic's limits of its values."""
    return Field(description=help_, json_schema_extra={"group": group}, **limits)


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Profile:
    """The settings of a search.

    Each has its type, limits, default and help here and nowhere else: the checks, their messages and the options of the
    command line are made from them. ``min_compression`` is a multiple of the FP32 size, ``margin`` a loss of MCC.
    """

    model: Annotated[_Text, _setting(_MODEL, "A local transformers directory, a hub name, or miniature.")]
    data: Annotated[_Text, _setting(_MODEL, "A local CoLA directory, a hub data set, or miniature.")]
    trials: Annotated[_Whole, _setting(_BUDGET, "Stop when the run has this many trials; 0: no limit.")] = 0
    hours: Annotated[
        StrictFloat, _setting(_BUDGET, "Stop this start after this many hours; 0: no limit.", ge=0, le=10**6)
    ] = 0.0
    quality: Annotated[
        Quality, _setting(_SEARCH, "The first objective; damage is the mean KL divergence from FP32.")
    ] = "damage"
    size: Annotated[SizeAxis, _setting(_SEARCH, "What the constraint and the size axis count.")] = "nominal"
    min_compression: Annotated[
        StrictFloat, _setting(_SEARCH, "The size constraint, in times the FP32 size.", ge=1, le=10**6)
    ] = 5.5
    sampler: Annotated[Sampler, _setting(_SEARCH, "The sampler that proposes maps.")] = GUIDED
    quantizer: Annotated[
        QuantizerName,
        _setting(_MODEL, "How weights become codes; calibrated makes up for rounding errors, on training sentences."),
    ] = "calibrated"
    group_size: Annotated[
        _Whole, _setting(_MODEL, "Columns that share a scale and a zero point in each row; 0: all of them.")
    ] = 0
    sensitivity: Annotated[
        Literal[Source, "none"],
        _setting(_SEARCH, "Where the damage of each layer alone comes from; gradient is quick, guided needs one."),
    ] = "measured"
    precision: Annotated[
        Precision, _setting(_SEARCH, "The precision of the search's matrix products; what it ends with is FP32.")
    ] = "fp32"
    device: Annotated[Device, _setting(_MODEL, "Where the model computes; auto takes a GPU if there is one.")] = "auto"
    polish: Annotated[
        StrictBool, _setting(_AFTER, "Polish the picks and the reference at the end, as `polish` does.")
    ] = False
    seed: Annotated[_Whole, _setting(_SEARCH, "Reproduces a run of one worker exactly.")] = 0
    workers: Annotated[StrictInt, _setting(_BUDGET, "Processes that evaluate at the same time.", ge=1, le=1024)] = 1
    margin: Annotated[
        StrictFloat, _setting(_AFTER, "The loss of MCC against FP32 that counts as none.", ge=0, le=1)
    ] = DEFAULT_MARGIN
    confirm: Annotated[
        _Text,
        _setting(
            _AFTER,
            "Sentences kept for the end: a share as 0.3 (or 0.3@SEED), a CoLA directory, none, or auto (miniature's).",
        ),
    ] = AUTO
    unseen: Annotated[
        _Whole, _setting(_AFTER, "Training sentences that the best maps are scored on, without labels; 0: none.")
    ] = 2000

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
        text, subject = files("search.run").joinpath(f"{name}.toml").read_text(encoding="utf-8"), f"profile {name}"
    else:
        text, subject = _read_file(Path(name)), name
    try:
        given = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError of another kind
        raise InputError(f"{subject}: not valid TOML: {error}") from None
    return checked_profile(given | {key: value for key, value in flags.items() if value is not None}, subject)


_PROFILE = TypeAdapter(Profile)
SETTINGS: Mapping[str, Mapping[str, Any]] = _PROFILE.json_schema()["properties"]
"""The JSON schema of each setting: ``type``, ``enum``, limits, ``default``, ``description`` and its ``group``."""


def checked_profile(settings: Mapping[str, Any], subject: str) -> Profile:
    """Return the profile with these settings, defaults where there is none; ``subject`` names them in errors.

    Whole numbers pass as floats: TOML and the shell write 8 where 8.0 is meant, and a fingerprint must not tell them
    apart.

    Raises:
        InputError: unknown keys, missing ones, or values out of range; all faults together.
    """
    faults = _conflicts(settings)
    try:
        profile = _PROFILE.validate_python(dict(settings))
    except ValidationError as error:
        faults = [_fault(str(at["loc"][0]), at["type"], at["input"]) for at in error.errors()] + faults
    if faults:
        raise all_faults(subject, faults)
    return profile


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no profile {str(path)!r}; there are {', '.join(PROFILES)}, or give a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a profile ({error}); give a TOML file in UTF-8") from None


def _fault(key: str, kind: str, value: object) -> str:
    """Return a fault that pydantic calls ``kind`` in our words."""
    if kind == "missing":
        return f"{key!r} is missing; give --{key} or write it in the profile"
    if key not in SETTINGS:
        return f"unknown key {key!r}; known are {', '.join(sorted(SETTINGS))}"
    return f"{key} must be {_rule(SETTINGS[key])}, not {value!r}"


def _rule(schema: Mapping[str, Any]) -> str:
    """Return what a setting's values are, from its JSON schema."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if "maximum" in schema:
        kind = "a whole number" if schema["type"] == "integer" else "a number"
        return f"{kind} from {schema['minimum']} to {schema['maximum']}"
    return "true or false" if schema["type"] == "boolean" else "a non-empty text"


def _conflicts(settings: Mapping[str, Any]) -> list[str]:
    """Return the faults of settings that do not go together."""
    asked = {**{key: schema.get("default") for key, schema in SETTINGS.items()}, **settings}
    faults = []
    if asked["quantizer"] == "codebook" and asked["group_size"] != 0:
        faults.append(
            "codebook has one scale a row and takes no group_size; choose another --quantizer or --group-size 0"
        )
    if asked["sensitivity"] == "none" and asked["sampler"] == GUIDED:
        faults.append("the guided sampler needs sensitivities; choose another --sampler or --sensitivity gradient")
    return faults
