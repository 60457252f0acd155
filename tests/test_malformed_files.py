"""Every reader of files from outside, given damaged ones: it refuses them in one line, or what it took is right.

What a reader accepts is held against a plain reading of the same damaged file. 500 files each; 10,000 where slow.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from objectives.bit_maps import read_bit_map, to_json, to_text
from objectives.errors import InputError
from objectives.layers import WIDTHS
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import load_classifier
from objectives.loading.sentences import load_sentences
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.problem import load_problem
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from results.export.packed import BIT_MAP, MANIFEST, WEIGHTS, load_checkpoint, write_checkpoint
from search.allocation.baselines import uniform_maps
from search.allocation.constraint import SizeConstraint
from search.run.profile import Profile, resolve_profile
from search.run.run_directory import RunDirectory
from search.samplers.optuna_samplers import FeasibleSampler
from search.storage.stores import JournalStore
from search.study.reading import load_study, outcome
from search.study.study import open_study, tell
from tests.malformed import malformed
from tests.objectives.example_layers import LAYERS
from tests.objectives.tiny_bert import make_tiny_bert
from tests.results.checkpoints import hash_anew
from tests.search.tiny_problem import ask, make_tiny_problem

pytestmark = pytest.mark.end_to_end

COUNTS = pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])


def read_all(path: Path, seed: int, count: int, read: Callable[[], Callable[[bytes], None]]) -> None:
    """Put damaged files in a file's place; ``read`` fails with an InputError or returns a check of what it took."""
    accepted = 0
    content = path.read_bytes()
    for number, damaged in malformed(content, seed, count):
        path.write_bytes(damaged)
        try:
            try:
                check = read()
            except InputError as error:
                assert str(error).strip(), "an empty message"
                assert len(str(error)) < 20_000, "a message nobody reads"
                continue
            check(damaged)
        except Exception as error:
            error.add_note(f"seed {seed}, file {number}: {damaged[:300]!r}")
            raise
        accepted += 1
    path.write_bytes(content)
    read()
    assert accepted < count  # else nothing was damaged that matters


@COUNTS
@pytest.mark.parametrize("kind", ["text", "json"])
def test_bit_maps(kind: str, count: int, tmp_path: Path) -> None:
    bit_map = tuple(int(width) for width in np.random.default_rng(0).choice(WIDTHS, size=len(LAYERS)))
    path = tmp_path / "map"
    path.write_text(
        to_text(LAYERS, bit_map) if kind == "text" else to_json(LAYERS, bit_map, {"run": "x"}), encoding="utf-8"
    )

    def read() -> Callable[[bytes], None]:
        taken = read_bit_map(path, LAYERS)

        def check(damaged: bytes) -> None:
            assert len(taken) == len(LAYERS)
            assert set(taken) <= set(WIDTHS)
            text = damaged.decode("utf-8-sig")
            if kind == "json" and text.lstrip().startswith("{"):
                document = json.loads(text)
                assert document.get("bits", document) == {
                    layer.name: width for layer, width in zip(LAYERS, taken, strict=True)
                }
                return
            rows = [row.split("|") for row in text.replace("\\", "").splitlines() if "layer:" in row.lower()]
            given = {row[0].split(":", 1)[1].strip(): row[1].split(":")[1].strip() for row in rows}
            assert {layer.name: str(width) for layer, width in zip(LAYERS, taken, strict=True)} == given

        return check

    read_all(path, 1, count, read)


@COUNTS
def test_profiles(count: int, tmp_path: Path) -> None:
    path = tmp_path / "profile.toml"
    path.write_text(
        'model = "miniature"\ndata = "miniature"\ntrials = 300\nhours = 1.5\nquality = "mcc"\nmin_compression = 6\n'
        'sampler = "nsga2"\nquantizer = "affine"\nsensitivity = "none"\nprecision = "bf16"\nseed = 3\n'
    )

    def read() -> Callable[[bytes], None]:
        profile = resolve_profile(str(path), {}).to_dict()

        def check(damaged: bytes) -> None:
            given = tomllib.loads(damaged.decode("utf-8"))
            assert {key: profile[key] for key in given} == given
            assert profile["trials"] >= 0
            assert 1 <= profile["min_compression"] < float("inf")

        return check

    read_all(path, 2, count, read)


