from pathlib import Path

import pytest

from objectives.errors import InputError
from search.profile import PROFILES, only_limit, resolve_profile


def test_the_shipped_profiles() -> None:
    assert PROFILES == ("miniature", "cola")
    miniature = resolve_profile("miniature", {})
    assert (miniature.model, miniature.data, miniature.min_compression) == ("miniature", "miniature", 5.5)
    cola = resolve_profile("cola", {})
    assert (cola.model, cola.data, cola.hours) == ("JeremiahZ/bert-base-uncased-cola", "nyu-mll/glue", 8.0)
    assert cola.quality == "damage"
    assert cola.size == "nominal"


def test_flags_override_and_none_does_not() -> None:
    profile = resolve_profile("cola", {"model": "here", "hours": 2, "trials": None})
    assert (profile.model, profile.hours, profile.trials) == ("here", 2.0, 0)
    assert isinstance(profile.hours, float)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('model = "a"\ndata = "b"\nmin_compression = 8\nquality = "mcc"\n', encoding="utf-8")
    profile = resolve_profile(str(path), {})
    assert (profile.min_compression, profile.quality) == (8.0, "mcc")


def test_all_faults_come_together(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'modle = "a"\ndata = ""\ntrials = -1\nhours = true\nquality = "loss"\nseed = 1.5\n', encoding="utf-8"
    )
    with pytest.raises(InputError) as caught:
        resolve_profile(str(path), {"min_compression": float("nan")})
    message = str(caught.value)
    for fault in (
        "unknown key 'modle'",
        "'model' is missing",
        "data must be",
        "trials must be",
        "hours must be",
        "quality must be one of damage, mcc, agreement",
        "seed must be",
        "min_compression must be",
    ):
        assert fault in message
    assert "8 faults" in message


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
