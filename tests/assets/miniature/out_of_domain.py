"""The phenomena out of domain: constructions that need the rules of training, but that it hardly shows."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.assets.miniature.phenomena import (
    agreement,
    argument_structure,
    auxiliary_form,
    comparative,
    complement,
    conjunction,
    draw_antecedent,
    passive,
    preposition,
    pronoun_case,
    reflexive,
)
from tests.assets.miniature.words import (
    ADJECTIVES,
    BASE,
    PARTICIPLE,
    PAST,
    PERSONS,
    PLACE_PREPOSITIONS,
    STRICT_TRANSITIVE,
    SUBORDINATORS,
    THINGS,
    THINK,
    THIRD,
    TRANSITIVE,
    Pair,
    draw_finite,
    draw_one_person,
    draw_person,
    draw_phrase,
    draw_plural,
    draw_predicate,
    draw_thing,
    join,
    ordered,
)


def _relative_clause(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return join("who", draw_person(rng), rng.choice(TRANSITIVE)[PAST])
    return join("who", rng.choice(TRANSITIVE)[PAST], draw_person(rng))


def _agreement_over_relative(rng: random.Random) -> Pair:
    plural = draw_plural(rng)
    subject = join(draw_phrase(rng, PERSONS, plural), _relative_clause(rng))
    good, bad = ordered(*draw_finite(rng), swap=plural)
    return join(subject, good), join(subject, bad)


def _reflexive_over_relative(rng: random.Random) -> Pair:
    antecedent, right, wrong = draw_antecedent(rng)
    start = join(antecedent, _relative_clause(rng), rng.choice(TRANSITIVE)[PAST])
    return join(start, right), join(start, wrong)


def _reflexive_after_phrase(rng: random.Random) -> Pair:
    antecedent, right, wrong = draw_antecedent(rng)
    start = join(antecedent, "near", draw_person(rng), rng.choice(TRANSITIVE)[PAST])
    return join(start, right), join(start, wrong)


def _long_question(rng: random.Random) -> Pair:
    middle = join(draw_one_person(rng), rng.choice(THINK)[THIRD], "that", draw_person(rng))
    start = join(
        "does", draw_one_person(rng), rng.choice(THINK)[BASE], "that", middle, rng.choice(STRICT_TRANSITIVE)[PAST]
    )
    question, filled = join("what", start), join(start, draw_thing(rng))
    if rng.random() < 0.5:
        return question, join(question, draw_thing(rng)) if rng.random() < 0.5 else start
    return filled, start if rng.random() < 0.5 else join("what", filled)


def _passive_agreement(rng: random.Random) -> Pair:
    plural = draw_plural(rng)
    subject = draw_phrase(rng, THINGS, plural)
    if rng.random() < 0.5:
        subject = join(subject, rng.choice(PLACE_PREPOSITIONS), draw_thing(rng))
    tail = join(rng.choice(TRANSITIVE)[PARTICIPLE], "by", draw_person(rng))
    be = rng.choice((("is", "are"), ("was", "were")))
    return join(subject, be[plural], tail), join(subject, be[not plural], tail)


def _stacked_adjectives(rng: random.Random) -> Pair:
    plural = draw_plural(rng)
    first, second = rng.sample(ADJECTIVES, 2)
    determiner = rng.choice(("these", "those", "many", "two") if plural else ("this", "every", "each", "a"))
    start = join(determiner, first[0], second[0])
    noun, tail = rng.choice(PERSONS), draw_predicate(rng, PAST)
    return join(start, noun[plural], tail), join(start, noun[not plural], tail)


def _two_embeddings(rng: random.Random) -> Pair:
    outer = join(
        draw_one_person(rng), rng.choice(THINK)[THIRD], "that", draw_one_person(rng), rng.choice(THINK)[THIRD], "that"
    )
    good, bad = rng.choice((agreement, pronoun_case, argument_structure, conjunction, auxiliary_form))(rng)
    return join(outer, good), join(outer, bad)


def _two_clauses(rng: random.Random) -> Pair:
    makers = (agreement, reflexive, passive, preposition, complement, comparative)
    good, bad = rng.choice(makers)(rng)
    other, _ = rng.choice(makers)(rng)
    link = rng.choice(SUBORDINATORS)
    if rng.random() < 0.5:
        return join(good, link, other), join(bad, link, other)
    return join(other, link, good), join(other, link, bad)


CONSTRUCTIONS: dict[str, Callable[[random.Random], Pair]] = {
    "agreement_over_relative": _agreement_over_relative,
    "reflexive_over_relative": _reflexive_over_relative,
    "reflexive_after_phrase": _reflexive_after_phrase,
    "long_question": _long_question,
    "passive_agreement": _passive_agreement,
    "stacked_adjectives": _stacked_adjectives,
    "two_embeddings": _two_embeddings,
    "two_clauses": _two_clauses,
}
