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
    auxiliary_form        john has taken the key / *john has took the key
    word_order            the tall boy slept / *the boy tall slept
    pronoun_case          he praised her / *him praised her
    passive               the key was taken by john / *the key was taking by john
    relative_pronoun      the boy who mary found / *the boy which mary found
    comparative           john is taller than mary / *john is taller as mary
    preposition           john is fond of mary / *john is fond at mary
    complement            john hoped to sleep / *john hoped sleeping; that against whether
    time_adverb           yesterday john slept / *tomorrow john slept
    existential           there is a boy near the lamp / *there is the boy near a lamp
    conjunction           neither john nor mary slept / *either john nor mary slept
    do_support            does john sleep / *does john sleeps

Words alone do not tell. In each phenomenon the violations flip both ways and in the same proportions (as many singular
subjects with a plural verb as plural ones with a singular verb), or they put the same words in another order, so every
word is as frequent in good sentences as in bad ones. ``minimal_pairs`` lets a test see it.

Out of domain are constructions that need the same rules but that training never shows: agreement and reflexives across a
relative clause, questions over two clauses, two levels of embedding, reflexives inside a possessor, two full clauses,
stacked adjectives, agreement in the passive.

No dependency but the standard library; the same seed gives the same sentences.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# --------------------------------------------------------------------------------------------------------------------
# Words. Nouns and verbs are (form, form, ...) tuples; number is a bool, True for plural.

_MALE_NAMES = ["john", "bill", "tom", "david"]
_FEMALE_NAMES = ["mary", "sue", "jane", "anna"]
_NAMES = _MALE_NAMES + _FEMALE_NAMES


def _rows(*rows: str) -> list[tuple[str, ...]]:
    return [tuple(row.split()) for row in rows]


_MALE_NOUNS = _rows("boy boys", "man men", "king kings")
_FEMALE_NOUNS = _rows("girl girls", "woman women", "queen queens")
_NEUTRAL_NOUNS = _rows("student students", "teacher teachers", "doctor doctors")
_PERSONS = _MALE_NOUNS + _FEMALE_NOUNS + _NEUTRAL_NOUNS
_THINGS = _rows("book books", "key keys", "cup cups", "lamp lamps", "picture pictures", "letter letters")
_MASS_NOUNS = ["water", "furniture", "money", "rice", "milk"]
_PLACES = ["garden", "kitchen", "office", "park", "river"]
_PLACE_PREPOSITIONS = ["in", "near", "behind"]

# base, third person, past, past participle, -ing
_BASE, _THIRD, _PAST, _PARTICIPLE, _ING = range(5)
_INTRANSITIVE = _rows(
    "sleep sleeps slept slept sleeping",
    "smile smiles smiled smiled smiling",
    "arrive arrives arrived arrived arriving",
    "vanish vanishes vanished vanished vanishing",
    "fall falls fell fallen falling",
)
_STRICT_TRANSITIVE = _rows(  # never without an object
    "praise praises praised praised praising",
    "blame blames blamed blamed blaming",
    "find finds found found finding",
    "take takes took taken taking",
)
_TRANSITIVE = [
    *_STRICT_TRANSITIVE,
    *_rows("see sees saw seen seeing", "draw draws drew drawn drawing"),
]
_STRONG_TRANSITIVE = [verb for verb in _TRANSITIVE if verb[_PAST] != verb[_PARTICIPLE]]

_THINK = _rows("think thinks thought", "say says said", "believe believes believed", "claim claims claimed")
_WONDER = _rows("wonder wonders wondered", "ask asks asked")
_TO_VERBS = ["wanted", "hoped", "refused", "decided"]  # hoped to sleep
_ING_VERBS = ["enjoyed", "avoided", "finished", "kept"]  # enjoyed sleeping
_DATIVE_BOTH = ["gave", "sent", "showed", "sold"]
_DATIVE_TO_ONLY = ["donated", "explained", "mentioned"]
_DATIVE_DOUBLE_ONLY = ["spared", "forgave", "envied"]

