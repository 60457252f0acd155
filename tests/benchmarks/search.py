"""Guided search against NSGA-II and TPE at many times its cost, and against the knapsack and uniform maps.

    python -m tests.benchmarks search                     the miniature, seeds 0 to 2, rivals at 2,000 evaluations
    python -m tests.benchmarks search miniature 1         one seed of them
    python -m tests.benchmarks search shared              the shared model, seed 0, rivals at 1,000 evaluations
    python -m tests.benchmarks search tail                guided alone on the shared model, all of it above 12.8x
    python -m tests.benchmarks search figure FILE.png     damage against size on the shared model, 300 evaluations each

Every cost is counted in full-evaluation equivalents, sensitivities included. ``guided`` searches in FP32, as its
sensitivities are. The others search the shared model in bf16 where the processor has such products, which takes a fifth
of the time: its own damage of 3e-5 is a hundredth of the least that they find there. Each search's trace
is kept in ``runs/benchmarks`` as it goes and used again when it is there; delete the folder to measure anew.
Hypervolume: nominal bits per weight from 2 to 32 / 5.5 against log10 of damage clipped to [1e-5, 1], reference point
(32 / 5.5, 0).
"""

from __future__ import annotations

import csv
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
import torch

from objectives.evaluation.cuda_graphs import multiplies_bf16
from objectives.layers import BitMap
from objectives.problem import MINIATURE, Problem, load_problem
from objectives.scores import Precision
from search.allocation.baselines import first_baselines, knapsack_maps
from search.allocation.constraint import SizeConstraint
from search.allocation.sensitivity import measure
from search.run.worker import make_sampler
from search.study.study import open_study, tell
from tests.results.hypervolume import hypervolume_2d
from tests.search.tiny_problem import ask
from tests.shared import COLA, MODEL

TRACES = Path("runs/benchmarks")
MIN_COMPRESSION = 5.5
TAIL = 12.8
GUIDED_COST = 300
RIVAL_COST = {"miniature": 2000, "shared": 1000}
COLUMNS = ("origin", "bits_per_weight", "damage", "cost", "propose_s")
COMPRESSIONS = (5.5, 6.4, 8.0, 9.2, 10.67, 11.6, 12.8, 14.2)
Row = dict[str, object]
LABELS = {"guided": "guided", "nsga2": "NSGA-II", "tpe": "TPE", "random": "random"}
COLOURS = {"guided": "#0072B2", "nsga2": "#D55E00", "tpe": "#CC79A7", "random": "#999999"}


def main(arguments: list[str]) -> None:
    """Compare on the miniature, or on the shared model, or draw the figure."""
    match arguments:
        case ["figure", path]:
            figure(Path(path))
        case ["tail"]:
            show_damages(trace("shared", "guided", GUIDED_COST, 0, min_compression=TAIL), TAIL)
        case [("miniature" | "shared") as which, *seeds]:
            compare(which, tuple(map(int, seeds)) or ((0, 1, 2) if which == "miniature" else (0,)))
        case []:
            compare("miniature", (0, 1, 2))
        case _:
            print(__doc__)


@cache
def problem(which: str, precision: Precision) -> Problem:
    """Return the miniature or the shared problem."""
    return load_problem(*source_of(which), precision, report_progress=print)


def source_of(which: str) -> tuple[str, str]:
    """Return where the miniature or the shared model is, and its sentences."""
    return (MINIATURE, MINIATURE) if which == "miniature" else (str(MODEL), str(COLA))


def compare(which: str, seeds: tuple[int, ...]) -> None:
    """Print one table a seed."""
    for seed in seeds:
        guided = trace(which, "guided", GUIDED_COST, seed)
        show("guided", guided, seed)
        show_damages(guided)
        for rival in ("nsga2", "tpe"):
            found = trace(which, rival, RIVAL_COST[which], seed)
            show(rival, found, seed)
            ratio = hypervolume(guided) / hypervolume(found)
            print(
                f"  guided / {rival}: hypervolume {ratio:.3f} at {guided.cost.max() / found.cost.max():.2f} of the cost"
            )


def trace(which: str, sampler: str, cost: int, seed: int, min_compression: float = MIN_COMPRESSION) -> pd.DataFrame:
    """Return what a search evaluated until its cost was spent: a row an evaluation.

    Columns: ``origin``, ``bits_per_weight``, ``damage``, ``cost`` spent by then and ``propose_s``.
    """
    above = "" if min_compression == MIN_COMPRESSION else f"-above-{min_compression:g}x"
    path = TRACES / f"{which}-{sampler}-{seed}{above}.csv"
    if path.is_file() and (found := pd.read_csv(path)).cost.max() >= cost:
        return found[found.cost < cost + 1]
    TRACES.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", buffering=1) as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()
        in_bf16 = which == "shared" and sampler != "guided" and multiplies_bf16(torch.device("cpu"))
        searched = problem(which, "bf16" if in_bf16 else "fp32")
        for row, _ in search(searched, min_compression, sampler, cost, seed):
            rows.writerow(row)
    return pd.read_csv(path)


