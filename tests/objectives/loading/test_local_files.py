"""Local files of every format: the same sentences, the usual columns, and faults with their lines."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from objectives.errors import InputError
from objectives.loading.sentences import load_sentences, load_texts
from objectives.loading.tasks import TASKS, DataOptions

ROWS = [("The cat sees.", "yes"), ('A dog, "here".', "no"), ("Birds see the cat.", "yes")]
TEXTS = tuple(text for text, _ in ROWS)


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns or {"sentence": TEXTS, "label": [label for _, label in ROWS]})


def write(path: Path, content: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".csv":
            content.to_csv(path, index=False)
        case ".tsv":
            content.to_csv(path, index=False, sep="\t")
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in content.to_dict("records")), encoding="utf-8")
        case ".parquet":
            content.to_parquet(path, index=False)
    return path


def refusal(source: Path, split: Any = "validation", **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_sentences(str(source), split, DataOptions(**options))
    return str(caught.value)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_file_is_validation_sentences_in_any_format(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"mine{ending}", table())
    sentences = load_sentences(str(path), "validation")
    assert (sentences.texts, sentences.labels.tolist()) == (TEXTS, [1, 0, 1])
    assert (sentences.names, sentences.numbered, sentences.in_domain) == (("no", "yes"), False, None)
    assert "one file has no training sentences" in refusal(path, "train")


@pytest.mark.parametrize(
    "validation", ["validation.csv", "dev.tsv", "valid.jsonl", "data/validation-00000-of-1.parquet"]
)
def test_a_directory_has_a_file_for_each_split(validation: str, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", table(text=["One.", "Two."], label=[0, 1]))
    write(tmp_path / validation, table())
    write(tmp_path / "test.csv", table(text=["Not read."], label=[-1]))
    assert load_sentences(str(tmp_path), "validation").texts == TEXTS
    assert load_sentences(str(tmp_path), "train").texts == ("One.", "Two.")
    assert load_texts(str(tmp_path)) == ("One.", "Two.")
    other = str(write(tmp_path / "other.tsv", table(text=["Unlabelled."])))
    assert load_texts(str(tmp_path), DataOptions(calibration=other)) == ("Unlabelled.",)
    chosen = DataOptions(validation_split="train")
    assert load_sentences(str(tmp_path), "validation", chosen).texts == ("One.", "Two.")


def test_a_directory_without_a_split_is_told_what_could_be_there(tmp_path: Path) -> None:
    write(tmp_path / "validation.csv", table())
    message = refusal(tmp_path, "train")
    assert "has no train split; a directory has files train.csv, .tsv, .jsonl or .parquet" in message
    write(tmp_path / "validation.tsv", table())
    assert "split 'validation' has files of several formats (validation.csv, validation.tsv)" in refusal(tmp_path)
    path = tmp_path / "notes.txt"
    path.write_text("x", encoding="utf-8")
    assert "a file whose name ends with .csv, .tsv" in refusal(path)


@pytest.mark.parametrize(
    "names",
    [
        ("sentence1", "sentence2", "label"),
        ("premise", "hypothesis", "gold_label"),
        ("question", "sentence", "labels"),
        ("question1", "question2", "is_duplicate"),
        ("#1 String", "#2 String", "Quality"),
    ],
)
def test_pairs_are_found_by_their_usual_columns(names: tuple[str, str, str], tmp_path: Path) -> None:
    one, two, label = names
    path = write(tmp_path / "pairs.csv", table(**{label: [0, 1], "index": [7, 8], two: ["b", "d"], one: ["a", "c"]}))
    sentences = load_sentences(str(path), "validation")
    assert (sentences.texts, sentences.labels.tolist()) == ((("a", "b"), ("c", "d")), [0, 1])


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.csv", table(a=["x", "y"], b=["u", "v"], label=["p", "q"], mark=[1.5, 2.0], n=[1, 0]))
    named = DataOptions(text_column=("b", "a"), label_column=("mark",))
    sentences = load_sentences(str(path), "validation", named)
    assert (sentences.texts, sentences.labels.tolist(), sentences.names) == ((("u", "x"), ("v", "y")), [1.5, 2.0], ())
    both = load_sentences(str(path), "validation", DataOptions(text_column=("a",), label_column=("mark", "n")))
    assert both.labels.tolist() == [[1.5, 1.0], [2.0, 0.0]]
    assert "the columns are 'a', 'b', 'label', 'mark', 'n'; name the right ones by --text-column" in refusal(path)
    assert "there is no column 'c'" in refusal(path, text_column=("c",))


def test_faults_of_all_lines_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = [
        '{"sentence": "A.", "label": 1}',
        '{"sentence": ',
        "[1]",
        "",
        '{"label": 0}',
        '{"sentence": "B", "label": 7.5}',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    message = refusal(path, task="sst2")
    assert message.startswith(f"{path}: 4 faults")
    assert [line.split(": ")[0] for line in message.splitlines()[1:]] == [f"  - line {n}" for n in (2, 3, 5, 6)]
    joined = write(tmp_path / "joined.parquet", table(text=["Fine.", "Hello.\t1\nThe cat"], label=[1, 0]))
    assert "row 1: sentence holds other rows with their labels" in refusal(joined)
    (tmp_path / "cut.parquet").write_bytes(joined.read_bytes()[:100])
    assert "cut.parquet: cannot be read as Parquet" in refusal(tmp_path / "cut.parquet")
    (tmp_path / "marks.csv").write_text('text,label\nA.,x\n"B.,y\nC.,x\n', encoding="utf-8")
    assert "marks.csv: line 3: a quotation mark begins a field and none ends it" in refusal(tmp_path / "marks.csv")


def test_what_datasets_saved_is_read(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["zero", "one"])}
    )
    split = datasets.Dataset.from_dict({"text": ["A.", "B."], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": split, "validation": split}).save_to_disk(tmp_path / "both")
    for name in ("train", "validation"):
        sentences = load_sentences(str(tmp_path / "both"), name)
        assert (sentences.texts, sentences.labels.tolist(), sentences.names) == (("A.", "B."), [1, 0], ("zero", "one"))
    split.save_to_disk(tmp_path / "one")
    assert len(load_sentences(str(tmp_path / "one"), "validation")) == 2
    assert "has no split 'train', it has 'validation'" in refusal(tmp_path / "one", "train")
    several = datasets.Features({"text": datasets.Value("string"), "labels": datasets.List(features["label"])})
    lists = datasets.Dataset.from_dict({"text": ["A.", "B."], "labels": [[1], [0, 1]]}, features=several)
    lists.to_parquet(tmp_path / "lists.parquet")
    sentences = load_sentences(str(tmp_path / "lists.parquet"), "validation")
    assert (sentences.labels.tolist(), sentences.names) == ([[0, 1], [1, 1]], ("zero", "one"))


def test_glues_own_archive_is_read_by_its_tasks(tmp_path: Path) -> None:
    cola = 's\t1\t\tA "cat".\ns\t0\t*\tCat a.\n'
    for name in ("train.tsv", "dev.tsv.gz"):
        (tmp_path / "CoLA").mkdir(exist_ok=True)
        content = cola.encode()
        (tmp_path / "CoLA" / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    for split in ("train", "validation"):
        sentences = load_sentences(str(tmp_path), split, DataOptions(task="cola"))
        assert (sentences.texts, sentences.labels.tolist()) == (('A "cat".', "Cat a."), [1, 0])
    assert sentences.names == TASKS["cola"].label_names
    mnli = {"index": [0, 1], "sentence1": ['"a', "c"], "sentence2": ["b", 'd "'], "label1": ["neutral", "neutral"]}
    for part, labels in (("matched", ["neutral", "contradiction"]), ("mismatched", ["entailment", "neutral"])):
        rows = pd.DataFrame(mnli | {"gold_label": labels})
        (tmp_path / "MNLI").mkdir(exist_ok=True)
        rows.to_csv(tmp_path / "MNLI" / f"dev_{part}.tsv", sep="\t", index=False, quoting=3)
    options = DataOptions(task="mnli")
    sentences = load_sentences(str(tmp_path), "validation", options)
    assert (sentences.texts, sentences.labels.tolist()) == ((('"a', "b"), ("c", 'd "')), [1, 2])
    options = DataOptions(task="mnli", validation_split="validation_mismatched")
    assert load_sentences(str(tmp_path), "validation", options).labels.tolist() == [0, 1]
    write(tmp_path / "STS-B" / "dev.tsv", table(sentence1=["a", "b"], sentence2=["c", "d"], score=[5, 0]))
    sentences = load_sentences(str(tmp_path), "validation", DataOptions(task="stsb"))
    assert sentences.labels.dtype == np.float64
