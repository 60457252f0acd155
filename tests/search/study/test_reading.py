from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState, create_trial

from search.study.reading import ends_of

NOON = datetime(2026, 1, 1, 12)


def trial(number: int, start_s: float | None, end_s: float | None) -> FrozenTrial:
    made = create_trial(state=TrialState.RUNNING)
    made.number = number
    made.datetime_start = None if start_s is None else NOON + timedelta(seconds=start_s)
    made.datetime_complete = None if end_s is None else NOON + timedelta(seconds=end_s)
    return made


def test_a_trials_end_is_counted_from_the_first_ones_start() -> None:
    waiting, running = trial(4, None, None), trial(3, 5, None)
    trials = [trial(0, 0, 2.5), trial(1, 0.5, 9), trial(2, 2.5, 5), running, waiting]  # two workers
    assert ends_of(trials) == {0: 2.5, 1: 9, 2: 5}
    assert ends_of([waiting]) == ends_of([]) == {}


def test_time_stands_still_after_the_clock_was_set_back_until_it_has_caught_up() -> None:
    before = [trial(number, 10 * number, 10 * number + 8) for number in range(4)]
    while_it_was = trial(4, 40, 45 - 3600)
    after = [trial(number, 10 * number - 3600, 10 * number + 7 - 3600) for number in (5, 6)]
    caught_up = trial(7, 50, 58)
    ends = ends_of([*before, while_it_was, *after, caught_up])
    assert ends == {0: 8, 1: 18, 2: 28, 3: 38, 4: 40, 5: 40, 6: 40, 7: 58}
    assert sorted(ends, key=lambda number: (ends[number], number)) == list(range(8))