def search(
    problem: Problem, min_compression: float, sampler: str, cost: int, seed: int
) -> Iterator[tuple[Row, BitMap]]:
    """Search in memory until the cost is spent; yield each evaluation as a row of :func:`trace`, and its map."""
    constraint = SizeConstraint(problem.footprint, "nominal", min_compression)
    elements = sum(layer.elements for layer in problem.layers)
    evaluation_s = one_evaluation_s(problem)
    spent = 0.0
    sensitivities = None
    started = time.perf_counter()
    if sampler == "guided":
        with tempfile.TemporaryDirectory() as empty:
            sensitivities = measure(problem, Path(empty))
    proposer = make_sampler(sampler, problem, constraint, sensitivities, seed)
    if sampler == "guided":
        spent = (time.perf_counter() - started) / evaluation_s
        print(f"sensitivities and shrinkage cost {spent:.1f} evaluations")
    baselines, _ = first_baselines(problem.layers)
    if sensitivities is not None:
        baselines += knapsack_maps(sensitivities.damages, constraint)
    study = open_study(optuna.storages.InMemoryStorage(), problem, "damage", constraint, proposer, baselines)
    while spent < cost:
        started = time.perf_counter()
        trial, bit_map = ask(study, problem.layers)
        propose_s = time.perf_counter() - started
        evaluation = problem.evaluate(bit_map)
        tell(study, trial, bit_map, evaluation, constraint, "damage")
        spent += 1
        row: Row = {
            "origin": trial.user_attrs.get("origin", "sampler"),
            "bits_per_weight": constraint.size_bits(bit_map) / elements,
            "damage": evaluation.scores.damage,
            "cost": spent,
            "propose_s": round(propose_s, 4),
        }
        yield row, bit_map


def one_evaluation_s(problem: Problem) -> float:
    """Return the median seconds of a full evaluation, once the bank holds what it needs."""
    rng = np.random.default_rng(0)
    maps = [tuple(int(width) for width in rng.choice(range(2, 9), size=len(problem.layers))) for _ in range(3)]
    for bit_map in maps:
        problem.evaluate(bit_map)
    return float(np.median([problem.evaluate(bit_map).elapsed_s for bit_map in maps]))


def hypervolume(found: pd.DataFrame) -> float:
    """Return the hypervolume of the feasible maps; larger is better."""
    feasible = found[found.bits_per_weight <= 32 / MIN_COMPRESSION]
    costs = np.column_stack([feasible.bits_per_weight, np.log10(feasible.damage.clip(1e-5, 1.0))])
    return hypervolume_2d(costs, (32 / MIN_COMPRESSION, 0.0))


def show(name: str, found: pd.DataFrame, seed: int) -> None:
    """Print one search's hypervolume and cost."""
    proposed = found[found.origin == "sampler"]
    print(
        f"seed {seed}, {name}: hypervolume {hypervolume(found):.3f} after {found.cost.max():.0f} evaluations, "
        f"{1000 * proposed.propose_s.median():.0f} ms a proposal",
        flush=True,
    )


def show_damages(found: pd.DataFrame, least: float = 0.0) -> None:
    """Print the least damage at some compressions, not below ``least``, of each origin."""
    for compression in (compression for compression in COMPRESSIONS if compression >= least):
        plain, guided, uniform = (best(found, origin, compression) for origin in ("plain", "sampler", "uniform"))
        share = f"{guided / plain:.1%}"
        print(f"  {compression:5.2f}x: plain {plain:.5f}, guided {guided:.5f} ({share}), uniform {uniform:.5f}")


def best(found: pd.DataFrame, origin: str, compression: float) -> float:
    """Return the least damage among an origin's maps of at least a compression."""
    reaching = found[(found.origin == origin) & ((32 / found.bits_per_weight).round(2) >= compression)]
    return float(reaching.damage.min()) if len(reaching) else math.nan


def best_map(found: Sequence[tuple[Row, BitMap]], origin: str, compression: float) -> BitMap:
    """Return the map of least damage among an origin's of at least a compression, from what :func:`search` yields."""
    table = pd.DataFrame([row for row, _ in found])
    least = best(table, origin, compression)
    return found[int(np.flatnonzero((table.origin == origin) & (table.damage == least))[0])][1]


def figure(path: Path) -> None:
    """Draw each search's front after the same cost on the shared model, and the knapsack and uniform maps."""
    drawing = plt.figure(figsize=(7.5, 4.6), layout="constrained")
    axes = drawing.subplots()
    for sampler, label in LABELS.items():
        found = trace("shared", sampler, GUIDED_COST, 0)
        own = found[(found.cost <= GUIDED_COST) & (found.origin == "sampler")].sort_values("bits_per_weight")
        front = own[own.damage < own.damage.cummin().shift(fill_value=math.inf)]
        axes.step(32 / front.bits_per_weight, front.damage, where="post", color=COLOURS[sampler], label=label)
    guided = trace("shared", "guided", GUIDED_COST, 0)
    for origin, marker, colour in (("plain", "^", "#E69F00"), ("uniform", "D", "#009E73")):
        maps = guided[(guided.origin == origin) & (guided.bits_per_weight <= 32 / MIN_COMPRESSION)]
        axes.plot(32 / maps.bits_per_weight, maps.damage, marker, color=colour, label=origin)
    axes.set(yscale="log", xlabel="nominal compression, times the FP32 size", ylabel="damage, nats a sentence")
    axes.set_title(f"After {GUIDED_COST} evaluations each, sensitivities included", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130)
    print(f"written: {path}")
