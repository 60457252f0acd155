"""What is predicted follows from the labels; both splits must agree; numbers have a unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from objectives.errors import InputError
from objectives.loading.tasks import DataOptions
from objectives.training.targets import Targets, Unit, load_targets
from tests.objectives.architectures import tiny_model


def load(directory: Path, train: str, validation: str = "", predict: Any = None, **options: Any) -> Targets:
    """Return the targets of two CSV files, given as rows without their first column, which is a text."""
    for split, rows in (("train", train), ("validation", validation or train)):
        header, *lines = rows.split()
        text = "".join(f"text {number},{line}\n" for number, line in enumerate(lines))
        (directory / f"{split}.csv").write_text(f"sentence,{header}\n{text}")
    (directory / "said").unlink(missing_ok=True)
    said: list[str] = []
    targets = load_targets(str(directory), DataOptions(**options), predict, said.append)
    (directory / "said").write_text("\n".join(said))
    return targets


AGES = " ".join(["label", *map(str, range(18, 90))])
COLUMNS: dict[str, Any] = {"label_column": ("mild", "hot")}


@pytest.mark.parametrize(
    ("train", "predict", "options", "description", "names", "labels"),
    [
        ("label b a c", None, {}, "3 classes", ("a", "b", "c"), [1, 0, 2]),
        ("label 0 2 1", None, {}, "3 classes", ("LABEL_0", "LABEL_1", "LABEL_2"), [0, 2, 1]),
        ("label 0.0 1.0 1.0", None, {}, "2 classes", ("LABEL_0", "LABEL_1"), [0, 1, 1]),
        ("label 0.0 1.0 2.0", None, {}, "a number", ("LABEL_0",), [0.0, 1.0, 2.0]),
        ("label 0.0 1.0 2.0", "classes", {}, "3 classes", ("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2]),
        ("label 1.5 4 3", None, {}, "a number", ("LABEL_0",), [1.5, 4.0, 3.0]),
        ("stars 1 4 3", "numbers", {"label_column": ("stars",)}, "a number", ("stars",), [1.0, 4.0, 3.0]),
        (AGES, None, {}, "a number", ("LABEL_0",), [*map(float, range(18, 90))]),
        ("label 5 -7 0", None, {}, "a number", ("LABEL_0",), [5.0, -7.0, 0.0]),
        ("mild,hot 0,1 1,0 1,1", None, COLUMNS, "2 yes/no labels", ("mild", "hot"), [[0, 1], [1, 0], [1, 1]]),
        ("mild,hot 0,7 3,0 1,1", None, COLUMNS, "2 numbers", ("mild", "hot"), [[0, 7], [3, 0], [1, 1]]),
        ("mild,hot 0,.5 3,0.25 1,1.0".replace(",.5", ",0.5"), None, COLUMNS, "2 numbers", ("mild", "hot"),
         [[0, 0.5], [3, 0.25], [1, 1]]),
        ("label 0 1 1", "labels", {}, "a yes/no label", ("LABEL_0",), [[0], [1], [1]]),
    ],
)  # fmt: skip
def test_labels_say_what_is_predicted(
    train: str, predict: Any, options: Any, description: str, names: Any, labels: Any, tmp_path: Path
) -> None:
    targets = load(tmp_path, train, predict=predict, **options)
    assert (targets.head.description, targets.names) == (description, names)
    assert targets.train.labels.tolist() == targets.validation.labels.tolist() == labels
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"the model is to predict {description}: {names[0]}")
    assert said.endswith(" (by the labels; --predict chooses otherwise)") == (predict is None)


def test_numbers_are_named_with_their_range(tmp_path: Path) -> None:
    load(tmp_path, "mild,hot 0,1500.5 3,-2 1,0", **COLUMNS)
    assert "predict 2 numbers: mild from 0 to 3, hot from -2 to 1500.5 (by" in (tmp_path / "said").read_text()


def test_a_split_may_lack_classes_and_write_them_otherwise(tmp_path: Path) -> None:
    targets = load(tmp_path, "label no Maybe yes maybe", "label YES no")
    assert targets.names == ("maybe", "no", "yes")
    assert (targets.validation.labels.tolist(), targets.validation.names) == ([2, 1], ("maybe", "no", "yes"))


def test_what_cannot_be_learnt_is_said(tmp_path: Path) -> None:
    load(tmp_path, "label 1 2 3")
    assert "note: LABEL_0 is the label of no training sentence" in (tmp_path / "said").read_text()
    load(tmp_path, "mild,hot 0,0 1,0", **COLUMNS)
    assert "note: hot is the same for all training sentences" in (tmp_path / "said").read_text()


@pytest.mark.parametrize(
    ("train", "validation", "predict", "options", "fault"),
    [
        ("label a a a", "label a b", None, {}, "different labels are needed, all 3 sentences have 0"),
        ("label 2.5 2.5", "label 1.5 2.5", None, {}, "different labels are needed, all 2 sentences have 2.5"),
        ("mild,hot 1,0 1,0", "", None, COLUMNS, "each label is the same for all 2 training sentences"),
        ("mild,hot 1,0.5 1,0.75", "", None, COLUMNS, "training sentences: the model predicts 2 numbers, and all labe"),
        ("label a b", "label a b c", None, {}, "no training sentence has the label c, which validation sentences have"),
        ("label 0 1", "label 0 1 5", None, {}, "no training sentence has the label 5, which"),
        ("label 0 2", "label 0 1 2", None, {}, "no training sentence has the label 1, which"),
        ("label 1.5 nan", "label 1.5 2", None, {}, "line 3: label must be a number, got 'nan'"),
        ("label 1.5 2", "label 1.5 2.5,", None, {}, "line 3: needs 2 fields"),
        ("mild,hot 0,1 1,", "", None, COLUMNS, "line 3: label must be 0 or 1, got ''"),
        ("label 1.5 2", "", "classes", {}, "label must be 0 to 2, got '1.5'"),
        ("label a b", "", "numbers", {}, "label must be a number, got 'a'"),
        ("mild,hot 0,1 1,0", "", "classes", COLUMNS, "--predict classes needs one label a sentence, there are 2"),
    ],
)
def test_labels_of_no_use_are_refused(
    train: str, validation: str, predict: Any, options: Any, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, train, validation, predict, **options)
    assert fault in str(caught.value)


def test_lists_of_another_length_are_refused(tmp_path: Path) -> None:
    line = '{"text": "a", "labels": [0, 1, 1]}\n{"text": "b", "labels": [1, 0, 1]}\n'
    (tmp_path / "train.jsonl").write_text(line)
    (tmp_path / "validation.jsonl").write_text(line.replace(", 1]", "]"))
    with pytest.raises(InputError, match="each validation sentence has 2 labels, each training sentence 3"):
        load_targets(str(tmp_path), DataOptions(), None, lambda _: None)
    (tmp_path / "validation.jsonl").write_text(line.replace("1, 1]", "1]"))
    with pytest.raises(InputError, match="line 2: needs 2 labels as the first row has, has 3"):
        load_targets(str(tmp_path), DataOptions(), None, lambda _: None)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm", "funnel"])
def test_a_head_predicts_in_the_unit_that_it_gets(model_type: str) -> None:
    numbers = np.array([[1000.0, -3.0], [1400.0, -3.5], [900.0, -2.0]])
    unit = Unit.of(numbers)
    assert unit.standardised(numbers).mean(axis=0) == pytest.approx([0, 0])
    assert unit.standardised(numbers).std(axis=0) == pytest.approx([1, 1])
    model = tiny_model(model_type, num_labels=2, problem_type="regression")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = model(input_ids=ids).logits.numpy()
        unit.put_into(model)
        after = model(input_ids=ids).logits.numpy()
    np.testing.assert_allclose(after, before * numbers.std(axis=0) + numbers.mean(axis=0), rtol=1e-5)
