"""The settings of a search: a profile in TOML, overridden by flags, then checked together."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from objectives.errors import InputError, all_faults
from objectives.files import user_path
from objectives.layers import WIDTHS
from objectives.loading import AUTO, NONE
from objectives.loading.tasks import GLUE, DataOptions, TaskName
from objectives.metrics import MetricName
from objectives.packing.footprint import SizeAxis
from objectives.packing.scheme import QuantizerName
from objectives.scores import Precision
from results.outcome import DEFAULT_MARGIN, Quality
from search.allocation.knapsack import Source

PROFILES = ("miniature", "cola")
_NAMES = ("miniature", AUTO, NONE)  # what a place may be called without being a path
_SHARE = r"0?\.[0-9]+(@[0-9]+)?"
GUIDED: Literal["guided"] = "guided"
Sampler = Literal["guided", "nsga2", "tpe", "random"]
Device = Literal["auto", "cpu", "cuda"]

_MODEL, _SEARCH, _BUDGET, _AFTER = "Model and data", "Search", "Budget", "After the search"
_Text = Annotated[StrictStr, Field(min_length=1)]
_Whole = Annotated[StrictInt, Field(ge=0, le=2**32 - 1)]


def _setting(group: str, help_: str, **limits: Any) -> Any:
    """Describe a setting: the heading of its option in the help, its help, and pydantic's limits."""
    return Field(description=help_, json_schema_extra={"group": group}, **limits)


