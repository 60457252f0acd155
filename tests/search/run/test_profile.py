from pathlib import Path
from typing import Any, get_args

import pytest

from objectives.errors import InputError
from objectives.layers import WIDTHS
from objectives.loading.tasks import DataOptions
from search.run.profile import (
    GUIDED,
    PROFILES,
    SETTINGS,
    Profile,
    Sampler,
    checked_profile,
    given_as,
    only_limit,
    places_to_try,
    resolve_profile,
    resolved_places,
)
from search.samplers.optuna_samplers import SAMPLERS

NEEDED = {"model": "m", "data": "d"}


def test_the_shipped_profiles() -> None:
    assert PROFILES == ("miniature", "cola")
    miniature = resolve_profile("miniature", {})
    assert (miniature.model, miniature.data, miniature.min_compression) == ("miniature", "miniature", 5.5)
    cola = resolve_profile("cola", {})
    assert (cola.model, cola.data, cola.hours) == ("JeremiahZ/bert-base-uncased-cola", "nyu-mll/glue", 8.0)
    assert cola.quality == "damage"
    assert cola.size == "nominal"


def test_every_sampler_can_be_asked_for() -> None:
    assert get_args(Sampler) == (GUIDED, *SAMPLERS)


def test_a_profile_may_begin_with_a_byte_order_mark_and_lie_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text("\ufeffmodel = 'm'\ndata = 'd'\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_profile("~/mine.toml", {}) == Profile("m", "d")


def test_flags_override_and_none_does_not(tmp_path: Path) -> None:
    profile = resolve_profile("cola", {"model": "here", "hours": 2, "trials": None})
    assert (profile.model, profile.hours, profile.trials) == ("here", 2.0, 0)
    assert isinstance(profile.hours, float)
    path = tmp_path / "mine.toml"
    path.write_text('model = "a"\ndata = "b"\nseed = 3\npolish = true\n', encoding="utf-8")
    assert resolve_profile(str(path), {"seed": 0}).seed == 0  # a flag with the default's value is a flag
    assert resolve_profile(str(path), {"seed": None}).seed == 3
    # Polish is the older name of distilling scales.
    assert resolve_profile(str(path), {}).distill == "scales"
    assert resolve_profile(str(path), {"distill": "weights"}).distill == "weights"


def test_a_task_brings_its_data_unless_data_are_named(tmp_path: Path) -> None:
    assert resolve_profile("miniature", {"task": "sst2"}).data == "nyu-mll/glue"
    assert resolve_profile("miniature", {"task": "none"}).data == "miniature"
    assert resolve_profile("miniature", {"task": "sst2", "data": "mine"}).data == "mine"
    path = tmp_path / "mine.toml"
    path.write_text('model = "a"\ntask = "mnli"\ntext_column = ["x", "y"]\n', encoding="utf-8")
    profile = resolve_profile(str(path), {})
    assert (profile.data, profile.data_options) == (
        "nyu-mll/glue",
        DataOptions("mnli", ("x", "y"), max_eval_samples=2000),
    )
    path.write_text('model = "a"\ntask = "mnli"\ndata = "b"\n', encoding="utf-8")
    assert resolve_profile(str(path), {}).data == "b"


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('model = "a"\ndata = "b"\nmin_compression = 8\nquality = "mcc"\n', encoding="utf-8")
    profile = resolve_profile(str(path), {})
    assert (profile.min_compression, profile.quality) == (8.0, "mcc")


def test_widths_are_a_list_or_a_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('model = "a"\ndata = "b"\nwidths = [8, 2, 4, 4]\n', encoding="utf-8")
    assert resolve_profile(str(path), {}).widths == (2, 4, 8)
    assert resolve_profile(str(path), {"widths": "3, 5"}).widths == (3, 5)
    assert checked_profile(NEEDED, "x").widths == WIDTHS
    for wrong in ("4", "1,2", "2-4", [2, 4.0], 3, []):
        with pytest.raises(InputError) as refused:
            checked_profile(NEEDED | {"widths": wrong}, "x")
        rule = "2 or more different whole numbers from 2 to 8, as 2,4,8"
        assert str(refused.value) == f"x: widths must be {rule}, not {wrong!r}"


def test_settings_are_given_as_the_command_line_takes_them() -> None:
    assert given_as("widths", (2, 4, 8)) == ["--widths", "2,4,8"]
    assert given_as("text_column", ("a", "b")) == ["--text-column", "a", "--text-column", "b"]
    assert given_as("min_compression", 8.0) == ["--min-compression", "8"]
    assert given_as("early_stop", True) == ["--early-stop"] and given_as("early_stop", False) == ["--no-early-stop"]


def test_whole_numbers_and_floats_make_the_same_fingerprint() -> None:
    whole, decimal = (checked_profile(NEEDED | {"min_compression": kind(8)}, "x") for kind in (int, float))
    assert repr(whole.objective) == repr(decimal.objective)
    assert repr(whole.to_dict()) == repr(decimal.to_dict())
    assert checked_profile(whole.to_dict(), "x") == whole


def test_all_faults_come_together(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'modle = "a"\ndata = ""\ntrials = -1\nhours = true\nquality = "loss"\nseed = 1.5\n', encoding="utf-8"
    )
    with pytest.raises(InputError) as caught:
        resolve_profile(
            str(path), {"min_compression": float("nan"), "quantizer": "codebook", "group_size": 8, "distill": "weights"}
        )
    message = str(caught.value)
    for fault in (
        f"unknown key 'modle'; the keys are {', '.join(sorted(SETTINGS))}",
        "'model' is missing; give --model or write it in the profile",
        "data must be a non-empty text, not ''",
        "trials must be a whole number from 0 to 4294967295, not -1",
        "hours must be a number from 0 to 1000000, not True",
        "quality must be one of damage, mcc, agreement, not 'loss'",
        "seed must be a whole number from 0 to 4294967295, not 1.5",
        "min_compression must be a number from 1 to 1000000, not nan",
        "codebook has one scale a row and takes no group_size",
        "codebooks have no even levels to train weights on",
    ):
        assert f"  - {fault}" in message
    assert "10 faults" in message


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("model", ["", 3, ["a"]]),
        ("trials", [True, 1.0, "1", 2**32, 10**400]),
        ("hours", [True, "1", -0.1, 1e7, float("inf"), float("nan"), 10**400]),
        ("early_stop", [1, 0, "true"]),
        ("workers", [0, 1025]),
        ("margin", [-0.01, 2]),
        ("sampler", ["grid", 3, [], {}]),
        ("task", ["squad", ""]),
        ("text_column", ["text", ["a", "b", "c"]]),
        ("sensitivity", ["none", True]),  # none: the guided sampler needs them
        ("self", [1]),
    ],
)
def test_what_no_setting_is(key: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(InputError) as caught:
            checked_profile(NEEDED | {key: value}, "mine")
        message = str(caught.value)
        assert message.startswith("mine: ") and "\n" not in message
        assert key in message or "sensitivities" in message
        assert repr(value) in message or key in ("sensitivity", "self")


@pytest.mark.parametrize(
    "settings",
    [
        {"quantizer": "codebook"},
        {"quantizer": "codebook", "group_size": 0},
        {"sensitivity": "none", "sampler": "tpe"},
        {"hours": 0, "margin": 1, "workers": 1024, "seed": 2**32 - 1},
    ],
)
def test_what_settings_are(settings: dict[str, Any]) -> None:
    kept = checked_profile(NEEDED | settings, "mine").to_dict()
    assert kept == Profile("m", "d").to_dict() | settings
    assert list(kept) == list(SETTINGS)


def test_every_setting_says_what_it_is_for() -> None:
    for name, schema in SETTINGS.items():
        assert schema["description"].endswith("."), name
        assert schema["group"], name
        assert "enum" in schema or "maximum" in schema or schema["type"] in ("string", "boolean", "array"), name


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"model = ", "not valid TOML"), (b"\xff\xfe", "cannot be read"), (None, "no profile")]
)
def test_files_that_are_no_profile(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        resolve_profile(str(path), {})


def test_a_limit_given_alone_is_the_only_one() -> None:
    assert only_limit(None, None) == {}
    assert only_limit(300, 8.0) == {}
    assert only_limit(None, 8.0) == {"trials": 0, "hours": 8.0}
    assert only_limit(300, None) == {"trials": 300, "hours": 0.0}


def test_places_are_tried_as_given_and_then_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for directory in ("model", "data", "0.3", "miniature"):
        (home / directory).mkdir(parents=True)
    (elsewhere / "model").mkdir(parents=True)
    monkeypatch.chdir(home)
    given = {"model": "model", "data": "data", "confirm": "0.3"}
    resolved = resolved_places(given)
    assert resolved == {"model": str(home / "model"), "data": str(home / "data")}  # a share is no directory
    assert resolved_places({"model": "miniature", "data": "nyu-mll/glue", "confirm": "auto"}) == {}
    assert places_to_try(given, resolved) == [given]
    assert places_to_try({"data": "nyu-mll/glue"}, {}) == [{"data": "nyu-mll/glue"}]

    monkeypatch.chdir(elsewhere)
    there = given | {"data": resolved["data"]}
    assert places_to_try(given, resolved) == [there, there | {"model": resolved["model"]}]
    assert places_to_try(given, {}) == [given]  # a run of an older version
    (home / "data").rmdir()
    with pytest.raises(InputError, match=r"data data: is neither here nor at .*home/data, where it was; give --data"):
        places_to_try(given, resolved)
