"""The phenomena in domain: each function draws an acceptable sentence and one that violates a single rule of it.

``grammar`` gives an example of each.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.assets.miniature.words import (
    ADJECTIVES,
    ADVERBS,
    BASE,
    DATIVE_BOTH,
    DATIVE_DOUBLE_ONLY,
    DATIVE_TO_ONLY,
    FEMALE_NAMES,
    FEMALE_NOUNS,
    HE,
    ING,
    ING_VERBS,
    INTRANSITIVE,
    MALE_NAMES,
    MALE_NOUNS,
    MASS_NOUNS,
    PARTICIPLE,
    PAST,
    PERSONS,
    PLACE_PREPOSITIONS,
    PLACES,
    STRICT_TRANSITIVE,
    STRONG_TRANSITIVE,
    THINGS,
    THINK,
    THIRD,
    TO_VERBS,
    TRANSITIVE,
    WITH_PREPOSITION,
    WONDER,
    Pair,
    draw_clause,
    draw_finite,
    draw_object,
    draw_one_person,
    draw_person,
    draw_phrase,
    draw_place,
    draw_plural,
    draw_predicate,
    draw_thing,
    join,
    ordered,
)


def agreement(rng: random.Random) -> Pair:
    plural = draw_plural(rng)
    nouns = PERSONS if rng.random() < 0.7 else THINGS
    attractor = ""
    if rng.random() < 0.5:
        attractor = join(rng.choice(PLACE_PREPOSITIONS), draw_phrase(rng, PERSONS + THINGS, draw_plural(rng)))
    subject = join(draw_phrase(rng, nouns, plural), attractor)
    good, bad = ordered(*draw_finite(rng), swap=plural)
    return join(subject, good), join(subject, bad)


def _determiner_noun(rng: random.Random) -> Pair:
    plural = draw_plural(rng)
    adjective = rng.choice(ADJECTIVES)[0] if rng.random() < 0.3 else ""
    if rng.random() < 0.3:
        # Mass against count: much water, many books.
        determiner = rng.choice(("many", "several") if plural else ("much", "little"))
        good, bad = ordered(rng.choice(MASS_NOUNS), rng.choice(THINGS)[1], swap=plural)
        start, tail = join(draw_person(rng), rng.choice(TRANSITIVE)[PAST], determiner), ""
    else:
        determiner = rng.choice(
            ("these", "those", "many", "two", "all") if plural else ("this", "that", "every", "each", "a")
        )
        as_subject = rng.random() < 0.5
        noun = rng.choice(PERSONS if as_subject else THINGS + PERSONS)
        good, bad = join(adjective, noun[plural]), join(adjective, noun[not plural])
        if as_subject:
            start, tail = determiner, draw_predicate(rng, PAST)
        else:
            start, tail = join(draw_person(rng), rng.choice(TRANSITIVE)[PAST], determiner), ""
    return join(start, good, tail), join(start, bad, tail)


def draw_antecedent(rng: random.Random) -> tuple[str, str, str]:
    """Return a person (a man, a woman or several), with the right reflexive and a wrong one.

    The draws are such that right and wrong reflexives have the same frequencies: 1/3 himself, 1/3 herself, 1/6
    themselves, 1/6 each other.
    """
    which = rng.randrange(3)
    plural_form = rng.choice(("themselves", "each other"))
    if which == 2:
        return draw_phrase(rng, PERSONS, True), plural_form, rng.choice(("himself", "herself"))
    names, nouns = ((MALE_NAMES, MALE_NOUNS), (FEMALE_NAMES, FEMALE_NOUNS))[which]
    person = rng.choice(names) if rng.random() < 0.6 else draw_phrase(rng, nouns, False)
    right, other = ("himself", "herself") if which == 0 else ("herself", "himself")
    return person, right, other if rng.random() < 0.5 else plural_form


def reflexive(rng: random.Random) -> Pair:
    antecedent, right, wrong = draw_antecedent(rng)
    start = join(antecedent, rng.choice(TRANSITIVE)[PAST])
    if rng.random() < 0.4:
        start = join(draw_one_person(rng), rng.choice(THINK)[THIRD], "that", start)
    elif rng.random() < 0.2:
        start = join(antecedent, "relied on")
    return join(start, right), join(start, wrong)


def argument_structure(rng: random.Random) -> Pair:
    subject, form = draw_person(rng), PAST
    if rng.random() < 0.4:
        subject, form = join(subject, rng.choice(("will", "can", "must"))), BASE
    transitive = rng.random() < 0.5
    verb = rng.choice(STRICT_TRANSITIVE if transitive else INTRANSITIVE)[form]
    tail = draw_place(rng) if rng.random() < 0.2 else ""
    good, bad = ordered(join(subject, verb, tail), join(subject, verb, draw_object(rng), tail), swap=transitive)
    return good, bad


def _dative(rng: random.Random) -> Pair:
    giver, receiver, thing = draw_person(rng), draw_person(rng), draw_thing(rng)
    kind = rng.randrange(4)
    if kind == 0:
        start = join(giver, rng.choice(DATIVE_BOTH))
        return join(start, receiver, thing), join(start, thing, receiver)
    if kind == 1:
        start = join(giver, rng.choice(DATIVE_BOTH))
        return join(start, thing, "to", receiver), join(start, "to", receiver, thing)
    start = join(giver, rng.choice(DATIVE_TO_ONLY if kind == 2 else DATIVE_DOUBLE_ONLY))
    return ordered(join(start, thing, "to", receiver), join(start, receiver, thing), swap=kind == 3)


def _filler_gap(rng: random.Random) -> Pair:
    start = join(draw_person(rng), rng.choice(STRICT_TRANSITIVE)[BASE])
    filled = join(start, draw_object(rng))
    asked, plain = join(rng.choice(("what", "who")), "did"), "did"
    if rng.random() < 0.4:
        # The same inside a statement: mary knew what john took, mary knew that john took the key.
        start = join(draw_person(rng), rng.choice(STRICT_TRANSITIVE)[PAST])
        filled = join(start, draw_object(rng))
        knower = join(draw_person(rng), rng.choice(("knew", "forgot")))
        asked, plain = join(knower, rng.choice(("what", "who"))), join(knower, "that")
    if rng.random() < 0.5:
        return join(asked, start), join(asked, filled) if rng.random() < 0.5 else join(plain, start)
    return join(plain, filled), join(plain, start) if rng.random() < 0.5 else join(asked, filled)


def _bridge(rng: random.Random, island: bool) -> str:
    """Return what stands between the two clauses of a question: an island, or a path that a question may cross."""
    if not island:
        return join(rng.choice(THINK)[BASE], "that")
    kind = rng.randrange(3)
    if kind == 0:
        return join(rng.choice(WONDER)[BASE], "whether")
    if kind == 1:
        return join("believe the", rng.choice(("claim", "rumor")), "that")
    return join(rng.choice(INTRANSITIVE)[BASE], rng.choice(("because", "before", "after")))


def _island(rng: random.Random) -> Pair:
    # Three kinds in equal shares: with them, question words and objects are as frequent in good as in bad sentences.
    kind = rng.randrange(3)
    start = join(
        "does",
        draw_one_person(rng),
        _bridge(rng, island=kind == 0),
        draw_person(rng),
        rng.choice(STRICT_TRANSITIVE)[PAST],
    )
    question, filled = join(rng.choice(("what", "who")), start), join(start, draw_object(rng))
    if kind == 0:
        return filled, question
    return question, start if kind == 1 else join(question, draw_object(rng))


def _polarity(rng: random.Random) -> Pair:
    kind = rng.randrange(3)
    plural = draw_plural(rng)
    first, second = rng.choice(PERSONS)[plural], rng.choice(PERSONS + THINGS)[draw_plural(rng)]
    verb = rng.choice(TRANSITIVE)
    if kind == 0:
        middle = verb[PAST]
        return join("no", first, middle, "any", second), join("any", first, middle, "no", second)
    have = "have" if plural else "has"
    if kind == 1:
        middle = join(have, "ever", verb[PARTICIPLE])
        return join("no", first, middle, "the", second), join("the", first, middle, "no", second)
    middle = join(have, rng.choice(("ever", "never")), verb[PARTICIPLE])
    if "never" in middle:
        return join("the", first, middle, "any", second), join("any", first, middle, "the", second)
    place = rng.choice(PLACE_PREPOSITIONS)
    tail = join(have, "ever", draw_predicate(rng, PARTICIPLE))
    return join("no", first, place, "the", second, tail), join("the", first, place, "no", second, tail)


def auxiliary_form(rng: random.Random) -> Pair:
    subject = draw_person(rng)
    if rng.random() < 0.3:
        # Past against participle: john took, john had taken.
        verb, rest = rng.choice(STRONG_TRANSITIVE), draw_object(rng)
        had = rng.random() < 0.5
        good, bad = ordered(verb[PAST], verb[PARTICIPLE], swap=had)
        start = join(subject, "had" if had else "")
        return join(start, good, rest), join(start, bad, rest)
    forms = {PARTICIPLE: ("had",), ING: ("kept",), BASE: ("will", "can", "must", "did not")}
    right = rng.choice(list(forms))
    wrong = rng.choice([form for form in forms if form != right])
    verb, rest = (rng.choice(INTRANSITIVE), "") if rng.random() < 0.5 else (rng.choice(TRANSITIVE), draw_object(rng))
    start = join(subject, rng.choice(forms[right]))
    return join(start, verb[right], rest), join(start, verb[wrong], rest)


def _word_order(rng: random.Random) -> Pair:
    kind = rng.randrange(4)
    noun = rng.choice(PERSONS)[draw_plural(rng)]
    if kind == 0:
        adjective, tail = rng.choice(ADJECTIVES)[0], draw_predicate(rng, PAST)
        return join("the", adjective, noun, tail), join("the", noun, adjective, tail)
    if kind == 1:
        start, place = draw_clause(rng), rng.choice(PLACES)
        preposition = rng.choice(PLACE_PREPOSITIONS)
        return join(start, preposition, "the", place), join(start, "the", place, preposition)
    if kind == 2:
        tail = join(rng.choice(PERSONS)[1], draw_predicate(rng, PAST))
        return join("all the", tail), join("the all", tail)
    subject, tail = draw_person(rng), draw_predicate(rng, BASE)
    auxiliary = rng.choice(("will", "can", "must", "did"))
    return join(subject, auxiliary, "not", tail), join(subject, "not", auxiliary, tail)


def pronoun_case(rng: random.Random) -> Pair:
    subject_form, object_form = rng.choice(list(HE.items()))
    verb = rng.choice(TRANSITIVE)[PAST]
    if rng.random() < 0.5:
        tail = join(verb, draw_object(rng)) if rng.random() < 0.6 else rng.choice(INTRANSITIVE)[PAST]
        return join(subject_form, tail), join(object_form, tail)
    start = join(draw_person(rng), verb)
    return join(start, object_form), join(start, subject_form)


def passive(rng: random.Random) -> Pair:
    agent, patient = draw_one_person(rng), draw_phrase(rng, THINGS + PERSONS, False)
    verb = rng.choice(TRANSITIVE)
    be = rng.choice(("is", "was"))
    if rng.random() < 0.5:
        return join(patient, be, verb[PARTICIPLE], "by", agent), join(patient, be, verb[ING], "by", agent)
    return join(agent, be, verb[ING], patient), join(agent, be, verb[PARTICIPLE], patient)


def _relative_pronoun(rng: random.Random) -> Pair:
    person = rng.random() < 0.5
    plural = draw_plural(rng)
    start = draw_phrase(rng, PERSONS if person else THINGS, plural)
    tail = join(draw_one_person(rng), rng.choice(TRANSITIVE)[PAST])
    if rng.random() < 0.5:
        start = join(draw_person(rng), rng.choice(TRANSITIVE)[PAST], start)
    else:
        tail = join(tail, rng.choice(("fell", "vanished", "arrived")))
    good, bad = ("who", "which") if person else ("which", "who")
    return join(start, good, tail), join(start, bad, tail)


def comparative(rng: random.Random) -> Pair:
    base, more = rng.choice(ADJECTIVES)
    start, other = join(draw_one_person(rng), rng.choice(("is", "was"))), draw_one_person(rng)
    than, as_as = join(start, more, "than", other), join(start, "as", base, "as", other)
    kind = rng.randrange(4)
    if kind == 0:
        return than, join(start, base, "than", other)
    if kind == 1:
        return as_as, join(start, "as", more, "as", other)
    if kind == 2:
        return than, join(start, more, "as", other)
    return as_as, join(start, "as", base, "than", other)


def preposition(rng: random.Random) -> Pair:
    right = rng.choice(list(WITH_PREPOSITION))
    wrong = rng.choice([preposition for preposition in WITH_PREPOSITION if preposition != right])
    start, tail = join(draw_one_person(rng), rng.choice(WITH_PREPOSITION[right])), draw_object(rng)
    return join(start, right, tail), join(start, wrong, tail)


def complement(rng: random.Random) -> Pair:
    subject, swap = draw_person(rng), rng.random() < 0.5
    if rng.random() < 0.6:
        start = join(subject, rng.choice(ING_VERBS if swap else TO_VERBS))
        verb, rest = (
            (rng.choice(INTRANSITIVE), "") if rng.random() < 0.5 else (rng.choice(TRANSITIVE), draw_object(rng))
        )
        good, bad = ordered(join("to", verb[BASE], rest), join(verb[ING], rest), swap)
    else:
        start, clause = join(subject, rng.choice(WONDER if swap else THINK)[2]), draw_clause(rng)
        good, bad = ordered(join("that", clause), join("whether", clause), swap)
    return join(start, good), join(start, bad)


def _time_adverb(rng: random.Random) -> Pair:
    past = rng.random() < 0.5
    clause = draw_clause(rng) if past else join(draw_person(rng), "will", draw_predicate(rng, BASE))
    good, bad = ordered("tomorrow", "yesterday", swap=past)
    if rng.random() < 0.5:
        return join(good, clause), join(bad, clause)
    return join(clause, good), join(clause, bad)


def _existential(rng: random.Random) -> Pair:
    plural = draw_plural(rng)
    noun, other = rng.choice(PERSONS + THINGS)[plural], rng.choice(THINGS)[plural]
    verbs = ("is", "are") if rng.random() < 0.5 else ("was", "were")
    preposition = rng.choice(PLACE_PREPOSITIONS)
    weak = rng.choice(("some", "two", "many") if plural else ("some", "a", "no"))
    if rng.random() < 0.5:
        tail = join(weak, noun, draw_place(rng))
        return join("there", verbs[plural], tail), join("there", verbs[not plural], tail)
    strong = rng.choice(("the", "these", "all") if plural else ("the", "this", "every"))
    start = join("there", verbs[plural])
    return join(start, weak, noun, preposition, strong, other), join(start, strong, noun, preposition, weak, other)


def conjunction(rng: random.Random) -> Pair:
    matches = {"either": "or", "neither": "nor", "both": "and"}
    right = rng.choice(list(matches))
    wrong = rng.choice([first for first in matches if first != right])
    if rng.random() < 0.6:
        tail = join(draw_person(rng), matches[right], draw_person(rng), draw_predicate(rng, PAST))
        return join(right, tail), join(wrong, tail)
    start = join(draw_person(rng), rng.choice(TRANSITIVE)[PAST])
    tail = join(draw_thing(rng), matches[right], draw_thing(rng))
    return join(start, right, tail), join(start, wrong, tail)


def _do_support(rng: random.Random) -> Pair:
    subject = draw_one_person(rng)
    verb, rest = (rng.choice(INTRANSITIVE), "") if rng.random() < 0.5 else (rng.choice(TRANSITIVE), draw_object(rng))
    kind = rng.randrange(4)
    start = ("does " + subject, subject + " does not", subject, join(rng.choice(ADVERBS), subject))[kind]
    good, bad = ordered(verb[BASE], verb[THIRD], swap=kind >= 2)
    return join(start, good, rest), join(start, bad, rest)


STATEMENTS: dict[str, Callable[[random.Random], Pair]] = {
    "agreement": agreement,
    "determiner_noun": _determiner_noun,
    "reflexive": reflexive,
    "argument_structure": argument_structure,
    "dative": _dative,
    "polarity": _polarity,
    "auxiliary_form": auxiliary_form,
    "word_order": _word_order,
    "pronoun_case": pronoun_case,
    "passive": passive,
    "relative_pronoun": _relative_pronoun,
    "comparative": comparative,
    "preposition": preposition,
    "complement": complement,
    "time_adverb": _time_adverb,
    "existential": _existential,
    "conjunction": conjunction,
}
QUESTIONS: dict[str, Callable[[random.Random], Pair]] = {
    "filler_gap": _filler_gap,
    "island": _island,
    "do_support": _do_support,
}