@COUNTS
def test_settings_of_runs(count: int, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.write_settings(Profile("miniature", "miniature").to_dict(), {"model": "0"}, {"torch": "2"}, start={"cores": 2})

    def read() -> Callable[[bytes], None]:
        settings = run.read_settings()

        def check(damaged: bytes) -> None:
            given = tomllib.loads(damaged.decode("utf-8"))
            read_back = {key: settings["profile"][key] for key in given["profile"]}
            if "widths" in given["profile"]:  # each counts once
                given["profile"]["widths"] = sorted({*given["profile"]["widths"]})
            lists = {key: [*value] for key, value in read_back.items() if isinstance(value, tuple)}
            assert read_back | lists == given["profile"]
            assert {key: settings[key] for key in given if key != "profile"} == {
                key: value for key, value in given.items() if key != "profile"
            }

        return check

    read_all(run.settings, 6, count, read)


@COUNTS
def test_sentences(count: int, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [f"x{at}\t{at % 2}\t{'' if at % 2 else '*'}\tthe cat number {at} sleeps .\n" for at in range(30)]
    for name in ("in_domain_train.tsv", "in_domain_dev.tsv", "out_of_domain_dev.tsv"):
        (raw / name).write_text("".join(rows), encoding="utf-8")

    def read() -> Callable[[bytes], None]:
        taken = load_sentences(str(tmp_path), "train")

        def check(damaged: bytes) -> None:
            plain = [line.removesuffix("\r").split("\t") for line in damaged.decode("utf-8").split("\n")]
            plain = plain[:-1] if plain[-1] == [""] else plain
            assert list(taken.texts) == [columns[3] for columns in plain]
            assert [str(label) for label in taken.labels] == [columns[1] for columns in plain]
            assert all(str(text).strip() for text in taken.texts)

        return check

    read_all(raw / "in_domain_train.tsv", 3, count, read)


def packed_tiny_bert(directory: Path, scheme: Scheme = PER_ROW) -> QuantizedModel:
    """Write a packed checkpoint of a tiny model, whose own directory is gone, and return what it holds."""
    source = make_tiny_bert(directory.with_name("model"))
    classifier = load_classifier(str(source))
    layers = find_layers(classifier.model)
    bit_map = tuple(int(width) for width in np.random.default_rng(0).choice(WIDTHS, size=len(layers)))
    quantized = QuantizedModel.of(classifier.model, WeightBank(classifier.model, layers, scheme), bit_map)
    write_checkpoint(classifier, quantized, {"run": "x"}, directory)
    shutil.rmtree(source)
    return quantized


@COUNTS
@pytest.mark.parametrize("name", [WEIGHTS, MANIFEST, "config.json", "tokenizer.json"])
def test_packed_checkpoints(name: str, count: int, tmp_path: Path) -> None:
    directory = tmp_path / "packed"
    bit_map = packed_tiny_bert(directory).bit_map
    weights = load_checkpoint(directory).classifier.model.state_dict()

    def read() -> Callable[[bytes], None]:
        taken = load_checkpoint(directory)

        def check(damaged: bytes) -> None:
            assert taken.bit_map == bit_map
            assert all(torch.equal(tensor, weights[key]) for key, tensor in taken.classifier.model.state_dict().items())

        return check

    read_all(directory / name, 4, count, read)


@COUNTS
@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        (WEIGHTS, PER_ROW),
        (WEIGHTS, Scheme("codebook")),
        (WEIGHTS, Scheme(group_size=5)),
        (BIT_MAP, PER_ROW),
        ("config.json", PER_ROW),
        ("tokenizer.json", PER_ROW),
        ("tokenizer_config.json", PER_ROW),
    ],
    ids=str,
)
def test_packed_checkpoints_behind_their_hashes(name: str, scheme: Scheme, count: int, tmp_path: Path) -> None:
    """The manifest describes each damaged file, so that whoever reads it has to find the fault; a tenth as many."""
    directory = tmp_path / "packed"
    quantized = packed_tiny_bert(directory, scheme)
    weights = load_checkpoint(directory).classifier.model.state_dict()

    def read() -> Callable[[bytes], None]:
        hash_anew(directory)
        taken = load_checkpoint(directory)

        def check(damaged: bytes) -> None:
            assert taken.bit_map == quantized.bit_map
            state = taken.classifier.model.state_dict()
            if name != WEIGHTS:
                assert all(torch.equal(tensor, weights[key]) for key, tensor in state.items())
                return
            stored = load(damaged)
            packed = load_checkpoint(directory, packed=True).model.state_dict()
            assert all(tensor.equal(stored[key]) for key, tensor in packed.items())
            assert all(torch.equal(state[key], stored[key]) for key in quantized.kept)
            assert all(tensor.isfinite().all() for tensor in state.values())

        return check

    read_all(directory / name, 4, count // 10, read)


@COUNTS
def test_journals(count: int, tmp_path: Path) -> None:
    made = make_tiny_problem(tmp_path / "tiny", sentences=16)
    problem = load_problem(str(made.model), str(made.data))
    constraint = SizeConstraint(problem.footprint, "nominal", 5.5)
    path = tmp_path / "study.journal"
    sampler = FeasibleSampler("random", constraint, seed=0)
    baselines = uniform_maps(problem.layers)[:2]
    study = open_study(JournalStore(path).backend, problem, "damage", constraint, sampler, baselines)
    for _ in range(4):
        trial, bit_map = ask(study, problem.layers)
        tell(study, trial, bit_map, problem.evaluate(bit_map), constraint, "damage")
    whole = outcome(load_study(path), "x")

    def read() -> Callable[[bytes], None]:
        for aside in tmp_path.glob("study.journal.damaged-*"):
            aside.unlink()
        JournalStore(path, recover=True)
        found = outcome(load_study(path), "x")

        def check(damaged: bytes) -> None:
            for trial in found.trials:
                true = whole.trials[trial.number]
                # The time is told from the first trial that there is.
                assert repr(replace(trial, finished_s=0)) == repr(replace(true, finished_s=0))
                assert trial.log_odds is not None
                assert true.log_odds is not None
                assert np.array_equal(trial.log_odds, true.log_odds)
            assert np.array_equal(found.fp32_log_odds, whole.fp32_log_odds)
            assert np.array_equal(found.labels, whole.labels)
            assert found.footprint == whole.footprint

        return check

    read_all(path, 5, count, read)
