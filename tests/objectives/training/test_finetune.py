"""Fine-tuning: a tiny BERT learns a tiny grammar, and the result is an ordinary model directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from sklearn.metrics import matthews_corrcoef
from transformers import Trainer

from objectives.errors import InputError
from objectives.loading.models import load_classifier
from objectives.loading.sentences import load_sentences
from objectives.loading.tasks import DataOptions
from objectives.problem import load_problem
from objectives.training.finetune import FinetuneResult, finetune
from tests.objectives.tiny_bert import make_tiny_bert

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For sixteen hidden units a second thread is only waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("base") / "base", head=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Subject before verb is acceptable, verb before subject is not; of two lengths.

    The out-of-domain labels are all wrong, so that the best MCC is below 1 and depends on which labels were compared.
    """
    lines = []
    for animal, verb, more in product(("cat", "dog", "bird"), ("see", "like", "sleep", "run"), ("", " and not a bird")):
        lines.append(f"x\t1\t\tthe {animal} {verb}s{more} .\n")
        lines.append(f"x\t0\t*\t{verb}s the {animal}{more} .\n")
    raw = tmp_path_factory.mktemp("data") / "raw"
    raw.mkdir()
    (raw / "in_domain_train.tsv").write_text("".join(lines * 6))
    (raw / "in_domain_dev.tsv").write_text("".join(lines))
    flipped = [
        line.replace("\t0\t", "\t1\t") if "\t0\t" in line else line.replace("\t1\t", "\t0\t") for line in lines[:6]
    ]
    (raw / "out_of_domain_dev.tsv").write_text("".join(flipped))
    return raw.parent


def run(base: Path, data: Path, out: Path, epochs: float = 5, seed: int = 42) -> FinetuneResult:
    return finetune(str(base), str(data), out, epochs=epochs, learning_rate=5e-3, batch_size=16, seed=seed)


