"""The holdout set: how a share is drawn, and that none of it is searched with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from objectives.errors import InputError
from objectives.loading.holdout import load_scored, parse_share, split_holdout
from objectives.loading.sentences import Sentences, load_sentences
from objectives.loading.tasks import DataOptions


def made_up(count: int = 400, seed: int = 0) -> Sentences:
    random = np.random.default_rng(seed)
    texts = [f"sentence {number}" for number in range(count)]
    texts[-20:] = texts[:20]  # copies, some of them with another label or domain
    labels = (random.random(count) < 0.7).astype(np.int8)
    return Sentences(tuple(texts), labels, random.random(count) < 0.5, "made up")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.3", (0.3, 0)), (".25", (0.25, 0)), ("0.3@7", (0.3, 7)), ("some/where", None), ("3", None)],
)
def test_a_share_is_written_as_a_number_and_a_seed(text: str, expected: tuple[float, int] | None) -> None:
    assert parse_share(text) == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_a_share_is_stratified_and_copies_stay_together(seed: int) -> None:
    sentences = made_up()
    searched, holdout = split_holdout(sentences, f"0.3@{seed}")
    assert holdout is not None
    assert len(searched) + len(holdout) == len(sentences)
    assert not set(searched.texts) & set(holdout.texts)
    assert searched.in_domain is not None and holdout.in_domain is not None and sentences.in_domain is not None
    for label in (0, 1):
        for inside in (False, True):
            of_all = np.count_nonzero((sentences.labels == label) & (sentences.in_domain == inside))
            of_holdout = np.count_nonzero((holdout.labels == label) & (holdout.in_domain == inside))
            assert of_holdout == pytest.approx(0.3 * of_all, abs=5)  # copies weigh double, on whatever side
    again, _ = split_holdout(sentences, f"0.3@{seed}")
    assert again.texts == searched.texts
    other, _ = split_holdout(sentences, f"0.3@{seed + 1}")
    assert other.texts != searched.texts
    order = [sentences.texts.index(text) for text in searched.texts[:50]]
    assert order == sorted(order)


def test_other_sentences_must_be_others(tmp_path: Path) -> None:
    def write(name: str, words: str) -> str:
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True)
        for file in ("in_domain_dev.tsv", "out_of_domain_dev.tsv"):
            rows = [f"x\t{label}\t\t{words} {file} {label}\n" for label in (0, 1)]
            (raw / file).write_text("".join(rows), encoding="utf-8")
        return str(tmp_path / name)

    sentences = load_sentences(write("searched", "a"), "validation")
    searched, holdout = split_holdout(sentences, write("others", "b"))
    assert searched is sentences
    assert holdout is not None and len(holdout) == 4
    with pytest.raises(InputError, match="4 of its sentences are also searched with"):
        split_holdout(sentences, write("same", "a"))
    with pytest.raises(InputError, match="nowhere"):
        split_holdout(sentences, str(tmp_path / "nowhere"))


def test_shares_that_leave_nothing_are_refused() -> None:
    assert split_holdout(made_up(), "none")[1] is None
    with pytest.raises(InputError, match="a share lies between 0 and 1"):
        split_holdout(made_up(), "0.0")
    with pytest.raises(InputError, match="holdout: at least one of each label"):
        split_holdout(made_up(), "0.000001")
    with pytest.raises(InputError, match="to search with: at least one of each label"):
        split_holdout(made_up(), "0.999999")


@pytest.mark.parametrize(
    ("model_names", "order"),
    [(("warm", "hot", "mild"), [2, 1, 0]), (("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2])],
)
def test_columns_of_yes_no_labels_have_names_and_an_order(
    model_names: tuple[str, ...], order: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "validation.csv"
    path.write_text("sentence,mild,hot,warm\na,0,1,1\nb,1,0,0\n")
    options = DataOptions(label_column=("mild", "hot", "warm"))
    scored = load_scored(str(path), "none", options, model_names, "labels")
    assert (scored.order, scored.sentences.names) == (order, ("mild", "hot", "warm"))
