import gc
import tracemalloc
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from objectives.errors import InputError
from objectives.heads import TWO_CLASSES
from objectives.layers import WIDTHS, uniform
from objectives.packing.safetensors_size import safetensors_bytes
from objectives.problem import Problem
from results.outcome import Quality
from search.allocation.baselines import Baseline, reference, uniform_maps
from search.allocation.constraint import SizeConstraint
from search.samplers.guided import GuidedSampler
from search.samplers.optuna_samplers import SAMPLERS, FeasibleSampler
from search.storage.stores import JournalStore
from search.study.reading import NoStudyError, load_study, outcome
from search.study.study import CONTEXT, check_joinable, fail, open_study, tell
from search.study.trials import finished, trials_of
from tests.objectives.onnx_sizes import made_up_onnx_sizes
from tests.search.studies import guess_of_sensitivities, run
from tests.search.tiny_problem import ask

BASELINES = len(WIDTHS)  # the documented map does not fit the tiny model


def open_at(
    path: Path, problem: Problem, sampler: str = "random", quality: Quality = "damage", seed: int = 0
) -> optuna.Study:
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    baselines, note = reference(problem.layers)
    baselines += uniform_maps(problem.layers)
    proposer: BaseSampler = (
        GuidedSampler(constraint, guess_of_sensitivities(problem), problem.fp32_log_odds, seed)
        if sampler == "guided"
        else FeasibleSampler(sampler, constraint, seed)
    )
    return open_study(JournalStore(path).backend, problem, quality, constraint, proposer, baselines, note)


def test_baselines_come_first_and_infeasible_ones_are_marked(tmp_path: Path, problem: Problem) -> None:
    study = open_at(tmp_path / "j", problem)
    maps = run(study, problem, BASELINES + 2)
    assert maps[:BASELINES] == [uniform(problem.layers, width) for width in WIDTHS]
    result = outcome(study, "x")
    assert [trial.label for trial in result.trials[:2]] == ["uniform 2", "uniform 3"]
    assert [trial.feasible for trial in result.trials] == [True] * 4 + [False] * 3 + [True] * 2
    constraints = [next(iter(trial.constraints.values())) for trial in study.get_trials(deepcopy=False)]
    assert [value <= 0 for value in constraints] == [trial.feasible for trial in result.trials]
    count = len(problem.layers)
    misfit = f"it is for the 76 layers of bert-base-uncased, and the {count} of this model are not those"
    assert result.reference_note == misfit
    assert study.metric_names == ["damage", "nominal_bits_per_weight"]
    assert study.trials[0].values[1] == 2.0


@pytest.mark.parametrize("sampler", ["guided", *SAMPLERS])
def test_every_sampler_proposes_feasible_maps_once(tmp_path: Path, problem: Problem, sampler: str) -> None:
    study = open_at(tmp_path / "j", problem, sampler)
    trials = 70 if sampler == "nsga2" else 30  # beyond the 50 of NSGA-II's first generation
    maps = run(study, problem, trials)
    assert len(set(maps)) == trials
    limit = 32 / 5.5 * sum(layer.elements for layer in problem.layers)
    for bit_map, trial in zip(maps[BASELINES:], study.trials[BASELINES:], strict=True):
        assert problem.footprint.nominal_bits(bit_map) <= limit
        assert tuple(trial.params[layer.name] for layer in problem.layers) == bit_map


def test_the_baselines_are_part_of_nsga2s_population(tmp_path: Path, problem: Problem) -> None:
    study = open_at(tmp_path / "j", problem, "nsga2")
    run(study, problem, 55)
    generations = [
        next((value for key, value in trial.system_attrs.items() if key.endswith(":generation")), None)
        for trial in study.get_trials(deepcopy=False)
    ]
    assert generations == [0] * 50 + [1] * 5