def _widths(given: object) -> tuple[int, ...]:
    """Return widths, given as a list or as the text ``2,4,8``, in their order and each once."""
    if isinstance(given, str):
        given = [int(word) if word.strip().isdecimal() else word for word in given.split(",")]
    items = given if isinstance(given, (list, tuple)) else []
    if not all(type(item) is int and item in WIDTHS for item in items) or len(set(items)) < 2:
        raise ValueError  # the message is that of the setting
    return tuple(sorted(set(items)))


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Profile:
    """The settings of a search.

    This is the only place for their types, limits, defaults and help; the checks, their messages and the command line's
    options follow from it. ``min_compression`` is a multiple of the FP32 size, ``margin`` a loss of the metric.
    """

    model: Annotated[
        _Text, _setting(_MODEL, "Fine-tuned BERT: a local directory, a Hugging Face hub name, or miniature (shipped).")
    ]
    data: Annotated[
        _Text, _setting(_MODEL, "Labelled sentences: a file, a directory, a hub data set, or miniature (shipped).")
    ]
    task: Annotated[
        Literal["none", TaskName], _setting(_MODEL, "Task of GLUE: its columns, labels and splits; GLUE is its data.")
    ] = NONE
    text_column: Annotated[
        tuple[_Text, ...], _setting(_MODEL, "Column of texts; give it twice for pairs.", max_length=2)
    ] = ()
    label_column: Annotated[
        tuple[_Text, ...], _setting(_MODEL, "Column of labels; give it several times for several labels or numbers.")
    ] = ()
    train_split: Annotated[_Text, _setting(_MODEL, "Name of the training split.")] = AUTO
    validation_split: Annotated[_Text, _setting(_MODEL, "Name of the validation split.")] = AUTO
    calibration: Annotated[
        _Text, _setting(_MODEL, "File of texts in place of training sentences; they need no labels.")
    ] = NONE
    max_length: Annotated[_Whole, _setting(_MODEL, "Most tokens of an input; 0 for the model's limit.")] = 0
    max_eval_samples: Annotated[
        _Whole, _setting(_MODEL, "Most validation sentences to search with, drawn by label; 0 for all.")
    ] = 2000
    metric: Annotated[
        Literal[MetricName, "auto"],
        _setting(_MODEL, "Metric: mcc, accuracy, f1, pearson, spearman, or auto, the task's or the model's usual one."),
    ] = "auto"
    trials: Annotated[
        _Whole, _setting(_BUDGET, "Stop when the run has this many trials (evaluated maps); 0 for no limit.")
    ] = 0
    hours: Annotated[
        StrictFloat, _setting(_BUDGET, "Stop this many hours after this start; 0 for no limit.", ge=0, le=10**6)
    ] = 0.0
    early_stop: Annotated[
        StrictBool,
        _setting(_BUDGET, "Without a limit of trials, stop once there is hardly anything left to gain at any size."),
    ] = True
    quality: Annotated[
        Quality,
        _setting(_SEARCH, "Quality to optimise: damage (mean KL divergence from FP32), mcc (metric), or agreement."),
    ] = "damage"
    size: Annotated[
        SizeAxis,
        _setting(_SEARCH, "What counts as size: nominal (bits of codes), or packed or onnx (bytes of a file)."),
    ] = "nominal"
    widths: Annotated[
        tuple[Annotated[StrictInt, Field(ge=WIDTHS[0], le=WIDTHS[-1])], ...],
        _setting(_SEARCH, "Widths that a layer may have, in bits: two or more, as 2,4,8.", min_length=2),
        BeforeValidator(_widths),
    ] = WIDTHS
    min_compression: Annotated[
        StrictFloat, _setting(_SEARCH, "Size constraint: at least this many times smaller than FP32.", ge=1, le=10**6)
    ] = 5.5
    sampler: Annotated[
        Sampler, _setting(_SEARCH, "What proposes maps: guided (sensitivities and a surrogate), or one of Optuna's.")
    ] = GUIDED
    quantizer: Annotated[
        QuantizerName, _setting(_MODEL, "Rounding: affine (even levels), codebook (fitted ones), or calibrated (GPTQ).")
    ] = "calibrated"
    group_size: Annotated[
        _Whole, _setting(_MODEL, "Number of weights in a row that share a scale and a zero point; 0 for whole rows.")
    ] = 0
    sensitivity: Annotated[
        Literal[Source, "none"],
        _setting(_SEARCH, "Damage of each layer alone: measured, gradient (coarser), or none (not for guided)."),
    ] = "measured"
    precision: Annotated[
        Literal[Precision, "auto"],
        _setting(_SEARCH, "Of matrix products: auto is the faster one here. The best maps are scored again in FP32."),
    ] = "auto"
    device: Annotated[Device, _setting(_MODEL, "Where the model runs; auto uses a GPU if there is one.")] = "auto"
    distill: Annotated[
        Literal["none", "scales", "weights"],
        _setting(_AFTER, "Distil maps after the search, with --hours in the rest of them: scales, weights, or none."),
    ] = "none"
    seed: Annotated[_Whole, _setting(_SEARCH, "Random seed; with one worker, it repeats a search exactly.")] = 0
    workers: Annotated[
        StrictInt, _setting(_BUDGET, "Number of processes that evaluate maps in parallel.", ge=1, le=1024)
    ] = 1
    margin: Annotated[
        StrictFloat, _setting(_AFTER, "Largest loss of the metric against FP32 that counts as no loss.", ge=0, le=1)
    ] = DEFAULT_MARGIN
    confirm: Annotated[
        _Text, _setting(_AFTER, "Holdout set, scored at the end: a share (0.3, 0.3@SEED), a directory, none, or auto.")
    ] = AUTO
    unseen: Annotated[
        _Whole, _setting(_AFTER, "Number of unseen training sentences to score the best maps on; 0 for none.")
    ] = 2000

    # A continued run may change any other setting.
    @property
    def objective(self) -> dict[str, object]:
        """The settings that a continued run must keep; precision auto stands for whatever it has."""
        names = ("quality", "size", "min_compression", "widths", *(() if self.precision == "auto" else ("precision",)))
        return {name: getattr(self, name) for name in names}

    @property
    def data_options(self) -> DataOptions:
        """What to read of the data, and how much."""
        return DataOptions(**{name: getattr(self, name) for name in DATA_SETTINGS})

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


DATA_SETTINGS = tuple(field.name for field in fields(DataOptions))
"""The settings that say what to read of the data; they have the names of the fields of ``DataOptions``."""


