"""The holdout set: sentences that the search never sees, scored once at its end."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.loading import NONE
from objectives.loading.sentences import Sentences, load_sentences

_SHARE = re.compile(r"(?P<share>0?\.[0-9]{1,6})(?:@(?P<seed>[0-9]{1,9}))?")


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


def split_holdout(sentences: Sentences, confirm: str) -> tuple[Sentences, Sentences | None]:
    """Return the sentences to search with, and the holdout set, None if there is none.

    Args:
        sentences: all sentences.
        confirm: ``none``; a share of the sentences as ``0.3`` or ``0.3@SEED``; or the source of other sentences, as for
            ``load_sentences``.

    Raises:
        InputError: a share leaves one side without both labels.
        InputError: other sentences cannot be loaded, or some of them are also searched with.
    """
    if confirm == NONE:
        return sentences, None
    if (share := parse_share(confirm)) is not None:
        in_holdout = _draw(sentences, *share)
        return _select(sentences, ~in_holdout, "to search with"), _select(sentences, in_holdout, "holdout")
    try:
        holdout = load_sentences(confirm, "validation")
    except InputError as error:
        raise InputError(
            f"--confirm {confirm}: give none, a share below 1 as 0.3 or 0.3@SEED, or a directory of sentences ({error})"
        ) from None
    if common := len(set(holdout.texts) & set(sentences.texts)):
        raise InputError(
            f"--confirm {confirm}: {common} of its sentences are also searched with; name other sentences, or keep a "
            "share of the data for the holdout set with --confirm 0.3"
        )
    return sentences, holdout


def _draw(sentences: Sentences, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Draw the share from each label and domain, copies of a sentence together; return a mask ``(n_sentences,)``."""
    inside = np.zeros(len(sentences), dtype=np.int64) if sentences.in_domain is None else sentences.in_domain
    strata = 2 * sentences.labels.astype(np.int64) + inside
    _, first, group = np.unique(np.array(sentences.texts), return_index=True, return_inverse=True)
    random = np.random.default_rng(seed)
    drawn = np.zeros(first.size, dtype=np.bool_)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata[first] == stratum)
        drawn[random.permutation(members)[: round(share * members.size)]] = True
    return drawn[group]


def _select(sentences: Sentences, mask: npt.NDArray[np.bool_], purpose: str) -> Sentences:
    return Sentences(
        tuple(text for text, selected in zip(sentences.texts, mask, strict=True) if selected),
        sentences.labels[mask],
        None if sentences.in_domain is None else sentences.in_domain[mask],
        f"{sentences.source}, {purpose}",
    )