@pytest.mark.end_to_end
@pytest.mark.parametrize("sampler", ["guided", *SAMPLERS])
def test_a_seed_reproduces_a_run_however_it_was_stopped_or_killed(
    tmp_path: Path, problem: Problem, sampler: str
) -> None:
    trials = 60 if sampler == "nsga2" else 32  # beyond the 50 of NSGA-II's first generation
    whole = run(open_at(tmp_path / "whole", problem, sampler), problem, trials)
    parts = run(open_at(tmp_path / "parts", problem, sampler), problem, 15)
    parts += run(open_at(tmp_path / "parts", problem, sampler), problem, trials - 15)
    assert parts == whole
    other = run(open_at(tmp_path / "other", problem, sampler, seed=1), problem, 12)
    assert other[BASELINES:] != whole[BASELINES:12]
    study = open_at(tmp_path / "killed", problem, sampler)
    maps = run(study, problem, 14)
    ask(study, problem.layers)  # the process dies here
    study = open_at(tmp_path / "killed", problem, sampler)
    maps += run(study, problem, 8)
    study.ask()  # and here, before it has a map
    maps += run(open_at(tmp_path / "killed", problem, sampler), problem, trials - len(maps))
    assert maps == whole


def test_a_trial_keeps_what_it_scored_to_the_last_prediction(tmp_path: Path, problem: Problem) -> None:
    study = open_at(tmp_path / "j", problem)
    bit_map = run(study, problem, 3)[-1]
    evaluation = problem.evaluate(bit_map)
    kept = outcome(load_study(tmp_path / "j"), "x").trials[-1]
    assert kept.bit_map == bit_map
    assert kept.log_odds is not None
    assert np.array_equal(kept.log_odds, evaluation.log_odds)
    assert np.array_equal(TWO_CLASSES.predictions(kept.log_odds), TWO_CLASSES.predictions(evaluation.log_odds))
    assert kept.scores == evaluation.scores
    assert kept.nominal_compression == problem.footprint.compression(bit_map, "nominal")
    assert kept.packed_compression == problem.footprint.compression(bit_map, "packed")


def test_what_is_told_again_since_the_storage_went_away_meanwhile_warns_of_nothing(
    tmp_path: Path, problem: Problem
) -> None:
    study = open_at(tmp_path / "j", problem)
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    trial, bits = ask(study, problem.layers)
    trial.set_constraint("size", constraint.violation(bits))
    tell(study, trial, bits, problem.evaluate(bits), constraint, "damage")
    assert [done.bit_map for done in outcome(study, "x").trials] == [bits]


