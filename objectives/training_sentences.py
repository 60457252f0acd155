"""The training sentences of a problem that score no map: those to distil on, and the unseen ones that judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from objectives.errors import InputError
from objectives.loading.sentences import load_texts, training_order
from objectives.loading.tokenization import Text
from objectives.problem import Problem, source_of
from objectives.training.distillation import TrainingSentences


def distillation_sentences(
    problem: Problem, unseen: int, text: Path | None = None
) -> tuple[TrainingSentences, list[list[int]]]:
    """Return the sentences to distil on, each once, and the run's unseen sentences that are none of them.

    No sentence is trained on that scores maps. Only if the unseen sentences are more than half of all, the later ones
    of them are trained on: what is left must be enough.

    Args:
        problem: the problem.
        unseen: the most unseen sentences of its run.
        text: a file of further unlabelled texts, read as ``--calibration`` is, or None.

    Raises:
        InputError: there are fewer than two to train on, or the file cannot be read.
    """
    scored, texts = _scored_sentences(problem), _training_texts(problem)
    further = load_texts("", replace(problem.options, calibration=str(text))) if text is not None else ()
    encoded = problem.classifier.encode([*texts, *further]).ids
    available = dict.fromkeys(tokens for tokens in encoded if tokens not in scored)
    kept = _unseen_of(problem, texts, scored, min(unseen, len(available) // 2))
    judging = {tuple(tokens) for tokens in kept}
    token_ids = [list(tokens) for tokens in available if tokens not in judging]
    if len(token_ids) < 2:
        raise InputError(
            f"{problem.data}: distillation needs 2 training sentences that score no map, got {len(token_ids)}; add some"
        )
    return TrainingSentences(token_ids, problem.classifier.tokenizer.all_special_ids), kept


def unseen_sentences(problem: Problem, most: int) -> list[list[int]]:
    """Return the tokens of at most ``most`` training sentences that a search does not see.

    Sentences that are also searched with or in the holdout set are left out. Those that codes are calibrated on come
    last. Labels are not needed, because damage is measured against the FP32 model.

    Raises:
        InputError: there are no such sentences.
    """
    if not (unseen := _unseen_of(problem, _training_texts(problem), _scored_sentences(problem), most)):
        raise InputError(f"{problem.data}: has no training sentences that are not searched with; add some")
    return unseen


def _unseen_of(problem: Problem, texts: Sequence[Text], scored: set[tuple[int, ...]], most: int) -> list[list[int]]:
    unseen: dict[tuple[int, ...], None] = {}
    for index in reversed(training_order(len(texts))):
        if len(unseen) == most:
            break
        [tokens] = problem.classifier.encode([texts[index]]).ids
        if tokens not in scored:
            unseen[tokens] = None
    return [list(tokens) for tokens in unseen]


def _scored_sentences(problem: Problem) -> set[tuple[int, ...]]:
    """Return the tokens of the sentences that score maps, including the holdout set."""
    holdout = () if problem.holdout is None else problem.holdout.token_ids
    return {tuple(tokens) for tokens in (*problem.token_ids, *holdout)}


def _training_texts(problem: Problem) -> Sequence[Text]:
    return load_texts(source_of(problem.data), problem.options)
