"""Acceptability sentences from a small grammar of English: the data of the miniature, in the manner of CoLA.

Every phenomenon makes minimal pairs, an acceptable sentence and a violation of exactly one rule:

    agreement             the boys near the girl sleep / *sleeps        (verbs, be, have; attractors in between)
    determiner_noun       john found these books / *book                (number, and mass against count)
    reflexive             mary thinks that john blamed himself / *herself    (gender, number, locality, each other)
    argument_structure    john slept, john took the key / *john slept the key, *john took
    dative                john gave mary the key / *john donated mary the key
    filler_gap            what did john take / *what did john take the key
    island                does john wonder whether mary took the key / *what does john wonder whether mary took
    polarity              no boy praised any girl / *any boy praised no girl     (ever, any)
    auxiliary_form        john had taken the key / *john had took the key
    word_order            the tall boy slept / *the boy tall slept
    pronoun_case          he praised her / *him praised her
    passive               the key was taken by john / *the key was taking by john
    relative_pronoun      the boy who mary found / *the boy which mary found
    comparative           john is taller than mary / *john is taller as mary
    preposition           john was fond of mary / *john was fond at mary
    complement            john hoped to sleep / *john hoped sleeping; that against whether
    time_adverb           yesterday john slept / *tomorrow john slept
    existential           there is a boy near the lamp / *there is the boy near a lamp
    conjunction           neither john nor mary slept / *either john nor mary slept
    do_support            does john sleep / *does john sleeps

Words alone do not tell. In each phenomenon the violations flip both ways and in the same proportions (as many singular
subjects with a plural verb as plural ones with a singular verb), or they put the same words in another order, so every
word is as frequent in good sentences as in bad ones. ``minimal_pair`` lets a test see it.

Out of domain are constructions that need the same rules, but that only three training pairs in a hundred show:
agreement and reflexives across a relative clause, reflexives after a longer subject, questions over three clauses,
agreement in the passive, stacked adjectives, two levels of embedding, two full clauses.

No dependency but the standard library; the same seed gives the same sentences.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.assets.miniature.out_of_domain import CONSTRUCTIONS
from tests.assets.miniature.phenomena import QUESTIONS, STATEMENTS
from tests.assets.miniature.words import (
    ADVERBS,
    SUBORDINATORS,
    THINK,
    THIRD,
    Pair,
    draw_clause,
    draw_one_person,
    join,
)

IN_DOMAIN = (*STATEMENTS, *QUESTIONS)
OUT_OF_DOMAIN = tuple(CONSTRUCTIONS)

# What is harder to learn gets more sentences than the one share of the others.
_SHARES = {"agreement": 4, "reflexive": 3, "determiner_noun": 2, "relative_pronoun": 2}
_RARE = 0.03  # of the training pairs are from out of domain
_ACCEPTABLE = 0.65  # of the sentences that are not trained on, as in CoLA


@dataclass(frozen=True)
class Sentence:
    """A sentence as CoLA has it: where it is from, 1 for acceptable or 0, and its words in lower case."""

    source: str
    label: int
    text: str


@dataclass(frozen=True)
class Sentences:
    """All splits; no text occurs in two of them, and every word occurs in ``train``.

    ``train`` holds minimal pairs: at 2k an acceptable sentence, at 2k + 1 its violation. The other splits are single
    sentences, about two thirds of them acceptable.
    """

    train: tuple[Sentence, ...]
    in_domain: tuple[Sentence, ...]
    out_of_domain: tuple[Sentence, ...]
    held_out_in_domain: tuple[Sentence, ...]
    held_out_out_of_domain: tuple[Sentence, ...]

    @property
    def validation(self) -> tuple[Sentence, ...]:
        """In domain and then out of domain, as GLUE joins CoLA's two."""
        return self.in_domain + self.out_of_domain

    @property
    def held_out(self) -> tuple[Sentence, ...]:
        """As ``validation``, of sentences that no decision of training has seen."""
        return self.held_out_in_domain + self.held_out_out_of_domain

    @property
    def words(self) -> tuple[str, ...]:
        """Every word of the training sentences, sorted."""
        return tuple(sorted({word for sentence in self.train for word in sentence.text.split()}))


def generate(seed: int = 0, *, train_pairs: int = 30_000, in_domain: int = 700, out_of_domain: int = 300) -> Sentences:
    """Draw all splits: so many training pairs, and as many held-out sentences as validation sentences.

    Args:
        seed: the same gives the same sentences.
        train_pairs: of two sentences each.
        in_domain: validation sentences in domain.
        out_of_domain: validation sentences out of domain.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    sources = [source for source in IN_DOMAIN for _ in range(_SHARES.get(source, 1))]
    inside = _draw_sentences(rng, sources, 2 * in_domain, seen)
    outside = _draw_sentences(rng, OUT_OF_DOMAIN, 2 * out_of_domain, seen)
    return Sentences(
        train=_draw_pairs(rng, sources, train_pairs, seen),
        in_domain=inside[:in_domain],
        out_of_domain=outside[:out_of_domain],
        held_out_in_domain=inside[in_domain:],
        held_out_out_of_domain=outside[out_of_domain:],
    )


def minimal_pair(source: str, rng: random.Random) -> Pair:
    """Draw an acceptable sentence and its violation from one phenomenon of ``IN_DOMAIN`` or ``OUT_OF_DOMAIN``."""
    if source in STATEMENTS:
        return _in_context(rng, STATEMENTS[source](rng))
    return (QUESTIONS | CONSTRUCTIONS)[source](rng)


def _in_context(rng: random.Random, pair: Pair) -> Pair:
    """Put both sentences into the same harmless surroundings, or none."""
    kind = rng.random()
    before = after = ""
    if kind < 0.15:
        before = rng.choice(ADVERBS)
    elif kind < 0.30:
        before = join(draw_one_person(rng), rng.choice(THINK)[THIRD], "that")
    elif kind < 0.38:
        before = join(draw_clause(rng), rng.choice(SUBORDINATORS))
    elif kind < 0.46:
        after = join(rng.choice(SUBORDINATORS), draw_clause(rng))
    return join(before, pair[0], after), join(before, pair[1], after)


def _draw_sentences(rng: random.Random, sources: Sequence[str], count: int, seen: set[str]) -> tuple[Sentence, ...]:
    """Draw single sentences that are not in ``seen``, which gets them, from all sources in turn; shuffled."""
    drawn: list[Sentence] = []
    while len(drawn) < count:
        source = sources[len(drawn) % len(sources)]
        label = int(rng.random() < _ACCEPTABLE)
        text = minimal_pair(source, rng)[1 - label]
        if text not in seen:
            seen.add(text)
            drawn.append(Sentence(source, label, text))
    rng.shuffle(drawn)
    return tuple(drawn)


def _draw_pairs(rng: random.Random, sources: Sequence[str], count: int, seen: set[str]) -> tuple[Sentence, ...]:
    """Draw pairs neither of which is in ``seen``, which gets both."""
    drawn: list[Sentence] = []
    while len(drawn) < 2 * count:
        source = rng.choice(OUT_OF_DOMAIN if rng.random() < _RARE else sources)
        good, bad = minimal_pair(source, rng)
        if good not in seen and bad not in seen:
            seen |= {good, bad}
            drawn += [Sentence(source, 1, good), Sentence(source, 0, bad)]
    return tuple(drawn)
