"""Reading of a data set's folder: its card is followed or refused, and no reader loses a row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from objectives.errors import InputError
from objectives.loading.data_sets import read_data_set
from objectives.loading.labels import read_labels
from objectives.loading.tasks import ALL_DEFAULT

ROWS = [("A cat.", 1), ("Cat a.", 0)]


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "tables")


def data_set(folder: Path, files: Mapping[str, str | bytes], settings: str = "", features: str = "") -> Path:
    """Write the files of a data set, with a card if it has settings for them."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if settings or features:
        [name] = files
        card = f"configs:\n- config_name: default\n  data_files: {name}\n{settings}" if settings else features
        (folder / "README.md").write_text(f"---\n{card}\n---\n", encoding="utf-8")
    return folder


def read(folder: Path) -> list[tuple[Any, Any]]:
    """Return the text and the class of each row of a split."""
    parts = read_data_set(folder, None, "train", ALL_DEFAULT)
    labels, _, faults = read_labels([cells for part in parts for cells in part.labels], "classes", parts[0].names, 2)
    assert labels is not None, faults
    return list(zip((text for part in parts for (text,) in part.texts), labels.tolist(), strict=True))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(folder)
    return str(caught.value)


def test_a_hub_tsv_keeps_rows_that_begin_with_a_quotation_mark(tmp_path: Path) -> None:
    content = 'sentence\tlabel\n"Where is it?\t1\nShe said.\t0\n"Here," he said.\t1\nIt is "here"\t0\n'
    folder = data_set(tmp_path / "data", {"train.tsv.gz": gzip.compress(content.encode())})
    assert read(folder) == [
        ('"Where is it?', 1),
        ("She said.", 0),
        ('"Here," he said.', 1),
        ('It is "here"', 0),
    ]


def test_a_hub_csv_with_an_open_mark_is_refused_with_file_and_line(tmp_path: Path) -> None:
    content = 'sentence,label\nA cat.,1\n"Where is it?,1\nA dog.,0\nHe said hello",0\n'
    folder = data_set(tmp_path / "data", {"train.csv": content})
    assert f"{folder / 'train.csv'}: lines 3 to 5: a quotation mark joins them" in refusal(folder)


def test_all_files_of_a_split_are_read_in_order_and_no_value_is_taken_for_missing(tmp_path: Path) -> None:
    parts = {f"train-{part}.csv": f"label,sentence\n1,NA\n0.0,null {part}\n" for part in (0, 1)}
    folder = data_set(tmp_path / "data", parts)
    assert read(folder) == [("NA", 1), ("null 0", 0), ("NA", 1), ("null 1", 0)]


def test_names_of_labels_are_those_of_the_card(tmp_path: Path) -> None:
    features = (
        "dataset_info:\n  features:\n  - name: sentence\n    dtype: string\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n          '0': wrong\n          '1': right"
    )
    folder = data_set(tmp_path / "data", {"train.csv": "sentence,label\nA cat.,right\nCat a.,0\n"}, features=features)
    assert read(folder) == ROWS


@pytest.mark.parametrize(
    ("settings", "content"),
    [
        ('  sep: ";"', "sentence;label\nA cat.;1\nCat a.;0\n"),
        ('  delimiter: "\\t"', "sentence\tlabel\nA cat.\t1\nCat a.\t0\n"),
        ("  column_names: [label, sentence]", "1,A cat.\n0,Cat a.\n"),
        ("  column_names: [label, sentence]\n  header: null", "1,A cat.\n0,Cat a.\n"),
    ],
)
def test_the_settings_of_a_card_are_followed(settings: str, content: str, tmp_path: Path) -> None:
    assert read(data_set(tmp_path / "data", {"train.csv": content}, settings)) == ROWS


def test_without_quoting_marks_are_text(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "data", {"train.csv": 'sentence,label\n"A,1\n'}, "  quoting: 3")
    assert read(folder) == [('"A', 1)]


@pytest.mark.parametrize("setting", ["skiprows: 1", 'sep: "\\\\s+"', 'comment: "#"', "header: 2"])
def test_a_setting_that_would_change_the_rows_is_refused_by_its_name(setting: str, tmp_path: Path) -> None:
    folder = data_set(tmp_path / "data", {"train.csv": "#\nsentence,label\nA cat.,1\n"}, f"  {setting}")
    assert f"its card reads train.csv with {setting.split(':')[0]}" in refusal(folder)


def written(kind: str, table: pd.DataFrame) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in table.to_dict("records")).encode()
    content: Any = table.to_parquet(None, index=False)
    return bytes(content)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_files_keep_line_feeds(kind: str, tmp_path: Path) -> None:
    good = pd.DataFrame({"sentence": ['"A\ncat."', "Cat\ta."], "label": [1, 0]})
    folder = data_set(tmp_path / "good", {f"train.{kind}": written(kind, good)})
    assert read(folder) == [('"A\ncat."', 1), ("Cat\ta.", 0)]


@pytest.mark.parametrize("name", ["train.csv", "train.parquet"])
def test_a_pointer_of_git_lfs_is_named(name: str, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    folder = data_set(tmp_path / "data", {name: pointer})
    assert f"Git LFS pointer: {name}; run `git lfs pull` in {folder}" in refusal(folder)
