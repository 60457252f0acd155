"""Reading of labelled sentences: CoLA's layout to the letter, and every fault of a file in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from objectives.errors import InputError
from objectives.loading.sentences import Sentences, load_sentences
from objectives.loading.tasks import Split
from tests.shared import COLA, needs_shared

TRAIN = "in_domain_train.tsv"
IN_DOMAIN_DEV = "in_domain_dev.tsv"
OUT_OF_DOMAIN_DEV = "out_of_domain_dev.tsv"
GOOD = b"x01\t1\t\tThe cat sleeps.\nx01\t0\t*\tSleeps cat the.\n"


def cola(directory: Path, **files: bytes) -> Path:
    """Write a directory in CoLA's layout: three good files, or what is given instead."""
    (directory / "raw").mkdir()
    contents = {"in_domain_train": GOOD, "in_domain_dev": GOOD, "out_of_domain_dev": GOOD} | files
    for name, content in contents.items():
        (directory / "raw" / f"{name}.tsv").write_bytes(content)
    return directory


def refusal(source: Path | str, split: Split = "train") -> str:
    with pytest.raises(InputError) as caught:
        load_sentences(str(source), split)
    return str(caught.value)


def test_the_splits_are_made_of_their_files(tmp_path: Path) -> None:
    source = cola(
        tmp_path,
        in_domain_train=b"s\t1\t\ttrain one\ns\t0\t*\ttrain two\n",
        in_domain_dev=b"s\t0\t*\tin one\ns\t1\t\tin two\n",
        out_of_domain_dev=b"s\t1\t\tout one\n",
    )
    train, validation = load_sentences(str(source), "train"), load_sentences(str(source), "validation")
    assert (train.texts, train.labels.tolist()) == (("train one", "train two"), [1, 0])
    assert train.in_domain is not None and train.in_domain.tolist() == [True, True]
    assert (validation.texts, validation.labels.tolist()) == (("in one", "in two", "out one"), [0, 1, 1])
    assert validation.in_domain is not None and validation.in_domain.tolist() == [True, True, False]
    assert validation.labels.dtype == np.int8
    assert (len(validation), validation.source) == (3, str(source))


def test_the_raw_folder_itself_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cola(tmp_path)
    assert load_sentences(str(tmp_path / "raw"), "train").texts == load_sentences(str(tmp_path), "train").texts
    monkeypatch.chdir(tmp_path / "raw")
    assert len(load_sentences(".", "validation")) == 4


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b's\t1\t\t"Quoted," she said "twice.', '"Quoted," she said "twice.'),
        (b's\t1\t\t"one" mark"', '"one" mark"'),
        ("s\t1\t\tNaïve — “curly” quotes".encode(), "Naïve — “curly” quotes"),
        ("s\t1\t\tno end\u2028of\u0085the\u000cline".encode(), "no end\u2028of\u0085the\u000cline"),
        (b"s\t1\t\t  spaces are kept  ", "  spaces are kept  "),
        (b"s\t1\t\tNA", "NA"),
        (b"s\t1\t\twindows\r", "windows"),
        (b"\t1\t\tno source", "no source"),
    ],
)
def test_a_sentence_is_what_lies_after_the_third_tab(line: bytes, text: str, tmp_path: Path) -> None:
    source = cola(tmp_path, in_domain_train=line + b"\n" + GOOD)
    assert load_sentences(str(source), "train").texts[0] == text


def test_the_last_line_may_lack_its_end(tmp_path: Path) -> None:
    source = cola(tmp_path, in_domain_train=GOOD.removesuffix(b"\n"))
    assert load_sentences(str(source), "train").texts == ("The cat sleeps.", "Sleeps cat the.")


@needs_shared
def test_the_public_cola_has_its_known_sizes_and_order() -> None:
    train, validation = load_sentences(str(COLA), "train"), load_sentences(str(COLA), "validation")
    assert (len(train), len(validation)) == (8551, 1043)
    assert validation.in_domain is not None
    assert validation.in_domain.tolist() == [True] * 527 + [False] * 516
    # The slow and obvious twin.
    rows = [
        line.split("\t")
        for name in (IN_DOMAIN_DEV, OUT_OF_DOMAIN_DEV)
        for line in (COLA / "raw" / name).read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    ]
    assert validation.texts == tuple(row[3] for row in rows)
    assert validation.labels.tolist() == [int(row[1]) for row in rows]


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    source = cola(tmp_path, in_domain_train=pointer)
    assert f"Git LFS pointer: {TRAIN}; run `git lfs pull` in {source / 'raw'}" in refusal(source)


