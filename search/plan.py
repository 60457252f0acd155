"""What a search would do in which time: ``search --dry-run``.

Nothing is searched and no run is written. Each figure is an estimate from a few quick measurements on this machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from objectives.cache import cache_directory
from objectives.evaluation.evaluator import Evaluator
from objectives.evaluation.precision import faster_precision
from objectives.layers import uniform
from objectives.problem import Problem, source_of
from objectives.quantization.bank_cache import calibration_seconds, load_quantizer, missing_codes
from objectives.quantization.quantized_model import QuantizedModel
from objectives.training.distillation import Training, TrainingSentences, seconds_per_epoch
from objectives.training_sentences import distillation_sentences
from results.columns import Column, to_terminal
from results.formatting import duration, maps
from results.statistics.picks import HEADLINE_COMPRESSIONS
from search.allocation.baselines import first_baselines
from search.allocation.sensitivity import passes_to_measure
from search.run.distilling import EPOCHS
from search.run.final_checks import most_check_passes
from search.run.profile import Profile
from search.run.progress import BASELINES, CHECKS_SHARE, DISTILLING, SEARCHING, checks_limit_s, search_hours
from search.run.reporting import read_outcome
from search.run.run_directory import RunDirectory
from search.run.unseen_check import MOST_CANDIDATES
from search.run.worker import load_searched_problem, with_precision

log = logging.getLogger("bitfront")

_WARM_UP = 8  # sentences
_FEW_MAPS = 100  # that advice on hours makes time for


@dataclass(frozen=True)
class Planned:
    """A phase of a search that has not begun.

    Attributes:
        name: its name.
        seconds: how long it takes, estimated; None if only a signal ends it.
        what: what it does.
    """

    name: str
    seconds: float | None
    what: str


def plan(profile: Profile, run: RunDirectory) -> tuple[Planned, ...]:
    """Return the phases of a search in their order, after a minute or so of measuring.

    Args:
        profile: the settings.
        run: the run that the search would begin or continue; it is only read.

    Raises:
        InputError: the search would be refused.
    """
    # Codes of the affine quantiser take no time and are as large: nothing that is timed depends on their values.
    stand_in = replace(profile, quantizer="affine" if profile.quantizer == "calibrated" else profile.quantizer)
    problem = load_searched_problem(replace(stand_in, workers=1), log.info)
    data = source_of(problem.data)
    quantizer = load_quantizer(profile.quantizer, problem.classifier, data, profile.group_size, profile.data_options)
    fingerprint = problem.fingerprint | {"quantizer": quantizer.identity}
    recorded, done = "auto", 0
    if run.exists():
        settings = run.read_settings()
        if not run.place().url:
            run.check_journal()
        run.check_same({"confirmation": None, **fingerprint}, settings["fingerprint"])
        recorded, done = settings["profile"]["precision"], len(read_outcome(run).trials)
    training = _training_sentences(profile, problem)
    profile, problem = with_precision(profile, problem, recorded)  # type: ignore[arg-type]

    log.info("timing an evaluation")
    width = min(profile.widths)
    exact_s = _evaluation_seconds(problem, problem.evaluator, width)
    is_exact = problem.search_evaluator is problem.evaluator
    trial_s = exact_s if is_exact else _evaluation_seconds(problem, problem.search_evaluator, width)
    phases = []
    if quantizer.token_ids:
        log.info("timing the codes of a few rows")
        missing = missing_codes(quantizer, problem.layers, fingerprint["model"], cache_directory())
        codes_s = calibration_seconds(quantizer, problem.network, missing)
        cached = len(problem.layers) - len(missing)
        what = f"{len(missing)} layers" + (f"; {cached} more are in the cache" if cached else "")
        phases.append(Planned("calibrating codes", codes_s, what))
    baselines = 0 if done else len(first_baselines(problem.layers, profile.widths)[0])
    phases.append(Planned(BASELINES, baselines * trial_s, maps(baselines)))
    if profile.sensitivity != "none":
        arguments = fingerprint, cache_directory(), profile.sensitivity, profile.widths
        passes = passes_to_measure(problem, *arguments)
        what = f"about as long as {passes:.0f} evaluations" if passes else "all are in the cache"
        phases.append(Planned("measuring sensitivities", passes * exact_s, what))
    before_s = sum(phase.seconds or 0.0 for phase in phases)
    phases.append(_search(profile, before_s, trial_s, max(0, profile.trials - done - baselines)))
    searched_s = before_s + (phases[-1].seconds or 0.0)
    phases.append(_checks(profile, problem, searched_s, exact_s, is_exact))
    if training is not None:
        left_s = 3600 * profile.hours - searched_s - (phases[-1].seconds or 0.0) if profile.hours else None
        phases.append(_distillation(profile, problem, training, exact_s, left_s))
    return tuple(phases)


def _training_sentences(profile: Profile, problem: Problem) -> tuple[TrainingSentences, int] | None:
    """Return what would be distilled on, and how many unseen sentences judge; None if nothing is distilled."""
    if profile.distill == "none":
        return None
    sentences, kept = distillation_sentences(problem, profile.unseen)
    return sentences, len(kept)


def _evaluation_seconds(problem: Problem, evaluator: Evaluator, width: int) -> float:
    bit_map = uniform(problem.layers, width)
    Evaluator(
        problem.network, problem.layers, problem.token_ids[:_WARM_UP], evaluator.precision, evaluator.bank
    ).log_odds(bit_map)
    began = time.monotonic()
    evaluator.log_odds(bit_map)
    return time.monotonic() - began


def _search(profile: Profile, before_s: float, trial_s: float, trials: int) -> Planned:
    left_s = max(0.0, 3600 * search_hours(profile.hours, profile.distill) - before_s) if profile.hours else None
    if profile.trials:
        needed_s = trials * trial_s
        if left_s is None or needed_s <= left_s:
            return Planned(SEARCHING, needed_s, f"{maps(trials)}, {duration(trial_s)} each, and proposing them")
    each = f"{duration(trial_s)} each, without the time to propose them"
    if left_s is None:
        return Planned(SEARCHING, None, f"until hardly anything is left to gain; {each}")
    if left_s < trial_s:
        enough_s = (before_s + _FEW_MAPS * trial_s) / search_hours(1.0, profile.distill)
        return Planned(SEARCHING, left_s, f"no time for a map; --hours {_hours(enough_s)} is enough for {_FEW_MAPS}")
    early = "; ends earlier once hardly anything is left to gain" if profile.early_stop and not profile.trials else ""
    return Planned(SEARCHING, left_s, f"at most {maps(int(left_s / trial_s))}, {each}{early}")


def _checks(profile: Profile, problem: Problem, searched_s: float, exact_s: float, is_exact: bool) -> Planned:
    passes = most_check_passes(problem.searching_in("fp32"), profile) + (0 if is_exact else MOST_CANDIDATES)
    seconds = min(passes * exact_s, checks_limit_s(searched_s))
    sets = ["in FP32"] * (not is_exact) + ["on unseen sentences"] * bool(profile.unseen)
    sets += ["on the holdout set"] * (problem.holdout is not None)
    return Planned("final checks", seconds, ", ".join(sets) or "none")


def _distillation(
    profile: Profile,
    problem: Problem,
    training: tuple[TrainingSentences, int],
    exact_s: float,
    left_s: float | None,
) -> Planned:
    log.info("timing steps of training")
    assert profile.distill != "none"
    sentences, unseen = training
    epochs = EPOCHS[profile.distill]
    quantized = QuantizedModel.of(problem.network, problem.evaluator.bank, uniform(problem.layers, min(profile.widths)))
    how = Training(profile.distill, epochs, profile.seed, faster_precision(problem.network))
    epoch_s = seconds_per_epoch(quantized, problem.network, sentences, how, problem.head)
    holdout = 0 if problem.holdout is None else len(problem.holdout.labels)
    judged_s = exact_s * (2 + 3 * (unseen + holdout) / len(problem.labels))
    map_s = epochs * epoch_s + judged_s
    passes = f"{epochs} epoch{'' if epochs == 1 else 's'}"
    each = f"{duration(map_s)} each: {passes} on {len(sentences.token_ids):,} sentences in {how.precision}"
    least = f"{profile.min_compression:.10g}"
    sizes = [least, *(size for size in HEADLINE_COMPRESSIONS if float(size) > profile.min_compression)]
    order = f"the picks from the smallest up ({', '.join(f'best@{size}x' for size in reversed(sizes))} and others)"
    if left_s is None:
        return Planned(DISTILLING, map_s * len(sizes), f"{order} and the documented map, {each}")
    order += ", the documented map, then sizes in between"
    if left_s < map_s:
        # What an hour more leaves to distillation, if the final checks take as long as they may.
        share = 1 - search_hours(1.0, profile.distill) / (1 - CHECKS_SHARE)
        enough_s = 3600 * profile.hours + (map_s - left_s) / share
        advice = f"--hours {_hours(enough_s)} is enough for one"
        return Planned(DISTILLING, max(left_s, 0.0), f"no time for a whole map, {each}; {advice}")
    return Planned(DISTILLING, left_s, f"about {maps(int(left_s / map_s))}, {each}; {order}")


def _hours(seconds: float) -> str:
    return f"{ceil(seconds / 360) / 10:g}"


def plan_lines(profile: Profile, phases: Sequence[Planned], width: int = 100) -> list[str]:
    """Return a plan as lines for a terminal, at most ``width`` characters wide."""
    columns: list[Column[Planned]] = [
        Column("", "phase", lambda phase: phase.name),
        Column("", "minutes", lambda phase: None if phase.seconds is None else phase.seconds / 60, "{:,.0f}".format),
        Column("", "what", lambda phase: phase.what),
    ]
    hours = f"{profile.hours:g} hour{'' if profile.hours == 1 else 's'}"
    limit = " or ".join([hours] * bool(profile.hours) + [maps(profile.trials)] * bool(profile.trials)) or "no limit"
    total_s = sum(phase.seconds or 0.0 for phase in phases)
    return [
        f"What this search would do, with {limit}; estimates from quick measurements on this machine:",
        "",
        *to_terminal(columns, phases, width),
        "",
        f"together {duration(total_s)}; nothing was searched or written",
    ]
