"""Which sentences score maps: the holdout set, which the search never sees, and a sample of many sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.heads import HeadKind
from objectives.loading import NONE
from objectives.loading.sentences import Sentences, load_sentences
from objectives.loading.tasks import DataOptions
from objectives.model_labels import order_by_names

_SHARE = re.compile(r"(?P<share>0?\.[0-9]{1,6})(?:@(?P<seed>[0-9]{1,9}))?")


@dataclass(frozen=True)
class ScoredSentences:
    """The labelled sentences that score maps.

    Attributes:
        sentences: those that the search sees.
        holdout: those that it never sees, or None.
        n_available: the number that ``sentences`` were drawn from.
        order: the model's output of each label of the data; None if only its scores can tell.
    """

    sentences: Sentences
    holdout: Sentences | None
    n_available: int
    order: list[int] | None


def load_scored(
    source: str, confirm: str, options: DataOptions, model_labels: Sequence[str], kind: HeadKind
) -> ScoredSentences:
    """Load the validation sentences of a data set, and draw those that score maps.

    A holdout set is drawn first; each side is then cut to ``options.max_eval_samples``.

    Args:
        source: as for ``load_sentences``.
        confirm: as for ``split_holdout``.
        options: what to read.
        model_labels: the name of each output of the model.
        kind: what its labels are.

    Raises:
        InputError: sentences cannot be loaded, or their labels are not the model's.
    """

    def load(place: str) -> Sentences:
        return load_sentences(place, "validation", options, kind, len(model_labels))

    available, holdout = split_holdout(load(source), confirm, load)
    if holdout is not None and holdout.names != available.names:
        raise InputError(
            f"--confirm {confirm}: its labels are {', '.join(holdout.names)}, those of {source} are "
            f"{', '.join(available.names)}; give both the same"
        )
    order = order_by_names(available.names, model_labels, available.numbered)
    if order is None and available.labels.ndim == 2:
        order = list(range(len(available.names)))  # columns have an order, and no scores tell another
    most = options.max_eval_samples
    return ScoredSentences(
        sample(available, most), None if holdout is None else sample(holdout, most), len(available), order
    )


def parse_share(confirm: str) -> tuple[float, int] | None:
    """Return the share and seed written as ``0.3`` or ``0.3@SEED``; None for any other text. The default seed is 0.

    Raises:
        InputError: the share is 0.
    """
    match = _SHARE.fullmatch(confirm)
    if match is None:
        return None
    if not float(match["share"]):
        raise InputError(f"--confirm {confirm}: a share lies between 0 and 1; write none for no holdout set")
    return float(match["share"]), int(match["seed"] or 0)


def _load_validation(source: str) -> Sentences:
    return load_sentences(source, "validation")


def split_holdout(
    sentences: Sentences, confirm: str, load: Callable[[str], Sentences] = _load_validation
) -> tuple[Sentences, Sentences | None]:
    """Return the sentences to search with, and the holdout set, None if there is none.

    Args:
        sentences: all sentences.
        confirm: ``none``; a share of the sentences as ``0.3`` or ``0.3@SEED``; or the source of other sentences.
        load: loads the validation sentences of a source.

    Raises:
        InputError: a share leaves one side without both labels.
        InputError: other sentences cannot be loaded, or some of them are also searched with.
    """
    if confirm == NONE:
        return sentences, None
    if (share := parse_share(confirm)) is not None:
        in_holdout = _draw(sentences, *share)
        return sentences.select(~in_holdout, "to search with"), sentences.select(in_holdout, "holdout")
    try:
        holdout = load(confirm)
    except InputError as error:
        raise InputError(
            f"--confirm {confirm}: give none, a share below 1 as 0.3 or 0.3@SEED, or a file or directory of sentences "
            f"({error})"
        ) from None
    if common := len(set(holdout.keys) & set(sentences.keys)):
        raise InputError(
            f"--confirm {confirm}: {common} of its sentences are also searched with; name other sentences, or keep a "
            "share of the data for the holdout set with --confirm 0.3"
        )
    return sentences, holdout


def sample(sentences: Sentences, most: int) -> Sentences:
    """Return at most ``most`` sentences, with the shares that labels and domains have in all; 0 for all sentences.

    The same are drawn each time. They keep their order.
    """
    if not most or len(sentences) <= most:
        return sentences
    columns = sentences.labels.reshape(len(sentences), -1).T
    inside = np.zeros(len(sentences)) if sentences.in_domain is None else sentences.in_domain
    shuffled = np.random.default_rng(0).permutation(len(sentences))
    # Sorted by label, and at random among equals: evenly spaced places hold each label by its share.
    order = np.lexsort((shuffled, inside, *columns[::-1]))
    chosen = np.zeros(len(sentences), dtype=np.bool_)
    chosen[order[np.arange(most) * len(sentences) // most]] = True
    return sentences.select(chosen, f"{most:,} drawn by label")


def _draw(sentences: Sentences, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Draw the share from each label and domain, copies of a sentence together; return a mask ``(n_sentences,)``."""
    inside = np.zeros(len(sentences), dtype=np.int64) if sentences.in_domain is None else sentences.in_domain
    labels = sentences.labels if sentences.names else np.zeros(len(sentences))  # numbers need not repeat
    strata = 2 * np.unique(labels, axis=0, return_inverse=True)[1] + inside
    _, first, group = np.unique(np.array(sentences.keys), return_index=True, return_inverse=True)
    random = np.random.default_rng(seed)
    drawn = np.zeros(first.size, dtype=np.bool_)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata[first] == stratum)
        drawn[random.permutation(members)[: round(share * members.size)]] = True
    return drawn[group]