def test_a_missing_directory_folder_or_file_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "there is no such directory" in refusal(tmp_path / "absent")
    assert f"raw/ with {TRAIN}, this directory has none" in refusal(tmp_path)
    source = cola(tmp_path)
    (source / "raw" / OUT_OF_DOMAIN_DEV).unlink()
    assert f"{OUT_OF_DOMAIN_DEV} is missing" in refusal(source, "validation")
    assert len(load_sentences(str(source), "train")) == 2
    (source / "raw" / IN_DOMAIN_DEV).unlink()
    both = refusal(source, "validation")
    assert f"{IN_DOMAIN_DEV} is missing" in both
    assert f"{OUT_OF_DOMAIN_DEV} is missing" in both


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"s\t1\tThe cat.", "line 3: needs 4 columns separated by tabs, has 3"),
        (b"s\t1\t\tThe\tcat.", "line 3: needs 4 columns separated by tabs, has 5"),
        (b"", "line 3: needs 4 columns separated by tabs, has 1"),
        (b"s\t2\t*\tThe cat.", "line 3: label must be 0 or 1, got '2'"),
        (b"s\t\t*\tThe cat.", "line 3: label must be 0 or 1, got ''"),
        (b"s\t-1\t\tThe cat.", "line 3: label -1 marks a hidden label"),
        (b"s\t1\t\t", "line 3: sentence must not be empty, got ''"),
        (b"s\t1\t\t \r", "line 3: sentence must not be empty, got ' '"),
        (b"s\t1\t\tna\xefve", "line 3: must be UTF-8, byte 8 is not"),
    ],
)
def test_a_faulty_line_is_named_by_its_number(line: bytes, fault: str, tmp_path: Path) -> None:
    source = cola(tmp_path, in_domain_train=GOOD + line + b"\n" + GOOD)
    message = refusal(source)
    assert fault in message
    assert str(source / "raw" / TRAIN) in message


def test_all_faults_of_a_file_are_shown_together(tmp_path: Path) -> None:
    source = cola(tmp_path, in_domain_train=GOOD + b"nothing\n" + GOOD + b"s\t7\t\t\ns\t1\t\t\xff\n")
    lines = refusal(source).splitlines()
    assert lines[0].endswith(f"{TRAIN}: 4 faults")
    assert [line.split(":")[0] for line in lines[1:]] == ["  - line 3", "  - line 6", "  - line 6", "  - line 7"]


@pytest.mark.parametrize(("count", "last"), [(20, "line 20: "), (21, "and 1 more"), (500, "and 480 more")])
def test_at_most_twenty_faults_are_shown(count: int, last: str, tmp_path: Path) -> None:
    lines = refusal(cola(tmp_path, in_domain_train=b"bad\n" * count)).splitlines()
    assert lines[0].endswith(f"{count} faults")
    assert len(lines) == 1 + min(count, 20) + (count > 20)
    assert last in lines[-1]


def test_an_empty_file_and_a_single_label_are_refused(tmp_path: Path) -> None:
    source = cola(tmp_path, in_domain_train=b"", in_domain_dev=b"s\t1\t\tYes.\n", out_of_domain_dev=b"s\t1\t\tYes.\n")
    assert f"{TRAIN}: is empty" in refusal(source)
    assert "both labels are needed, all 2 sentences have 1" in refusal(source, "validation")


def test_sentences_keep_read_only_copies() -> None:
    labels: Any = np.array([0, 1], dtype=np.int64)
    in_domain = np.array([True, False])
    sentences = Sentences(("a", "b"), labels, in_domain, "here")
    assert sentences.labels.dtype == np.int8
    assert sentences.in_domain is not None
    for array in (sentences.labels, sentences.in_domain):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    labels[0], in_domain[0] = 1, False  # the caller's own stay writable, and apart
    assert sentences.labels.tolist() == [0, 1]
    assert sentences.in_domain.tolist() == [True, False]


@pytest.mark.parametrize(
    ("texts", "labels", "in_domain", "fault"),
    [
        ((), [], None, "got no sentences"),
        (("a", "b"), [0, 1, 1], None, "labels must be \\(2,\\) integers"),
        (("a", "b"), [0.0, 1.0], None, "labels must be \\(2,\\) integers"),
        (("a", "b"), [0, 2], None, "sentence 1: label must be 0 or 1, got 2"),
        (("a", "b"), [0, -1], None, "sentence 1: label -1"),
        (("a", "b"), [0, 257], None, "got 257"),
        (("a", " "), [0, 1], None, "sentence 1: sentence must not be empty"),
        (("a", "b"), [0, 0], None, "both labels are needed"),
        (("a", "b"), [0, 1], [True], "in_domain must be \\(2,\\) bool"),
        (("a", "b"), [0, 1], [1, 0], "in_domain must be \\(2,\\) bool"),
    ],
)
def test_sentences_check_themselves(
    texts: tuple[str, ...], labels: list[int], in_domain: list[bool] | None, fault: str
) -> None:
    array: Any = np.array(labels, dtype=None if labels else np.int64)
    with pytest.raises(ValueError, match=fault):
        Sentences(texts, array, None if in_domain is None else np.array(in_domain), "here")
