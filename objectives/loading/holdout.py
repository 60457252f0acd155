"""Sentences that no search sees: named by one setting, divided off before the search, opened once at its end."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from objectives.errors import InputError
from objectives.loading import NONE
from objectives.loading.sentences import Sentences, load_sentences

_SHARE = re.compile(r"(?P<share>0?\.[0-9]{1,6})(?:@(?P<seed>[0-9]{1,9}))?")


class Share(NamedTuple):
    """A share of the sentences, between 0 and 1, drawn by a seed of its own."""

    share: float
    seed: int


def parse_share(confirm: str) -> Share | None:
    """Return the share that a setting names, as ``0.3`` or ``0.3@7`` with a seed; None where it names something else.

    Raises:
        InputError: the share is 0.
    """
    match = _SHARE.fullmatch(confirm)
    if match is None:
        return None
    if not float(match["share"]):
        raise InputError(f"confirm {confirm!r}: a share lies between 0 and 1; write none for no sentences")
    return Share(float(match["share"]), int(match["seed"] or 0))


def divide(sentences: Sentences, confirm: str) -> tuple[Sentences, Sentences | None]:
    """Return the sentences to search with, and those to confirm on, None where there are to be none.

    Args:
        sentences: all that there are.
        confirm: ``none``; a share of them as ``0.3`` or ``0.3@SEED``; or where other sentences are, as for
            ``load_sentences``.

    Raises:
        InputError: a share leaves one side without a label; or other sentences cannot be loaded, or are partly those
            that are searched with.
    """
    if confirm == NONE:
        return sentences, None
    if (share := parse_share(confirm)) is not None:
        held = _drawn(sentences, share)
        return _part(sentences, ~held, "to search with"), _part(sentences, held, "to confirm on")
    try:
        others = load_sentences(confirm, "validation")
    except InputError as error:
        raise InputError(
            f"--confirm {confirm}: is neither none, nor a share below 1 as 0.3 or 0.3@SEED, nor a directory of "
            f"sentences ({error})"
        ) from None
    if common := len(set(others.texts) & set(sentences.texts)):
        raise InputError(
            f"confirm {confirm}: {common} of its sentences are also searched with, and confirm nothing; name sentences "
            f"of their own, or hold back a share of the data with --confirm 0.3"
        )
    return sentences, others


def _drawn(sentences: Sentences, share: Share) -> npt.NDArray[np.bool_]:
    """Return which sentences are held back: the share of each label and domain, all copies of a sentence together."""
    inside = np.zeros(len(sentences), dtype=np.int64) if sentences.in_domain is None else sentences.in_domain
    strata = 2 * sentences.labels.astype(np.int64) + inside
    _, first, group = np.unique(np.array(sentences.texts), return_index=True, return_inverse=True)
    random = np.random.default_rng(share.seed)
    held = np.zeros(first.size, dtype=np.bool_)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata[first] == stratum)
        held[random.permutation(members)[: round(share.share * members.size)]] = True
    return held[group]


def _part(sentences: Sentences, kept: npt.NDArray[np.bool_], purpose: str) -> Sentences:
    return Sentences(
        tuple(text for text, keep in zip(sentences.texts, kept, strict=True) if keep),
        sentences.labels[kept],
        None if sentences.in_domain is None else sentences.in_domain[kept],
        f"{sentences.source}, {purpose}",
    )
