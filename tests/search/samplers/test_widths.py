"""Every sampler keeps to the widths of its run, and wastes no room where widths cost the same."""

from dataclasses import replace
from itertools import product
from math import floor

import numpy as np
import pytest
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage

from objectives.layers import WIDTHS, BitMap
from objectives.problem import Problem
from search.allocation.baselines import Baseline, first_baselines, knapsack_maps
from search.allocation.constraint import SizeConstraint
from search.samplers.guided import GuidedSampler
from search.samplers.optuna_samplers import SAMPLERS, FeasibleSampler
from search.study.reading import outcome
from search.study.study import open_study
from tests.objectives.onnx_sizes import made_up_onnx_sizes
from tests.search.studies import guess_of_sensitivities, run


def searched(
    problem: Problem, name: str, constraint: SizeConstraint, trials: int
) -> tuple[list[Baseline], list[BitMap], dict[str, object]]:
    """Return a search's baselines, the sampler's maps, and the widths that Optuna knows of its first layer."""
    widths = constraint.widths
    sensitivities = guess_of_sensitivities(problem, widths)
    sampler: BaseSampler = (
        GuidedSampler(constraint, sensitivities, problem.fp32_log_odds, seed=0)
        if name == "guided"
        else FeasibleSampler(name, constraint, seed=0)
    )
    foreign = tuple(5 + at % 2 for at in range(len(problem.layers)))  # the documented map has 5 and 6 bits too
    baselines = [Baseline("reference", "documented", foreign), *first_baselines(problem.layers, widths)[0]]
    baselines += knapsack_maps(sensitivities.damages, constraint)
    study = open_study(InMemoryStorage(), problem, "damage", constraint, sampler, baselines)
    n_baselines = len(study.get_trials(deepcopy=False))
    maps = run(study, problem, n_baselines + trials, constraint=constraint)
    result = outcome(study, "x")
    assert result.widths == widths
    documented, *others = result.trials
    assert documented.scores is not None
    assert documented.feasible == (widths == WIDTHS)
    assert documented.origin == "reference"
    assert all(set(trial.bit_map) <= set(widths) for trial in others)
    low, high, step = (getattr(study.trials[-1].distributions[problem.layers[0].name], key) for key in _RANGE)
    return baselines[1:], maps[n_baselines:], {"low": low, "high": high, "step": step}


_RANGE = ("low", "high", "step")


@pytest.mark.parametrize("name", ["guided", *SAMPLERS])
def test_maps_have_the_widths_of_their_run_only(problem: Problem, name: str) -> None:
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5, (2, 4, 8))
    trials = 45 if name == "nsga2" else 12  # beyond the 50 of NSGA-II's first generation
    baselines, maps, space = searched(problem, name, constraint, trials)
    assert [baseline.label for baseline in baselines[:3]] == ["uniform 2", "uniform 4", "uniform 8"]
    assert {width for bit_map in maps for width in bit_map} == {2, 4, 8}
    assert len(set(maps)) == trials
    assert all(constraint.excess_bits(bit_map) <= 0 for bit_map in maps)
    assert space == {"low": 2, "high": 8, "step": 2}


def test_a_reference_beyond_all_widths_is_kept_too(problem: Problem) -> None:
    for name in ("tpe", "nsga2"):
        _, maps, space = searched(problem, name, SizeConstraint(problem.footprint, "nominal", 5.5, (3, 4)), 12)
        assert {width for bit_map in maps for width in bit_map} == {3, 4}
        assert space == {"low": 3, "high": 4, "step": 1}


@pytest.mark.parametrize("name", ["guided", "tpe"])
def test_a_width_that_costs_as_much_as_a_wider_one_is_not_proposed(problem: Problem, name: str) -> None:
    sized = replace(problem, footprint=replace(problem.footprint, onnx=made_up_onnx_sizes(problem.layers)))
    highest = sized.footprint.highest_compression("onnx")
    constraint = SizeConstraint(sized.footprint, "onnx", floor(100 * (1 + highest) / 2) / 100)
    baselines, maps, _ = searched(sized, name, constraint, 12)
    knapsacks = [baseline.bit_map for baseline in baselines if baseline.origin == "plain"]
    assert knapsacks
    for bit_map in [*knapsacks, *maps]:
        assert constraint.excess_bits(bit_map) <= 0
        for layer, width in zip(problem.layers, bit_map, strict=True):
            assert width in ((2, 4, 8) if layer.kind == "linear" else WIDTHS)


def test_the_first_knapsack_of_an_onnx_size_is_the_best_of_all_maps(problem: Problem) -> None:
    layers = problem.layers[-4:]
    footprint = replace(problem.footprint, layers=layers, onnx=made_up_onnx_sizes(layers))
    constraint = SizeConstraint(footprint, "onnx", 1.2, (2, 3, 4, 8))
    damages = np.sort(np.random.default_rng(1).random((4, 4)))[:, ::-1]

    def damage(bit_map: BitMap) -> float:
        return float(sum(row[constraint.widths.index(width)] for row, width in zip(damages, bit_map, strict=True)))

    best = min(
        damage(bit_map) for bit_map in product(constraint.widths, repeat=4) if constraint.excess_bits(bit_map) <= 0
    )
    assert damage(knapsack_maps(damages, constraint)[0].bit_map) == pytest.approx(best)