@pytest.mark.parametrize("quality", ["mcc", "agreement"])
def test_other_objectives_are_maximised_and_all_three_recorded(
    tmp_path: Path, problem: Problem, quality: Quality
) -> None:
    study = open_at(tmp_path / "j", problem, quality=quality)
    run(study, problem, BASELINES, quality)
    result = outcome(study, "x")
    assert result.quality == quality
    for trial, frozen in zip(result.trials, study.trials, strict=True):
        assert trial.scores is not None
        assert frozen.values[0] == trial.scores.quality(quality)
        assert trial.scores.damage >= 0
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_packed_sizes_are_read_back_rather_than_counted_again(
    tmp_path: Path, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fours = problem.footprint.compression(uniform(problem.layers, 4), "packed")
    constraint = SizeConstraint(problem.footprint, "packed", 1.01 * fours)
    baselines = uniform_maps(problem.layers)
    sampler = FeasibleSampler("random", constraint, 0)
    study = open_study(JournalStore(tmp_path / "j").backend, problem, "damage", constraint, sampler, baselines)
    for _ in range(BASELINES):
        trial, bit_map = ask(study, problem.layers)
        tell(study, trial, bit_map, problem.evaluate(bit_map), constraint, "damage")
    counting = Mock(wraps=safetensors_bytes)
    monkeypatch.setattr("objectives.packing.footprint.safetensors_bytes", counting)
    result = outcome(study, "x").trials
    assert counting.call_count <= 2  # the FP32 model, and the smallest map for whether the constraint can be met
    assert [trial.feasible for trial in result] == [width < 4 for width in WIDTHS]


def test_a_study_keeps_its_widths_and_its_onnx_sizes(tmp_path: Path, problem: Problem) -> None:
    onnx = made_up_onnx_sizes(problem.layers)
    sized = replace(problem, footprint=replace(problem.footprint, onnx=onnx))
    least = 0.9 * sized.footprint.highest_compression("onnx")
    constraint = SizeConstraint(sized.footprint, "onnx", least, (2, 4, 8))
    sampler = FeasibleSampler("random", constraint, 0)
    storage = JournalStore(tmp_path / "j").backend
    study = open_study(storage, sized, "damage", constraint, sampler, uniform_maps(sized.layers, (2, 4, 8)))
    maps = run(study, sized, 4, constraint=constraint)
    result = outcome(load_study(tmp_path / "j"), "x")
    assert (result.widths, result.footprint.onnx, result.size_axis) == ((2, 4, 8), onnx, "onnx")
    assert [trial.onnx_compression for trial in result.trials] == [
        onnx.fp32_bytes / onnx.file_bytes(bit_map) for bit_map in maps
    ]
    assert [trial.feasible for trial in result.trials] == [constraint.excess_bits(bit_map) <= 0 for bit_map in maps]
    other = SizeConstraint(sized.footprint, "onnx", least)
    with pytest.raises(InputError, match=r"widths was \[2, 4, 8\] and is now \[2, 3, 4, 5, 6, 7, 8\]"):
        check_joinable(storage, study.study_name, sized, "damage", other)


def test_a_study_of_an_older_version_has_all_widths(tmp_path: Path, problem: Problem) -> None:
    study = open_at(tmp_path / "j", problem)
    context = {key: value for key, value in study.user_attrs[CONTEXT].items() if key != "widths"}
    study.set_user_attr(CONTEXT, context)
    assert outcome(open_at(tmp_path / "j", problem), "x").widths == WIDTHS


def test_two_equal_baselines_are_evaluated_once(tmp_path: Path, problem: Problem) -> None:
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    baselines = [*uniform_maps(problem.layers), Baseline("plain", "knapsack 16.00x", uniform(problem.layers, 2))]
    sampler = FeasibleSampler("random", constraint, 0)
    study = open_study(JournalStore(tmp_path / "j").backend, problem, "damage", constraint, sampler, baselines)
    maps = run(study, problem, BASELINES + 1)
    assert len(set(maps)) == BASELINES + 1
    assert "knapsack 16.00x" not in [trial.label for trial in outcome(study, "x").trials]


def test_a_recorded_trial_takes_little_memory(tmp_path: Path, problem: Problem) -> None:
    written = open_at(tmp_path / "j", problem)
    run(written, problem, BASELINES + 20)
    tracemalloc.start()
    try:
        study = optuna.load_study(study_name=written.study_name, storage=JournalStore(tmp_path / "j").backend)
        trials = trials_of(study)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [trial.params for trial in trials] == [trial.params for trial in written.trials]
    assert [trial.distributions for trial in trials] == [trial.distributions for trial in written.trials]
    # A width is a reference in a dictionary; with a name and a distribution of its own it would be 300 bytes.
    assert taken / len(trials) < 150 * len(problem.layers) + 4000


def test_trials_share_their_distributions_also_if_the_first_had_none(tmp_path: Path, problem: Problem) -> None:
    written = open_at(tmp_path / "j", problem)
    written.tell(written.ask(), state=TrialState.FAIL)  # as of a process that died before it wrote them
    run(written, problem, 3)
    study = optuna.load_study(study_name=written.study_name, storage=JournalStore(tmp_path / "j").backend)
    first, *others = [trial.distributions for trial in trials_of(study) if trial.state.is_finished()]
    assert first == {}
    assert all(distributions is others[0] for distributions in others)


def test_trials_that_share_their_distributions_are_not_compared_again(tmp_path: Path, problem: Problem) -> None:
    study = open_at(tmp_path / "j", problem)
    run(study, problem, 3)
    shared = trials_of(study)[0].distributions
    run(study, problem, 1)
    with patch.object(IntDistribution, "__eq__", autospec=True, side_effect=IntDistribution.__eq__) as compared:
        trials = [trial for trial in trials_of(study) if trial.state.is_finished()]
    assert all(trial.distributions is shared for trial in trials)
    assert compared.call_count == len(problem.layers)  # those of the last trial


def test_an_interrupted_trial_is_tried_again(tmp_path: Path, problem: Problem) -> None:
    study = open_at(tmp_path / "j", problem)
    run(study, problem, BASELINES - 1)
    _, baseline = ask(study, problem.layers)  # the process dies here
    study = open_at(tmp_path / "j", problem)
    assert run(study, problem, 1) == [baseline]
    _, proposed = ask(study, problem.layers)  # and here
    study = open_at(tmp_path / "j", problem)
    assert run(study, problem, 1) == [proposed]
    assert finished(study) == BASELINES + 1
    result = outcome(study, "x")
    assert [trial.label for trial in result.trials][BASELINES - 1] == "uniform 8"
    assert len(result.trials) == BASELINES + 1
    assert len({trial.bit_map for trial in result.trials}) == BASELINES + 1


def test_a_trial_killed_while_its_map_was_written_is_given_up(tmp_path: Path, problem: Problem) -> None:
    study = open_at(tmp_path / "j", problem)
    run(study, problem, BASELINES)
    half = study.ask()
    half.suggest_int(problem.layers[0].name, WIDTHS[0], WIDTHS[-1])
    study = open_at(tmp_path / "j", problem)
    assert study.trials[-1].state == TrialState.FAIL
    run(study, problem, 2)
    assert len(outcome(study, "x").trials) == BASELINES + 2


def test_a_failed_evaluation_is_recorded_and_never_on_the_front(tmp_path: Path, problem: Problem) -> None:
    study = open_at(tmp_path / "j", problem)
    run(study, problem, BASELINES)
    trial, bit_map = ask(study, problem.layers)
    fail(study, trial, "3 of 80 log-odds are not finite")
    study = open_at(tmp_path / "j", problem)
    last = outcome(study, "x").trials[-1]
    assert (last.bit_map, last.scores, last.failure) == (bit_map, None, "3 of 80 log-odds are not finite")
    assert finished(study) == BASELINES + 1


def test_storages_without_a_complete_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoStudyError, match="has no study yet"):
        load_study(tmp_path / "missing")
    optuna.create_study(storage=JournalStore(tmp_path / "empty").backend, study_name="another")
    with pytest.raises(NoStudyError, match="cannot be read as a study"):
        load_study(tmp_path / "empty")
    study = optuna.create_study(storage=JournalStore(tmp_path / "j").backend, study_name="bitfront")
    with pytest.raises(NoStudyError, match="is incomplete"):
        load_study(tmp_path / "j")
    study.set_user_attr("context", {"schema": "bitfront-study-0"})
    with pytest.raises(InputError, match="another version"):
        load_study(tmp_path / "j")
    (tmp_path / "text").write_text("hello\nworld\n")
    with pytest.raises(InputError, match="cannot be read as a study"):
        load_study(tmp_path / "text")


