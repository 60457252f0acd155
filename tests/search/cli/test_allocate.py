"""`bitfront allocate`: one map at once."""

import json
from dataclasses import replace
from math import floor
from pathlib import Path

import numpy as np
import pytest

from objectives.bit_maps import read_bit_map
from objectives.cache import cache_directory
from objectives.problem import Problem
from search.allocation.constraint import SizeConstraint
from search.allocation.knapsack import to_choice
from search.allocation.sensitivity import measure
from tests.search.conftest import Command
from tests.search.tiny_problem import TinyProblem


def test_it_writes_a_checkpoint_that_scores_what_it_says(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--model", tiny.model, "--data", tiny.data, "--quantizer", "affine", "--compression", 8)
    result = bitfront("allocate", *where, "--out", tmp_path / "packed")
    assert result.status == 0, result.err
    assert f"next: bitfront evaluate --checkpoint {tmp_path / 'packed'}" in result.out
    bit_map = read_bit_map(tmp_path / "packed" / "bitmap.txt", problem.layers)
    damage = problem.confirm(bit_map).scores.damage
    assert f"damage       {damage:.5f} nats a sentence  (95% interval " in result.out
    lines = result.out.splitlines()
    sizes = [line for line in lines if line.startswith(("nominal", "packed"))]
    assert f"{problem.footprint.packed_bytes(bit_map):,} bytes of checkpoint" in sizes[1]
    assert problem.footprint.compression(bit_map, "nominal") >= 8
    assert all(step in result.out for step in ("model ", "sensitivities ", "knapsack ", "evaluation ", "writing "))
    provenance = json.loads((tmp_path / "packed" / "bitfront.json").read_text(encoding="utf-8"))["provenance"]
    assert provenance["origin"] == "knapsack"
    assert (provenance["sensitivity"], provenance["min_compression"]) == ("gradient", 8)
    assert provenance["scores"]["damage"] == damage
    scored = bitfront("evaluate", "--checkpoint", tmp_path / "packed")
    assert next(line for line in lines if line.startswith("damage")) in scored.out

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("search.allocation.sensitivity.first_order_shifts", never)
    again = bitfront("allocate", *where, "--format", "json", "--out", tmp_path / "map.json")
    assert again.status == 0, again.err
    assert read_bit_map(tmp_path / "map.json", problem.layers) == bit_map
    assert f"next: bitfront evaluate --bitmap {tmp_path / 'map.json'} --model {tiny.model}" in again.out
    for taken in ("packed", "map.json"):
        refused = bitfront("allocate", *where, "--out", tmp_path / taken)
        assert refused.status == 2
        assert "exists already" in refused.err


def test_its_map_is_the_best_sum_of_measured_sensitivities_at_the_given_widths(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, problem: Problem
) -> None:
    where = ("--model", tiny.model, "--data", tiny.data, "--quantizer", "affine", "--compression", 9)
    how = ("--sensitivity", "measured", "--widths", "2,4,8", "--format", "text", "--out", tmp_path / "map.txt")
    assert bitfront("allocate", *where, *how).status == 0
    bit_map = read_bit_map(tmp_path / "map.txt", problem.layers)
    constraint = SizeConstraint(problem.footprint, "nominal", 9, (2, 4, 8))
    assert constraint.allows(bit_map) and constraint.excess_bits(bit_map) <= 0
    sensitivities = measure(problem, cache_directory(), widths=constraint.widths)
    assert sensitivities is not None
    assert sensitivities.measured[:, 0].all()

    def damage(chosen: tuple[int, ...]) -> float:
        rows = np.arange(len(chosen))
        return float(sensitivities.damages[rows, to_choice(chosen, constraint.widths)].sum())

    for at, width in np.ndindex(len(bit_map), 3):  # no single change is better
        changed = (*bit_map[:at], constraint.widths[width], *bit_map[at + 1 :])
        assert constraint.excess_bits(changed) > 0 or damage(changed) >= damage(bit_map)


def test_what_cannot_be_is_refused_before_anything_is_scored(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("objectives.problem.Evaluator")
    where = ("allocate", "--model", tiny.model, "--data", tiny.data, "--out", tmp_path / "x", "--compression")
    for arguments, complaint in (
        ((17,), "no map reaches a compression of 17x (nominal): every layer at 2 bits is 16.0000x"),
        ((9, "--widths", "4,8"), "every layer at 4 bits is 8.0000x"),
        ((8, "--format", "png"), "--format must be one of text, json, packed, torchao, onnx"),
        ((8, "--sensitivity", "none"), "--sensitivity must be gradient or measured"),
        ((8, "--quantizer", "codebook", "--format", "torchao"), "evenly spaced levels"),
        ((0.5,), "Invalid value for '--compression'"),
    ):
        result = bitfront(*where, *arguments)
        assert result.status == 2, arguments
        assert complaint in " ".join(result.err.replace("│", " ").split()), result.err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_half_written(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("results.export.packed.write_map", interrupted)
    where = ("--model", tiny.model, "--data", tiny.data, "--quantizer", "affine", "--compression", 8)
    result = bitfront("allocate", *where, "--out", tmp_path / "packed")
    assert result.status == 130
    assert not list(tmp_path.iterdir())


def test_an_onnx_checkpoint_is_as_small_as_it_counts(
    tiny: TinyProblem, bitfront: Command, tmp_path: Path, problem: Problem
) -> None:
    pytest.importorskip("onnx")
    from results.export.onnx.model_file import onnx_sizes

    footprint = replace(problem.footprint, onnx=onnx_sizes(problem.classifier, problem.footprint.scheme))
    least = floor(1e3 * footprint.highest_compression("onnx")) / 1e3  # most of so small a model is no codes
    where = ("--model", tiny.model, "--data", tiny.data, "--quantizer", "affine", "--size", "onnx")
    result = bitfront("allocate", *where, "--compression", least, "--format", "onnx", "--out", tmp_path / "onnx")
    assert result.status == 0, result.err
    length = (tmp_path / "onnx" / "onnx" / "model.onnx").stat().st_size
    assert f"{length:,} bytes of ONNX file" in result.out
    bit_map = read_bit_map(tmp_path / "onnx" / "bitmap.txt", problem.layers)
    assert length == footprint.size(bit_map, "onnx")
    for layer, width in zip(problem.layers, bit_map, strict=True):
        assert layer.kind == "embedding" or width in (2, 4, 8)