@pytest.fixture(scope="module")
def result(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    return run(base, data, tmp_path_factory.mktemp("out") / "deep" / "model")


def test_the_grammar_is_learnt(result: FinetuneResult) -> None:
    assert result.value > 0.6  # the best possible: 48 of 54 sentences right, half of each label, is 0.78
    assert result.elapsed_s > 0


def test_the_directory_is_an_ordinary_one_and_nothing_lies_around(result: FinetuneResult) -> None:
    names = {path.name for path in result.out.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert len({path.stat().st_mode for path in result.out.iterdir()}) == 1  # as the umask gives, the weights too
    assert list(result.out.parent.iterdir()) == [result.out]


def test_the_saved_model_scores_what_was_reported(result: FinetuneResult, data: Path) -> None:
    classifier = load_classifier(str(result.out))
    assert classifier.model.config.id2label == {0: "unacceptable", 1: "acceptable"}
    validation = load_sentences(str(data), "validation")
    with torch.inference_mode():
        predicted = [
            int(classifier.model(input_ids=torch.tensor([ids])).logits.argmax())
            for ids in classifier.tokenize(validation.texts)
        ]
    assert result.value == pytest.approx(matthews_corrcoef(validation.labels, predicted), abs=1e-12)


def test_the_seed_decides_everything(base: Path, data: Path, tmp_path: Path) -> None:
    first, again, other = (run(base, data, tmp_path / str(i), 0.2, seed).out for i, seed in enumerate((1, 1, 2)))
    weights = [(out / "model.safetensors").read_bytes() for out in (first, again, other)]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_pairs_of_a_csv_are_learnt_and_their_labels_keep_their_names(base: Path, tmp_path: Path) -> None:
    words = ("cat", "dog", "bird", "see", "like")
    rows = [f"the {a},a {b},{'same' if a == b else 'other'}\n" for a in words for b in words if a == b or a < b]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("one,two,label\n" + "".join(rows))
    options = DataOptions(text_column=("one", "two"))
    said: list[str] = []
    result = finetune(
        str(base), str(tmp_path), tmp_path / "out", epochs=0.2, options=options, report_progress=said.append
    )
    assert load_classifier(str(result.out)).label_names == ("other", "same")
    assert "note: the model's MCC is no better than chance, and a search refuses it" in said[-1]
    (tmp_path / "validation.csv").write_text("one,two,label\n" + "".join(row for row in rows if "other" in row))
    with pytest.raises(InputError, match="different labels are needed"):
        finetune(str(base), str(tmp_path), tmp_path / "again", options=options)


ANIMALS, VERBS = ("cat", "dog", "bird"), ("see", "like", "sleep", "run")


@pytest.mark.parametrize(
    ("header", "row", "description", "names", "metric"),
    [
        ("label", lambda a, b: ANIMALS[a], "3 classes", ("bird", "cat", "dog"), "mcc"),
        ("isdog,flies", lambda a, b: f"{int(a == 1)},{int(a == 2)}", "2 yes/no labels", ("isdog", "flies"), "f1"),
        ("weight", lambda a, b: f"{5000 + 300 * a + 40 * b}.5", "a number", ("weight",), "pearson"),
        ("cost,size", lambda a, b: f"{10 * a},{b - 0.5}", "2 numbers", ("cost", "size"), "pearson"),
    ],
)
def test_every_head_is_learnt_from_pairs_and_read_back(
    header: str, row: Callable[[int, int], str], description: str, names: Any, metric: str, base: Path, tmp_path: Path
) -> None:
    rows = [f"the {a} {v}s,a bird,{row(ANIMALS.index(a), VERBS.index(v))}\n" for a in ANIMALS for v in VERBS]
    (tmp_path / "train.csv").write_text(f"one,two,{header}\n" + "".join(rows * 4))
    (tmp_path / "validation.csv").write_text(f"one,two,{header}\n" + "".join(rows))
    options = DataOptions(text_column=("one", "two"), label_column=tuple(header.split(",")))
    out = tmp_path / "out"
    result = finetune(str(base), str(tmp_path), out, epochs=8, learning_rate=1e-2, batch_size=12, options=options)
    problem = load_problem(str(out), str(tmp_path), options=options)
    assert problem.head.description == result.head.description == description
    assert problem.classifier.label_names == names
    assert (problem.metric, result.metric) == (metric, metric)
    assert problem.fp32.metric == pytest.approx(result.value, abs=1e-4)  # padding rounds
    assert result.value > 0.6
    if metric == "f1":  # the columns say so where the config does not
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "problem_type": None}))
        assert load_problem(str(out), str(tmp_path), options=options).head == problem.head
    if description == "a number":  # in its own unit
        assert np.sqrt(np.mean((problem.fp32_log_odds - problem.labels) ** 2)) < 0.8 * problem.labels.std()


def test_what_is_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(InputError, match=f"out {tmp_path} already exists"):
        finetune("./no-base", "./no-data", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_all_numbers_out_of_range_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        finetune(
            "./no-base",
            "./no-data",
            tmp_path / "out",
            epochs=0,
            learning_rate=float("nan"),
            batch_size=0,
            seed=-1,
        )
    message = str(caught.value)
    for fault in ("epochs must be above 0, got 0", "learning rate must be above 0, got nan", "batch size", "seed"):
        assert fault in message


def test_missing_sources_are_refused_and_leave_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sentences \./absent: there is no such directory"):
        finetune(str(base), "./absent", tmp_path / "out")
    with pytest.raises(InputError, match=r"model \./absent: there is no such directory"):
        finetune("./absent", str(data), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_before_the_training(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "train", stop)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        finetune(str(base), str(data), tmp_path / "file" / "out")


def test_a_diverging_training_is_refused_and_leaves_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the training diverged at learning rate 1e\\+30"):
        finetune(str(base), str(data), tmp_path / "out", epochs=1, learning_rate=1e30)
    assert list(tmp_path.iterdir()) == []


def stop(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


def test_an_interrupted_training_leaves_nothing(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(str(base), str(data), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed_where_there_is_no_terminal(
    base: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(base, data, tmp_path / "out", epochs=0.1)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_on_standard_error_alone(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(base, data, tmp_path / "out", epochs=0.1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "100%" in printed.err
