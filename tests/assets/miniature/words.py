"""The miniature's words, and the phrases that its sentences are built of."""

from __future__ import annotations

import random

Pair = tuple[str, str]
"""An acceptable sentence and an unacceptable one."""

# Nouns and verbs are tuples of forms; a noun's number is a bool that picks its form, True for plural.

MALE_NAMES = ["john", "bill", "tom", "david"]
FEMALE_NAMES = ["mary", "sue", "jane", "anna"]
NAMES = MALE_NAMES + FEMALE_NAMES


def rows_of(*rows: str) -> list[tuple[str, ...]]:
    return [tuple(row.split()) for row in rows]


MALE_NOUNS = rows_of("boy boys", "man men", "king kings")
FEMALE_NOUNS = rows_of("girl girls", "woman women", "queen queens")
NEUTRAL_NOUNS = rows_of("student students", "teacher teachers", "doctor doctors")
PERSONS = MALE_NOUNS + FEMALE_NOUNS + NEUTRAL_NOUNS
THINGS = rows_of("book books", "key keys", "cup cups", "lamp lamps", "picture pictures", "letter letters")
MASS_NOUNS = ["water", "furniture", "money", "rice", "milk"]
PLACES = ["garden", "kitchen", "office", "park", "river"]
PLACE_PREPOSITIONS = ["in", "near", "behind"]

# base, third person, past, past participle, -ing
BASE, THIRD, PAST, PARTICIPLE, ING = range(5)
INTRANSITIVE = rows_of(
    "sleep sleeps slept slept sleeping",
    "smile smiles smiled smiled smiling",
    "arrive arrives arrived arrived arriving",
    "vanish vanishes vanished vanished vanishing",
    "fall falls fell fallen falling",
)
STRICT_TRANSITIVE = rows_of(  # never without an object
    "praise praises praised praised praising",
    "blame blames blamed blamed blaming",
    "find finds found found finding",
    "take takes took taken taking",
)
TRANSITIVE = [
    *STRICT_TRANSITIVE,
    *rows_of("see sees saw seen seeing", "draw draws drew drawn drawing"),
]
STRONG_TRANSITIVE = [verb for verb in TRANSITIVE if verb[PAST] != verb[PARTICIPLE]]

THINK = rows_of("think thinks thought", "say says said", "believe believes believed", "claim claims claimed")
WONDER = rows_of("wonder wonders wondered", "ask asks asked")
TO_VERBS = ["wanted", "hoped", "refused", "decided"]  # hoped to sleep
ING_VERBS = ["enjoyed", "avoided", "finished", "kept"]  # enjoyed sleeping
DATIVE_BOTH = ["gave", "sent", "showed", "sold"]
DATIVE_TO_ONLY = ["donated", "explained", "mentioned"]
DATIVE_DOUBLE_ONLY = ["spared", "forgave", "envied"]

ADJECTIVES = rows_of("tall taller", "short shorter", "young younger", "clever cleverer", "small smaller")
WITH_PREPOSITION = {  # what must follow which preposition
    "of": ["was fond", "was proud", "was capable"],
    "to": ["was loyal", "was similar", "objected"],
    "at": ["was angry", "was surprised", "laughed"],
    "on": ["relied", "depended", "insisted"],
    "for": ["was responsible", "was suitable", "yearned"],
}
ADVERBS = ["perhaps", "clearly", "indeed"]  # fit any clause
SUBORDINATORS = ["because", "although", "while", "and", "but"]

HE = {"he": "him", "she": "her", "they": "them"}


def join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def draw_plural(rng: random.Random) -> bool:
    return rng.random() < 0.5


def draw_phrase(rng: random.Random, nouns: list[tuple[str, ...]], plural: bool) -> str:
    """Return a noun phrase whose determiner does not show its number."""
    adjective = rng.choice(ADJECTIVES)[0] if rng.random() < 0.15 else ""
    determiner = "some" if rng.random() < 0.15 else "the"
    return join(determiner, adjective, rng.choice(nouns)[plural])


def draw_person(rng: random.Random) -> str:
    """Return a name or a noun phrase for one or several persons, which agree with a past tense."""
    return rng.choice(NAMES) if rng.random() < 0.5 else draw_phrase(rng, PERSONS, draw_plural(rng))


def draw_one_person(rng: random.Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.5 else draw_phrase(rng, PERSONS, False)


def draw_thing(rng: random.Random) -> str:
    return draw_phrase(rng, THINGS, draw_plural(rng))


def draw_object(rng: random.Random) -> str:
    return draw_thing(rng) if rng.random() < 0.6 else draw_person(rng)


def draw_place(rng: random.Random) -> str:
    return join(rng.choice(PLACE_PREPOSITIONS), "the", rng.choice(PLACES))


def draw_predicate(rng: random.Random, form: int) -> str:
    """Return a verb in one of its forms, with an object where it needs one."""
    if rng.random() < 0.5:
        return rng.choice(INTRANSITIVE)[form]
    return join(rng.choice(TRANSITIVE)[form], draw_object(rng))


def draw_clause(rng: random.Random) -> str:
    """Return a short acceptable clause in the past tense."""
    return join(draw_person(rng), draw_predicate(rng, PAST))


def draw_finite(rng: random.Random) -> tuple[str, str]:
    """Return one predicate twice: as a singular and as a plural subject needs it."""
    kind = rng.randrange(5)
    if kind <= 1:
        verb, rest = (rng.choice(INTRANSITIVE), "") if kind else (rng.choice(TRANSITIVE), draw_object(rng))
        return join(verb[THIRD], rest), join(verb[BASE], rest)
    if kind == 2:
        rest = draw_predicate(rng, ING)
        return ("is " + rest, "are " + rest) if rng.random() < 0.5 else ("was " + rest, "were " + rest)
    if kind == 3:
        rest = draw_predicate(rng, PARTICIPLE)
        return "has " + rest, "have " + rest
    rest = rng.choice(ADJECTIVES)[0]
    return ("is " + rest, "are " + rest) if rng.random() < 0.5 else ("was " + rest, "were " + rest)


def ordered(first: str, second: str, swap: bool) -> Pair:
    return (second, first) if swap else (first, second)