def changed_data_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of ``DATA_SETTINGS`` that have another value than their default, as plain values."""
    plain = {name: list(value) if isinstance(value := settings[name], tuple) else value for name in DATA_SETTINGS}
    return {name: value for name, value in plain.items() if value != SETTINGS[name]["default"]}


PLACES = ("model", "data", "confirm", "calibration")
"""The settings that may name a file or a directory."""


def resolved_places(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the absolute paths of the settings that name files or directories; hub names have none."""
    return {name: str(path) for name in PLACES if (path := _path(settings.get(name))) is not None}


def places_to_try(given: Mapping[str, Any], resolved: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return where the model, data and holdout set of a run may be, the likeliest first.

    A setting is tried as it was given, from the working directory. If it named a file or directory when the run began,
    that one is tried next, or at once if the working directory has none of that name.

    Args:
        given: settings by name, as they were given; a name may be missing.
        resolved: what ``resolved_places`` returned at the run's start. Empty for runs of older versions.

    Raises:
        InputError: a file or directory is at neither place.
    """
    choices: list[list[str]] = []
    names = [name for name in PLACES if given.get(name)]
    for name in names:
        here, there = _path(given[name]), resolved.get(name)
        if not isinstance(there, str) or (here is not None and str(here) == there):
            choices.append([given[name]])
        elif here is not None:
            choices.append([given[name], *([there] if Path(there).exists() else [])])
        elif Path(there).exists():
            choices.append([there])
        else:
            raise InputError(f"{name} {given[name]}: is neither here nor at {there}, where it was; give --{name}")
    return [dict(zip(names, combination, strict=True)) for combination in product(*choices)]


def places_from_here(given: Mapping[str, str], resolved: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's model and data as the next command should name them, from any working directory.

    A name is kept if from here it is the run's directory, or if that directory is gone; else it is that directory's
    path. The arguments are those of ``places_to_try``.
    """
    places = dict(given)
    for name, place in given.items():
        here, there = _path(place), resolved.get(name)
        if isinstance(there, str) and str(here) != there and Path(there).exists():
            places[name] = there
    return places


def _path(place: object) -> Path | None:
    """Return a setting's file or directory, made absolute; None if it is the name of something else."""
    if not isinstance(place, str) or not place or place in _NAMES or re.fullmatch(_SHARE, place):
        return None
    try:
        path = Path(place).expanduser()
    except RuntimeError:  # ~name, and there is no such user
        return None
    return path.resolve() if path.exists() else None


def flag_of(name: str) -> str:
    """Return a setting's option, as ``--group-size``."""
    return f"--{name.replace('_', '-')}"


def off_flag_of(name: str) -> str:
    """Return the option that turns a setting off, as ``--no-early-stop``."""
    return f"--no-{name.replace('_', '-')}"


def given_as(name: str, value: object) -> list[object]:
    """Return the words of a command line that give a setting its value."""
    if isinstance(value, bool):
        return [flag_of(name) if value else off_flag_of(name)]
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if all(isinstance(one, int) for one in values):
        return [flag_of(name), ",".join(map(str, values))]
    return [word for one in values for word in (flag_of(name), f"{one:.10g}" if isinstance(one, float) else one)]


def only_limit(trials: int | None, hours: float | None) -> dict[str, int | float]:
    """Return both limits if just one is given, so that the profile's other limit does not apply."""
    if (trials is None) == (hours is None):
        return {}
    return {"trials": trials or 0, "hours": hours or 0.0}


def resolve_profile(name: str, flags: Mapping[str, Any]) -> Profile:
    """Return a profile overridden by flags.

    Args:
        name: ``miniature``, ``cola`` or the path of a TOML file.
        flags: settings that override the profile's; None means not given.

    Raises:
        InputError: there is no such profile or it is not TOML.
        InputError: keys are unknown or missing, or values out of range; the message lists all faults.
    """
    if name in PROFILES:
        text, subject = files("search.run").joinpath(f"{name}.toml").read_text(encoding="utf-8"), f"profile {name}"
    else:
        text, subject = _read_file(user_path(name)), name
    try:
        settings = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # int() raises a plain ValueError for thousands of digits
        raise InputError(f"{subject}: not valid TOML: {error}") from None
    given = {key: value for key, value in flags.items() if value is not None}
    # A task on the command line replaces the data of a profile; one in a file goes with the file's data.
    has_data = "data" in given or ("task" not in given and "data" in settings)
    if not has_data and {**settings, **given}.get("task", NONE) != NONE:
        given["data"] = GLUE[0]
    return checked_profile(settings | given, subject)


_PROFILE = TypeAdapter(Profile)
SETTINGS: Mapping[str, Mapping[str, Any]] = _PROFILE.json_schema()["properties"]
"""The JSON schema of each setting: ``type``, ``enum``, limits, ``default``, ``description`` and its ``group``."""


def checked_profile(settings: Mapping[str, Any], subject: str) -> Profile:
    """Return the profile with these settings, and defaults for the others; ``subject`` names them in errors.

    A whole number may stand for a float, as TOML and the shell write 8 for 8.0.

    Raises:
        InputError: keys are unknown or missing, or values out of range; the message lists all faults.
    """
    settings = _by_present_names(settings)
    faults = _conflicts(settings)
    try:
        profile = _PROFILE.validate_python(dict(settings))
    except ValidationError as error:
        faults = [_fault(str(at["loc"][0]), at["type"], at["input"]) for at in error.errors()] + faults
    if faults:
        raise all_faults(subject, faults)
    return profile


def _by_present_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their present names: ``polish`` of 0.4.0 and older is ``distill``."""
    given = dict(settings)
    if isinstance(given.get("polish"), bool):
        given = {"distill": "scales" if given.pop("polish") else "none"} | given
    return given


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no profile {str(path)!r}; give {', '.join(PROFILES)} or a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a profile ({error}); give a TOML file in UTF-8") from None


def _fault(key: str, kind: str, value: object) -> str:
    """Return the message for a fault that pydantic calls ``kind``."""
    if kind == "missing":
        return f"{key!r} is missing; give --{key} or write it in the profile"
    if key not in SETTINGS:
        return f"unknown key {key!r}; the keys are {', '.join(sorted(SETTINGS))}"
    return f"{key} must be {_rule(SETTINGS[key])}, not {value!r}"


def _rule(schema: Mapping[str, Any]) -> str:
    """Return which values a setting takes, from its JSON schema."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if "maximum" in schema:
        kind = "a whole number" if schema["type"] == "integer" else "a number"
        return f"{kind} from {schema['minimum']} to {schema['maximum']}"
    if schema["type"] == "array" and schema["items"]["type"] == "integer":
        least, items = schema["minItems"], schema["items"]
        return f"{least} or more different whole numbers from {items['minimum']} to {items['maximum']}, as 2,4,8"
    if schema["type"] == "array":
        return "a list of non-empty texts" + (f", {schema['maxItems']} at most" if "maxItems" in schema else "")
    return "true or false" if schema["type"] == "boolean" else "a non-empty text"


def _conflicts(settings: Mapping[str, Any]) -> list[str]:
    """Return the faults of settings that exclude each other."""
    values = {**{key: schema.get("default") for key, schema in SETTINGS.items()}, **settings}
    faults = []
    if values["quantizer"] == "codebook" and values["group_size"] != 0:
        faults.append(
            "codebook has one scale a row and takes no group_size; give another --quantizer or --group-size 0"
        )
    if values["quantizer"] == "codebook" and values["distill"] == "weights":
        faults.append("codebooks have no even levels to train weights on; give another --quantizer or --distill scales")
    if values["sensitivity"] == "none" and values["sampler"] == GUIDED:
        faults.append("the guided sampler needs sensitivities; give another --sampler or --sensitivity gradient")
    return faults
