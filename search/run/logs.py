"""The log of a run: its file, its first lines, and the facts of a start."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from logging.handlers import RotatingFileHandler

import optuna
import torch

from objectives.batching import device_of
from objectives.evaluation.cuda_graphs import multiplies_bf16
from objectives.metrics import METRIC_NAMES
from objectives.problem import Problem
from search.run.profile import Profile
from search.run.run_directory import RunDirectory
from search.study.holdout_record import holdout_scored_after
from search.study.trials import finished

log = logging.getLogger("bitfront")

_LOG_BYTES = 10_000_000


class _LogFile(RotatingFileHandler):
    """A log file that ignores failed writes: on a full disk, the search's own error is the one to show."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name is logging's
        """Do nothing."""


@contextmanager
def logging_to(run: RunDirectory) -> Iterator[None]:
    """Write every log record to the run's log file as well."""
    handler = _LogFile(run.log, maxBytes=_LOG_BYTES, backupCount=3, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.DEBUG)
    log.setLevel(logging.DEBUG)  # the file gets a line for each trial
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def log_start(profile: Profile, run: RunDirectory, problem: Problem, study: optuna.Study) -> None:
    """Log the search's settings and the number of trials recorded so far."""
    n_finished = finished(study)
    begun = f"{'continuing' if n_finished else 'starting'} {run.path}"
    log.info("%s: %s on %s, sampler %s, seed %d", begun, profile.model, profile.data, profile.sampler, profile.seed)
    if n_scored := holdout_scored_after(study):
        log.warning("the holdout set was scored after %d maps; more maps put its scores out of date", n_scored)
    metric = METRIC_NAMES[problem.metric]
    layers = len(problem.layers)
    log.info("FP32: %s %.4f; %d layers; %d trials recorded", metric, problem.fp32.metric, layers, n_finished)
    if problem.sampled:
        log.info("validation sentences: %s; --max-eval-samples 0 searches with all", problem.sampled)
    log.info("evaluating with the %s", problem.search_evaluator.description)
    if problem.search_evaluator.precision == "bf16" and not multiplies_bf16(device_of(problem.network)):
        log.warning("this processor does not multiply in bf16; --precision fp32 would be faster")


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on, by name."""
    packages = ("bitfront", "torch", "transformers", "optuna", "numpy")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def provenance(profile: Profile, problem: Problem) -> list[tuple[str, str]]:
    """Return the facts of a start that the report shows: sampler, fingerprints, versions, machine."""
    return [
        ("sampler", f"{profile.sampler}, seed {profile.seed}"),
        *([("validation sentences", problem.sampled)] if problem.sampled else ()),
        *((f"fingerprint of {key}", value) for key, value in problem.fingerprint.items()),
        *versions().items(),
        ("machine", f"{platform.machine()}, {torch.get_num_threads()} threads, {platform.system()}"),
    ]