def test_another_study_of_that_name_is_left_alone(tmp_path: Path, problem: Problem) -> None:
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    storage = JournalStore(tmp_path / "j").backend
    theirs = optuna.create_study(storage=storage, study_name="night", directions=["minimize", "minimize"])
    check_joinable(storage, "night", problem, "damage", constraint)  # might be one of ours, half-made
    theirs.ask()
    with pytest.raises(InputError, match="is not bitfront's"):
        check_joinable(storage, "night", problem, "damage", constraint)
    optuna.create_study(storage=storage, study_name="single")
    with pytest.raises(InputError, match="is not bitfront's"):
        check_joinable(storage, "single", problem, "damage", constraint)


def test_the_holdout_must_be_the_same_on_all_machines(tmp_path: Path, problem: Problem) -> None:
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    with_holdout = replace(problem, fingerprint={**problem.fingerprint, "confirmation": "0123"})
    study = open_at(tmp_path / "j", with_holdout)
    with pytest.raises(InputError, match="confirmation was '0123' and is now None"):
        check_joinable(study._storage, study.study_name, problem, "damage", constraint)


def test_a_run_continued_with_other_settings_records_all_of_them(tmp_path: Path, problem: Problem) -> None:
    def provenance(*facts: tuple[str, str]) -> dict[str, str]:
        constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
        sampler = FeasibleSampler("random", constraint, seed=0)
        study = open_study(
            JournalStore(tmp_path / "j").backend, problem, "damage", constraint, sampler, [], provenance=facts
        )
        return dict(outcome(study, "x").provenance)

    assert provenance(("sampler", "nsga2"), ("torch", "2.13.0")) == {"sampler": "nsga2", "torch": "2.13.0"}
    assert provenance(("sampler", "guided"), ("torch", "2.13.0"))["sampler"] == "nsga2, then guided"
    for _ in range(2):
        recorded = provenance(("sampler", "nsga2"), ("torch", "2.13.0"), ("python", "3.12"))
        assert recorded == {"sampler": "nsga2, then guided", "torch": "2.13.0", "python": "3.12"}