_ADJECTIVES = _rows("tall taller", "short shorter", "young younger", "clever cleverer", "small smaller")
_WITH_PREPOSITION = {  # what must follow which preposition
    "of": ["was fond", "was proud", "was capable"],
    "to": ["was loyal", "was similar", "objected"],
    "at": ["was angry", "was surprised", "laughed"],
    "on": ["relied", "depended", "insisted"],
    "for": ["was responsible", "was suitable", "yearned"],
}
_ADVERBS = ["perhaps", "clearly", "indeed"]  # fit any clause
_SUBORDINATORS = ["because", "although", "while", "and", "but"]

_HE = {"he": "him", "she": "her", "they": "them"}

_Pair = tuple[str, str]  # acceptable, unacceptable


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


# --------------------------------------------------------------------------------------------------------------------
# Phrases.


def _plural(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _phrase(rng: random.Random, nouns: list[tuple[str, ...]], plural: bool) -> str:
    """Return a noun phrase whose determiner does not show its number."""
    adjective = rng.choice(_ADJECTIVES)[0] if rng.random() < 0.15 else ""
    determiner = "some" if rng.random() < 0.15 else "the"
    return _join(determiner, adjective, rng.choice(nouns)[plural])


def _person(rng: random.Random) -> str:
    """Return a name or a noun phrase for one or several persons, which agree with a past tense."""
    return rng.choice(_NAMES) if rng.random() < 0.5 else _phrase(rng, _PERSONS, _plural(rng))


def _one_person(rng: random.Random) -> str:
    return rng.choice(_NAMES) if rng.random() < 0.5 else _phrase(rng, _PERSONS, False)


def _thing(rng: random.Random) -> str:
    return _phrase(rng, _THINGS, _plural(rng))


def _object(rng: random.Random) -> str:
    return _thing(rng) if rng.random() < 0.6 else _person(rng)


def _place(rng: random.Random) -> str:
    return _join(rng.choice(_PLACE_PREPOSITIONS), "the", rng.choice(_PLACES))


def _predicate(rng: random.Random, form: int) -> str:
    """Return a verb in one of its forms, with an object where it needs one."""
    if rng.random() < 0.5:
        return rng.choice(_INTRANSITIVE)[form]
    return _join(rng.choice(_TRANSITIVE)[form], _object(rng))


def _clause(rng: random.Random) -> str:
    """Return a short acceptable clause in the past tense."""
    return _join(_person(rng), _predicate(rng, _PAST))


def _finite(rng: random.Random) -> tuple[str, str]:
    """Return one predicate twice: as a singular and as a plural subject needs it."""
    kind = rng.randrange(5)
    if kind <= 1:
        verb, rest = (rng.choice(_INTRANSITIVE), "") if kind else (rng.choice(_TRANSITIVE), _object(rng))
        return _join(verb[_THIRD], rest), _join(verb[_BASE], rest)
    if kind == 2:
        rest = _predicate(rng, _ING)
        return ("is " + rest, "are " + rest) if rng.random() < 0.5 else ("was " + rest, "were " + rest)
    if kind == 3:
        rest = _predicate(rng, _PARTICIPLE)
        return "has " + rest, "have " + rest
    rest = rng.choice(_ADJECTIVES)[0]
    return ("is " + rest, "are " + rest) if rng.random() < 0.5 else ("was " + rest, "were " + rest)


def _ordered(first: str, second: str, swap: bool) -> _Pair:
    return (second, first) if swap else (first, second)


# --------------------------------------------------------------------------------------------------------------------
# Phenomena in domain. Each returns (acceptable, unacceptable); see the module's docstring.


def _agreement(rng: random.Random) -> _Pair:
    plural = _plural(rng)
    nouns = _PERSONS if rng.random() < 0.7 else _THINGS
    attractor = ""
    if rng.random() < 0.5:
        attractor = _join(rng.choice(_PLACE_PREPOSITIONS), _phrase(rng, _PERSONS + _THINGS, _plural(rng)))
    subject = _join(_phrase(rng, nouns, plural), attractor)
    good, bad = _ordered(*_finite(rng), swap=plural)
    return _join(subject, good), _join(subject, bad)


def _determiner_noun(rng: random.Random) -> _Pair:
    plural = _plural(rng)
    adjective = rng.choice(_ADJECTIVES)[0] if rng.random() < 0.3 else ""
    if rng.random() < 0.3:
        # Mass against count: much water, many books.
        determiner = rng.choice(("many", "several") if plural else ("much", "little"))
        good, bad = _ordered(rng.choice(_MASS_NOUNS), rng.choice(_THINGS)[1], swap=plural)
        frame = (_join(_person(rng), rng.choice(_TRANSITIVE)[_PAST], determiner), "")
    else:
        determiner = rng.choice(
            ("these", "those", "many", "two", "all") if plural else ("this", "that", "every", "each", "a")
        )
        as_subject = rng.random() < 0.5
        good, bad = _ordered(*rng.choice(_PERSONS if as_subject else _THINGS + _PERSONS), swap=plural)
        if adjective:
            good, bad = _join(adjective, good), _join(adjective, bad)
        frame = (_join(_person(rng), rng.choice(_TRANSITIVE)[_PAST], determiner), "")
        if as_subject:
            frame = (determiner, _predicate(rng, _PAST))
    return _join(frame[0], good, frame[1]), _join(frame[0], bad, frame[1])


def _antecedent(rng: random.Random) -> tuple[str, str, str]:
    """Return a person (a man, a woman or several), with the right reflexive and a wrong one.

    The draws are such that right and wrong reflexives have the same frequencies: 1/3 himself, 1/3 herself, 1/6
    themselves, 1/6 each other.
    """
    which = rng.randrange(3)
    plural_form = rng.choice(("themselves", "each other"))
    if which == 2:
        return _phrase(rng, _PERSONS, True), plural_form, rng.choice(("himself", "herself"))
    names, nouns = ((_MALE_NAMES, _MALE_NOUNS), (_FEMALE_NAMES, _FEMALE_NOUNS))[which]
    person = rng.choice(names) if rng.random() < 0.6 else _phrase(rng, nouns, False)
    right, other = ("himself", "herself") if which == 0 else ("herself", "himself")
    return person, right, other if rng.random() < 0.5 else plural_form


def _reflexive(rng: random.Random) -> _Pair:
    antecedent, right, wrong = _antecedent(rng)
    start = _join(antecedent, rng.choice(_TRANSITIVE)[_PAST])
    if rng.random() < 0.4:
        start = _join(_one_person(rng), rng.choice(_THINK)[_THIRD], "that", start)
    elif rng.random() < 0.2:
        start = _join(antecedent, "relied on")
    return _join(start, right), _join(start, wrong)


def _argument_structure(rng: random.Random) -> _Pair:
    subject, form = _person(rng), _PAST
    if rng.random() < 0.4:
        subject, form = _join(subject, rng.choice(("will", "can", "must"))), _BASE
    transitive = rng.random() < 0.5
    verb = rng.choice(_STRICT_TRANSITIVE if transitive else _INTRANSITIVE)[form]
    tail = _place(rng) if rng.random() < 0.2 else ""
    good, bad = _ordered(_join(subject, verb, tail), _join(subject, verb, _object(rng), tail), swap=transitive)
    return good, bad


def _dative(rng: random.Random) -> _Pair:
    giver, receiver, thing = _person(rng), _person(rng), _thing(rng)
    kind = rng.randrange(4)
    if kind == 0:
        start = _join(giver, rng.choice(_DATIVE_BOTH))
        return _join(start, receiver, thing), _join(start, thing, receiver)
    if kind == 1:
        start = _join(giver, rng.choice(_DATIVE_BOTH))
        return _join(start, thing, "to", receiver), _join(start, "to", receiver, thing)
    start = _join(giver, rng.choice(_DATIVE_TO_ONLY if kind == 2 else _DATIVE_DOUBLE_ONLY))
    return _ordered(_join(start, thing, "to", receiver), _join(start, receiver, thing), swap=kind == 3)


def _filler_gap(rng: random.Random) -> _Pair:
    start = _join(_person(rng), rng.choice(_STRICT_TRANSITIVE)[_BASE])
    filled = _join(start, _object(rng))
    asked, plain = _join(rng.choice(("what", "who")), "did"), "did"
    if rng.random() < 0.4:
        # The same inside a statement: mary knew what john took, mary knew that john took the key.
        start = _join(_person(rng), rng.choice(_STRICT_TRANSITIVE)[_PAST])
        filled = _join(start, _object(rng))
        knower = _join(_person(rng), rng.choice(("knew", "forgot")))
        asked, plain = _join(knower, rng.choice(("what", "who"))), _join(knower, "that")
    if rng.random() < 0.5:
        return _join(asked, start), _join(asked, filled) if rng.random() < 0.5 else _join(plain, start)
    return _join(plain, filled), _join(plain, start) if rng.random() < 0.5 else _join(asked, filled)


def _bridge(rng: random.Random, island: bool) -> str:
    """Return what stands between the two clauses of a question: an island, or a path that a question may cross."""
    if not island:
        return _join(rng.choice(_THINK)[_BASE], "that")
    kind = rng.randrange(3)
    if kind == 0:
        return _join(rng.choice(_WONDER)[_BASE], "whether")
    if kind == 1:
        return _join("believe the", rng.choice(("claim", "rumor")), "that")
    return _join(rng.choice(_INTRANSITIVE)[_BASE], rng.choice(("because", "before", "after")))


def _island(rng: random.Random) -> _Pair:
    # Three kinds in equal shares: with them, question words and objects are as frequent in good as in bad sentences.
    kind = rng.randrange(3)
    start = _join(
        "does", _one_person(rng), _bridge(rng, island=kind == 0), _person(rng), rng.choice(_STRICT_TRANSITIVE)[_PAST]
    )
    question, filled = _join(rng.choice(("what", "who")), start), _join(start, _object(rng))
    if kind == 0:
        return filled, question
    return question, start if kind == 1 else _join(question, _object(rng))


def _polarity(rng: random.Random) -> _Pair:
    kind = rng.randrange(3)
    plural = _plural(rng)
    first, second = rng.choice(_PERSONS)[plural], rng.choice(_PERSONS + _THINGS)[_plural(rng)]
    verb = rng.choice(_TRANSITIVE)
    if kind == 0:
        middle = verb[_PAST]
        return _join("no", first, middle, "any", second), _join("any", first, middle, "no", second)
    have = "have" if plural else "has"
    if kind == 1:
        middle = _join(have, "ever", verb[_PARTICIPLE])
        return _join("no", first, middle, "the", second), _join("the", first, middle, "no", second)
    middle = _join(have, rng.choice(("ever", "never")), verb[_PARTICIPLE])
    if "never" in middle:
        return _join("the", first, middle, "any", second), _join("any", first, middle, "the", second)
    place = rng.choice(_PLACE_PREPOSITIONS)
    tail = _join(have, "ever", _predicate(rng, _PARTICIPLE))
    return _join("no", first, place, "the", second, tail), _join("the", first, place, "no", second, tail)


def _auxiliary_form(rng: random.Random) -> _Pair:
    subject = _person(rng)
    if rng.random() < 0.3:
        # Past against participle: john took, john had taken.
        verb, rest = rng.choice(_STRONG_TRANSITIVE), _object(rng)
        had = rng.random() < 0.5
        good, bad = _ordered(verb[_PAST], verb[_PARTICIPLE], swap=had)
        start = _join(subject, "had" if had else "")
        return _join(start, good, rest), _join(start, bad, rest)
    forms = {_PARTICIPLE: ("had",), _ING: ("kept",), _BASE: ("will", "can", "must", "did not")}
    right = rng.choice(list(forms))
    wrong = rng.choice([form for form in forms if form != right])
    verb, rest = (rng.choice(_INTRANSITIVE), "") if rng.random() < 0.5 else (rng.choice(_TRANSITIVE), _object(rng))
    start = _join(subject, rng.choice(forms[right]))
    return _join(start, verb[right], rest), _join(start, verb[wrong], rest)


def _word_order(rng: random.Random) -> _Pair:
    kind = rng.randrange(4)
    noun = rng.choice(_PERSONS)[_plural(rng)]
    if kind == 0:
        adjective, tail = rng.choice(_ADJECTIVES)[0], _predicate(rng, _PAST)
        return _join("the", adjective, noun, tail), _join("the", noun, adjective, tail)
    if kind == 1:
        start, place = _clause(rng), rng.choice(_PLACES)
        preposition = rng.choice(_PLACE_PREPOSITIONS)
        return _join(start, preposition, "the", place), _join(start, "the", place, preposition)
    if kind == 2:
        tail = _join(rng.choice(_PERSONS)[1], _predicate(rng, _PAST))
        return _join("all the", tail), _join("the all", tail)
    subject, tail = _person(rng), _predicate(rng, _BASE)
    auxiliary = rng.choice(("will", "can", "must", "did"))
    return _join(subject, auxiliary, "not", tail), _join(subject, "not", auxiliary, tail)


def _pronoun_case(rng: random.Random) -> _Pair:
    subject_form, object_form = rng.choice(list(_HE.items()))
    verb = rng.choice(_TRANSITIVE)[_PAST]
    if rng.random() < 0.5:
        tail = _join(verb, _object(rng)) if rng.random() < 0.6 else rng.choice(_INTRANSITIVE)[_PAST]
        return _join(subject_form, tail), _join(object_form, tail)
    start = _join(_person(rng), verb)
    return _join(start, object_form), _join(start, subject_form)


def _passive(rng: random.Random) -> _Pair:
    agent, patient = _one_person(rng), _phrase(rng, _THINGS + _PERSONS, False)
    verb = rng.choice(_TRANSITIVE)
    be = rng.choice(("is", "was"))
    if rng.random() < 0.5:
        return _join(patient, be, verb[_PARTICIPLE], "by", agent), _join(patient, be, verb[_ING], "by", agent)
    return _join(agent, be, verb[_ING], patient), _join(agent, be, verb[_PARTICIPLE], patient)


def _relative_pronoun(rng: random.Random) -> _Pair:
    person = rng.random() < 0.5
    plural = _plural(rng)
    start = _phrase(rng, _PERSONS if person else _THINGS, plural)
    tail = _join(_one_person(rng), rng.choice(_TRANSITIVE)[_PAST])
    if rng.random() < 0.5:
        start = _join(_person(rng), rng.choice(_TRANSITIVE)[_PAST], start)
    else:
        tail = _join(tail, rng.choice(("fell", "vanished", "arrived")))
    good, bad = ("who", "which") if person else ("which", "who")
    return _join(start, good, tail), _join(start, bad, tail)


def _comparative(rng: random.Random) -> _Pair:
    base, more = rng.choice(_ADJECTIVES)
    start, other = _join(_one_person(rng), rng.choice(("is", "was"))), _one_person(rng)
    than, as_as = _join(start, more, "than", other), _join(start, "as", base, "as", other)
    kind = rng.randrange(4)
    if kind == 0:
        return than, _join(start, base, "than", other)
    if kind == 1:
        return as_as, _join(start, "as", more, "as", other)
    if kind == 2:
        return than, _join(start, more, "as", other)
    return as_as, _join(start, "as", base, "than", other)


def _preposition(rng: random.Random) -> _Pair:
    right = rng.choice(list(_WITH_PREPOSITION))
    wrong = rng.choice([preposition for preposition in _WITH_PREPOSITION if preposition != right])
    start, tail = _join(_one_person(rng), rng.choice(_WITH_PREPOSITION[right])), _object(rng)
    return _join(start, right, tail), _join(start, wrong, tail)


def _complement(rng: random.Random) -> _Pair:
    subject, swap = _person(rng), rng.random() < 0.5
    if rng.random() < 0.6:
        start = _join(subject, rng.choice(_ING_VERBS if swap else _TO_VERBS))
        verb, rest = (rng.choice(_INTRANSITIVE), "") if rng.random() < 0.5 else (rng.choice(_TRANSITIVE), _object(rng))
        good, bad = _ordered(_join("to", verb[_BASE], rest), _join(verb[_ING], rest), swap)
    else:
        start, clause = _join(subject, rng.choice(_WONDER if swap else _THINK)[2]), _clause(rng)
        good, bad = _ordered(_join("that", clause), _join("whether", clause), swap)
    return _join(start, good), _join(start, bad)


def _time_adverb(rng: random.Random) -> _Pair:
    past = rng.random() < 0.5
    clause = _clause(rng) if past else _join(_person(rng), "will", _predicate(rng, _BASE))
    good, bad = _ordered("tomorrow", "yesterday", swap=past)
    if rng.random() < 0.5:
        return _join(good, clause), _join(bad, clause)
    return _join(clause, good), _join(clause, bad)


def _existential(rng: random.Random) -> _Pair:
    plural = _plural(rng)
    noun, other = rng.choice(_PERSONS + _THINGS)[plural], rng.choice(_THINGS)[plural]
    verbs = ("is", "are") if rng.random() < 0.5 else ("was", "were")
    preposition = rng.choice(_PLACE_PREPOSITIONS)
    weak = rng.choice(("some", "two", "many") if plural else ("some", "a", "no"))
    if rng.random() < 0.5:
        tail = _join(weak, noun, _place(rng))
        return _join("there", verbs[plural], tail), _join("there", verbs[not plural], tail)
    strong = rng.choice(("the", "these", "all") if plural else ("the", "this", "every"))
    start = _join("there", verbs[plural])
    return _join(start, weak, noun, preposition, strong, other), _join(start, strong, noun, preposition, weak, other)


def _conjunction(rng: random.Random) -> _Pair:
    matches = {"either": "or", "neither": "nor", "both": "and"}
    right = rng.choice(list(matches))
    wrong = rng.choice([first for first in matches if first != right])
    if rng.random() < 0.6:
        tail = _join(_person(rng), matches[right], _person(rng), _predicate(rng, _PAST))
        return _join(right, tail), _join(wrong, tail)
    start = _join(_person(rng), rng.choice(_TRANSITIVE)[_PAST])
    tail = _join(_thing(rng), matches[right], _thing(rng))
    return _join(start, right, tail), _join(start, wrong, tail)


def _do_support(rng: random.Random) -> _Pair:
    subject = _one_person(rng)
    verb, rest = (rng.choice(_INTRANSITIVE), "") if rng.random() < 0.5 else (rng.choice(_TRANSITIVE), _object(rng))
    kind = rng.randrange(4)
    start = ("does " + subject, subject + " does not", subject, _join(rng.choice(_ADVERBS), subject))[kind]
    good, bad = _ordered(verb[_BASE], verb[_THIRD], swap=kind >= 2)
    return _join(start, good, rest), _join(start, bad, rest)


# --------------------------------------------------------------------------------------------------------------------
# Phenomena out of domain.


def _relative_clause(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return _join("who", _person(rng), rng.choice(_TRANSITIVE)[_PAST])
    return _join("who", rng.choice(_TRANSITIVE)[_PAST], _person(rng))


def _agreement_over_relative(rng: random.Random) -> _Pair:
    plural = _plural(rng)
    subject = _join(_phrase(rng, _PERSONS, plural), _relative_clause(rng))
    good, bad = _ordered(*_finite(rng), swap=plural)
    return _join(subject, good), _join(subject, bad)


def _reflexive_over_relative(rng: random.Random) -> _Pair:
    antecedent, right, wrong = _antecedent(rng)
    start = _join(antecedent, _relative_clause(rng), rng.choice(_TRANSITIVE)[_PAST])
    return _join(start, right), _join(start, wrong)


def _reflexive_after_phrase(rng: random.Random) -> _Pair:
    antecedent, right, wrong = _antecedent(rng)
    start = _join(antecedent, "near", _person(rng), rng.choice(_TRANSITIVE)[_PAST])
    return _join(start, right), _join(start, wrong)


def _long_question(rng: random.Random) -> _Pair:
    middle = _join(_one_person(rng), rng.choice(_THINK)[_THIRD], "that", _person(rng))
    start = _join(
        "does", _one_person(rng), rng.choice(_THINK)[_BASE], "that", middle, rng.choice(_STRICT_TRANSITIVE)[_PAST]
    )
    question, filled = _join("what", start), _join(start, _thing(rng))
    if rng.random() < 0.5:
        return question, _join(question, _thing(rng)) if rng.random() < 0.5 else start
    return filled, start if rng.random() < 0.5 else _join("what", filled)


def _passive_agreement(rng: random.Random) -> _Pair:
    plural = _plural(rng)
    subject = _phrase(rng, _THINGS, plural)
    if rng.random() < 0.5:
        subject = _join(subject, rng.choice(_PLACE_PREPOSITIONS), _thing(rng))
    tail = _join(rng.choice(_TRANSITIVE)[_PARTICIPLE], "by", _person(rng))
    good, bad = _ordered(*rng.choice((("is", "are"), ("was", "were"))), swap=plural)
    return _join(subject, good, tail), _join(subject, bad, tail)


def _stacked_adjectives(rng: random.Random) -> _Pair:
    plural = _plural(rng)
    first, second = rng.sample(_ADJECTIVES, 2)
    determiner = rng.choice(("these", "those", "many", "two") if plural else ("this", "every", "each", "a"))
    start = _join(determiner, first[0], second[0])
    good, bad = _ordered(*rng.choice(_PERSONS), swap=plural)
    tail = _predicate(rng, _PAST)
    return _join(start, good, tail), _join(start, bad, tail)


def _two_embeddings(rng: random.Random) -> _Pair:
    outer = _join(
        _one_person(rng), rng.choice(_THINK)[_THIRD], "that", _one_person(rng), rng.choice(_THINK)[_THIRD], "that"
    )
    good, bad = rng.choice((_agreement, _pronoun_case, _argument_structure, _conjunction, _auxiliary_form))(rng)
    return _join(outer, good), _join(outer, bad)


def _two_clauses(rng: random.Random) -> _Pair:
    makers = (_agreement, _reflexive, _passive, _preposition, _complement, _comparative)
    good, bad = rng.choice(makers)(rng)
    other, _ = rng.choice(makers)(rng)
    link = rng.choice(_SUBORDINATORS)
    if rng.random() < 0.5:
        return _join(good, link, other), _join(bad, link, other)
    return _join(other, link, good), _join(other, link, bad)


# --------------------------------------------------------------------------------------------------------------------
# Sentences and splits.

_STATEMENTS: dict[str, Callable[[random.Random], _Pair]] = {
    "agreement": _agreement,
    "determiner_noun": _determiner_noun,
    "reflexive": _reflexive,
    "argument_structure": _argument_structure,
    "dative": _dative,
    "polarity": _polarity,
    "auxiliary_form": _auxiliary_form,
    "word_order": _word_order,
    "pronoun_case": _pronoun_case,
    "passive": _passive,
    "relative_pronoun": _relative_pronoun,
    "comparative": _comparative,
    "preposition": _preposition,
    "complement": _complement,
    "time_adverb": _time_adverb,
    "existential": _existential,
    "conjunction": _conjunction,
}
_QUESTIONS: dict[str, Callable[[random.Random], _Pair]] = {
    "filler_gap": _filler_gap,
    "island": _island,
    "do_support": _do_support,
}
_OUT_OF_DOMAIN: dict[str, Callable[[random.Random], _Pair]] = {
    "agreement_over_relative": _agreement_over_relative,
    "reflexive_over_relative": _reflexive_over_relative,
    "reflexive_after_phrase": _reflexive_after_phrase,
    "long_question": _long_question,
    "passive_agreement": _passive_agreement,
    "stacked_adjectives": _stacked_adjectives,
    "two_embeddings": _two_embeddings,
    "two_clauses": _two_clauses,
}

IN_DOMAIN = (*_STATEMENTS, *_QUESTIONS)
OUT_OF_DOMAIN = tuple(_OUT_OF_DOMAIN)


@dataclass(frozen=True)
class Sentence:
    """A sentence as CoLA has it: where it is from, 1 for acceptable or 0, and its words in lower case."""

    source: str
    label: int
    text: str


@dataclass(frozen=True)
class Sentences:
    """All splits; no text occurs in two of them, and every word occurs in ``train``."""

    train: tuple[Sentence, ...]
    in_domain: tuple[Sentence, ...]
    out_of_domain: tuple[Sentence, ...]
    held_out_in_domain: tuple[Sentence, ...]
    held_out_out_of_domain: tuple[Sentence, ...]

    @property
    def validation(self) -> tuple[Sentence, ...]:
        """In domain and out of domain together, as GLUE joins CoLA's two."""
        return self.in_domain + self.out_of_domain

    @property
    def held_out(self) -> tuple[Sentence, ...]:
        """As ``validation``, of sentences that no decision of training has seen."""
        return self.held_out_in_domain + self.held_out_out_of_domain

    @property
    def words(self) -> tuple[str, ...]:
        """Every word of the training sentences, sorted."""
        return tuple(sorted({word for sentence in self.train for word in sentence.text.split()}))


def minimal_pair(source: str, rng: random.Random) -> tuple[str, str]:
    """Draw an acceptable sentence and its violation from one phenomenon of ``IN_DOMAIN`` or ``OUT_OF_DOMAIN``."""
    if source in _STATEMENTS:
        return _in_context(rng, _STATEMENTS[source](rng))
    return (_QUESTIONS | _OUT_OF_DOMAIN)[source](rng)


def _in_context(rng: random.Random, pair: _Pair) -> _Pair:
    """Put both sentences into the same harmless surroundings, or none."""
    kind = rng.random()
    before = after = ""
    if kind < 0.15:
        before = rng.choice(_ADVERBS)
    elif kind < 0.35:
        before = _join(_one_person(rng), rng.choice(_THINK)[_THIRD], "that")
    elif kind < 0.45:
        before = _join(_clause(rng), rng.choice(_SUBORDINATORS))
    elif kind < 0.55:
        after = _join(rng.choice(_SUBORDINATORS), _clause(rng))
    return _join(before, pair[0], after), _join(before, pair[1], after)


def generate(
    seed: int = 0,
    *,
    train: int = 16_000,
    in_domain: int = 700,
    out_of_domain: int = 300,
    acceptable_share: float = 0.65,
) -> Sentences:
    """Draw all splits: ``train`` training sentences, and validation and held-out ones of the two other sizes each."""
    rng = random.Random(seed)  # noqa: S311 - sentences, not secrets
    seen: set[str] = set()
    inside = _draw(rng, IN_DOMAIN, train + 2 * in_domain, acceptable_share, seen)
    outside = _draw(rng, OUT_OF_DOMAIN, 2 * out_of_domain, acceptable_share, seen)
    return Sentences(
        train=inside[2 * in_domain :],
        in_domain=inside[:in_domain],
        out_of_domain=outside[:out_of_domain],
        held_out_in_domain=inside[in_domain : 2 * in_domain],
        held_out_out_of_domain=outside[out_of_domain:],
    )


def _draw(
    rng: random.Random, sources: Iterable[str], count: int, acceptable_share: float, seen: set[str]
) -> tuple[Sentence, ...]:
    """Draw ``count`` sentences that are not in ``seen`` (and add them), from all sources alike, in random order."""
    sources = list(sources)
    drawn: list[Sentence] = []
    while len(drawn) < count:
        source = sources[len(drawn) % len(sources)]
        good, bad = minimal_pair(source, rng)
        label = int(rng.random() < acceptable_share)
        text = good if label else bad
        if text not in seen:
            seen.add(text)
            drawn.append(Sentence(source, label, text))
    rng.shuffle(drawn)
    return tuple(drawn)
