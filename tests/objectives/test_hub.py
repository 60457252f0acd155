"""Loading from the hub: the real libraries against a stand-in, and one clear line for each way it can fail.

The children that load run in processes of their own, since the libraries read ``HF_ENDPOINT`` when they are imported.
Each gets a list of jobs, so that the seconds of importing are paid once.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch

from objectives.models import load_classifier
from objectives.sentences import encode
from tests.objectives.stand_in_hub import StandInHub, files_of, glue_files, hub_environment, stand_in_hub
from tests.objectives.tiny_bert import MAX_TOKENS, make_tiny_bert
from tests.shared import ROOT

JEREMIAH = "JeremiahZ/bert-base-uncased-cola"
TEXTATTACK = "textattack/bert-base-uncased-CoLA"
GLUE = "nyu-mll/glue"
TEXT = "The cats like a dog?"

CHILD = """
import hashlib, json, sys, traceback

def weights_of(model):
    parts = [f"{name}{tensor.tolist()}" for name, tensor in sorted(model.state_dict().items())]
    return hashlib.sha256("".join(parts).encode()).hexdigest()

def run(what, name, split):
    if what == "model":
        from objectives.models import load_classifier
        loaded = load_classifier(name)
        return [weights_of(loaded.model), loaded.tokenizer(TEXT)["input_ids"], loaded.max_tokens, loaded.source]
    if what == "sentences":
        from objectives.sentences import load_sentences
        loaded = load_sentences(name, split)
        in_domain = None if loaded.in_domain is None else loaded.in_domain.tolist()
        return [list(loaded.texts), loaded.labels.tolist(), in_domain, loaded.source]
    if what == "transformers":
        import transformers
        model = transformers.AutoModelForSequenceClassification.from_pretrained(name)
        return [weights_of(model), transformers.AutoTokenizer.from_pretrained(name)(TEXT)["input_ids"]]
    if what == "datasets":
        import datasets
        table = datasets.load_dataset(name, "cola", split=split)
        return [table["sentence"][:], table["label"][:]]

TEXT = sys.argv[1]
results = []
for job in json.loads(sys.argv[2]):
    try:
        results.append({"value": run(*job)})
    except Exception as error:
        results.append({"type": type(error).__name__, "message": str(error), "trace": traceback.format_exc()})
print(json.dumps(results))
"""

Job = tuple[str, str, str]


@dataclass(frozen=True)
class Child:
    """What a process printed, and what became of its jobs."""

    outcomes: dict[Job, dict[str, Any]]
    stderr: str

    def value(self, *job: str) -> list[Any]:
        outcome = self.outcomes[job]  # type: ignore[index] # three strings, as Job has it
        assert "value" in outcome, outcome["trace"]
        result: list[Any] = outcome["value"]
        return result

    def refusal(self, *job: str) -> str:
        outcome = self.outcomes[job]  # type: ignore[index] # three strings, as Job has it
        assert outcome.get("type") == "InputError", outcome
        message: str = outcome["message"]
        assert "\n" not in message
        assert job[1] in message
        return message


def start(environment: dict[str, str], jobs: Sequence[Job]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, TEXT, json.dumps(jobs)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str], jobs: Sequence[Job]) -> Child:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) == 1, f"printed on standard output: {out}"
    return Child(dict(zip(jobs, json.loads(lines[0]), strict=True)), err)


def made_up(count: int) -> pd.DataFrame:
    words = product(("the", "a", "no"), ("cat", "dog", "bird", "\"quoted\" 'bird'"), range(count))
    sentences = [f"{article} {noun} sees number {number} ." for article, noun, number in words][:count]
    return pd.DataFrame({"sentence": sentences, "label": [0 if index % 3 == 0 else 1 for index in range(count)]})


TRAIN, VALIDATION = made_up(8551), made_up(1043)

LOADING: list[Job] = [
    ("model", JEREMIAH, ""),
    ("model", TEXTATTACK, ""),
    ("sentences", GLUE, "validation"),
    ("sentences", GLUE, "train"),
    ("sentences", "someone/plain", "train"),
]
LIBRARIES: list[Job] = [
    ("transformers", JEREMIAH, ""),
    ("transformers", TEXTATTACK, ""),
    ("datasets", GLUE, "validation"),
    ("datasets", GLUE, "train"),
]
FROM_CACHE: list[Job] = [*LOADING[:3], ("model", "someone/uncached", ""), ("sentences", "someone/uncached", "train")]
FAILURES: list[Job] = [
    ("model", "someone/absent", ""),
    ("model", "someone/gated", ""),
    ("model", "someone/broken", ""),
    ("model", "someone/cut", ""),
    ("model", "someone/silent", ""),
    ("model", "someone/only-tensorflow", ""),
    ("model", "someone/adapter", ""),
    ("model", "not a name", ""),
    ("sentences", "someone/absent", "validation"),
    ("sentences", "someone/gated-data", "validation"),
    ("sentences", "someone/plain", "validation"),
    ("sentences", "someone/columns", "train"),
    ("sentences", "someone/labels", "train"),
    ("sentences", "someone/damaged", "train"),
]


def table_files(**columns: list[Any]) -> dict[str, bytes]:
    return {"README.md": b"# a data set\n", "data/train.csv": pd.DataFrame(columns).to_csv(index=False).encode()}


@dataclass(frozen=True)
class Session:
    """The stand-in, the two models it served, and the children that loaded from it."""

    hub: StandInHub
    safetensors_model: Path
    pickled_model: Path
    loading: Child
    libraries: Child
    offline: Child
    unreachable: Child
    unwritable: Child
    requests_before_offline: int


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("hub")
    newer = make_tiny_bert(folder / "newer", seed=1)
    older = make_tiny_bert(folder / "older", seed=2, older_files=True)
    third = files_of(make_tiny_bert(folder / "third", seed=3))
    clutter = {
        "training_args.bin": b"x" * 999,
        "tf_model.h5": b"x" * 999,
        "onnx/model.onnx": b"x" * 999,
        "log.txt": b"",
    }
    models = {
        JEREMIAH: files_of(newer) | clutter | {"pytorch_model.bin": b"not wanted beside safetensors"},
        TEXTATTACK: files_of(older) | clutter,
        "someone/only-tensorflow": {"config.json": third["config.json"], "tf_model.h5": b"x", "vocab.txt": b"[PAD]"},
        "someone/adapter": {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x", "README.md": b""},
        **{f"someone/{trouble}": third for trouble in ("gated", "broken", "cut", "silent")},
    }
    datasets = {
        GLUE: glue_files(TRAIN, VALIDATION),
        "someone/plain": table_files(sentence=["A cat.", "Cat a."], label=[1, 0]),
        "someone/columns": table_files(text=["A cat.", "Cat a."], label=[1, 0]),
        "someone/labels": table_files(sentence=["A cat.", "Cat a."], label=[1, -1]),
        "someone/damaged": {"README.md": b"", "data/train.parquet": b"PAR1 no more"},
        "someone/gated-data": table_files(sentence=["A cat.", "Cat a."], label=[1, 0]),
    }
    with stand_in_hub(
        models=models,
        datasets=datasets,
        trouble={
            "someone/gated": "gated",
            "someone/gated-data": "gated",
            "someone/broken": "broken",
            "someone/cut": "cut",
            "someone/silent": "silent",
        },
    ) as hub:
        ours, theirs = folder / "home-ours", folder / "home-theirs"
        first = [
            (start(hub.environment(ours, HF_HUB_ETAG_TIMEOUT="3"), LOADING + FAILURES), LOADING + FAILURES),
            # Without the variable transformers asks the hub's conversion bot for a safetensors file, in a thread.
            (start(hub.environment(theirs, DISABLE_SAFETENSORS_CONVERSION="1"), LIBRARIES), LIBRARIES),
        ]
        loading, libraries = (finish(process, jobs) for process, jobs in first)
        count = len(hub.requests)
        second = [
            # From the cache that the libraries filled by themselves, as they do in anybody's other programs.
            start(hub.environment(theirs, HF_HUB_OFFLINE="1"), FROM_CACHE),
            start(hub_environment(f"http://127.0.0.1:{closed_port()}", ours), FROM_CACHE),
            start(hub.environment(folder / "newer" / "config.json"), FROM_CACHE),
        ]
        offline, unreachable, unwritable = (finish(process, FROM_CACHE) for process in second)
        yield Session(hub, newer, older, loading, libraries, offline, unreachable, unwritable, count)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_both_models_load_as_from_their_directories(session: Session) -> None:
    for name, directory in ((JEREMIAH, session.safetensors_model), (TEXTATTACK, session.pickled_model)):
        weights, ids, max_tokens, source = session.loading.value("model", name, "")
        assert [weights, ids] == session.libraries.value("transformers", name, "")
        assert (max_tokens, source) == (MAX_TOKENS, name)
        assert (tuple(ids),) == encode(load_classifier(str(directory)).tokenizer, [TEXT], MAX_TOKENS)
    assert session.loading.value("model", JEREMIAH, "")[0] != session.loading.value("model", TEXTATTACK, "")[0]


def test_the_two_models_are_of_the_two_file_sets(session: Session) -> None:
    assert safetensors.torch.load_file(session.safetensors_model / "model.safetensors")
    assert {path.name for path in session.pickled_model.iterdir()} == {
        "config.json",
        "pytorch_model.bin",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "vocab.txt",
    }


def test_glue_loads_as_the_datasets_library_has_it(session: Session) -> None:
    for split, table in (("validation", VALIDATION), ("train", TRAIN)):
        texts, labels, in_domain, source = session.loading.value("sentences", GLUE, split)
        assert [texts, labels] == session.libraries.value("datasets", GLUE, split)
        assert (texts, labels) == (table["sentence"].tolist(), table["label"].tolist())
        assert in_domain == ([True] * 527 + [False] * 516 if split == "validation" else [True] * 8551)
        assert source == GLUE


def test_another_data_set_needs_only_the_two_columns(session: Session) -> None:
    value = session.loading.value("sentences", "someone/plain", "train")
    assert value == [["A cat.", "Cat a."], [1, 0], None, "someone/plain"]


def test_only_what_is_needed_is_downloaded(session: Session) -> None:
    fetched = {name: set[str]() for name in (JEREMIAH, TEXTATTACK, GLUE)}
    for request in session.hub.requests:
        name, found, file = request.partition("/resolve/")
        name = name.removeprefix("HEAD ").removeprefix("GET ").removeprefix("/datasets").removeprefix("/")
        if found and name in fetched:
            fetched[name].add(file.split("/", 1)[1])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched[JEREMIAH]
    assert {"config.json", "pytorch_model.bin", "vocab.txt"} <= fetched[TEXTATTACK]
    assert {"README.md", "cola/validation-00000-of-00001.parquet"} <= fetched[GLUE]
    unneeded = {"training_args.bin", "tf_model.h5", "onnx/model.onnx", "log.txt"}
    assert not fetched[JEREMIAH] & (unneeded | {"pytorch_model.bin"})
    assert not fetched[TEXTATTACK] & unneeded
    assert not any(file.startswith("sst2") for file in fetched[GLUE])


def test_nothing_is_printed_while_loading(session: Session) -> None:
    for child in (session.loading, session.offline, session.unreachable):
        assert child.stderr == ""


@pytest.mark.parametrize("child", ["offline", "unreachable"])
def test_the_cache_serves_where_the_hub_cannot(child: str, session: Session) -> None:
    cached: Child = getattr(session, child)
    for job in LOADING[:3]:
        assert cached.value(*job) == session.loading.value(*job)
    assert len(session.hub.requests) == session.requests_before_offline


def test_what_is_not_in_the_cache_says_what_to_do(session: Session) -> None:
    for kind, instead in (("model", "--model DIR"), ("sentences", "--data DIR")):
        split = "" if kind == "model" else "train"
        offline = session.offline.refusal(kind, "someone/uncached", split)
        assert "HF_HUB_OFFLINE is set, and the cache" in offline
        assert "unset HF_HUB_OFFLINE to download it" in offline
        unreachable = session.unreachable.refusal(kind, "someone/uncached", split)
        assert "cannot be reached" in unreachable
        assert "Connection refused" in unreachable
        assert "set HF_HUB_OFFLINE=1 if the cache has it" in unreachable
        assert instead in offline
        assert instead in unreachable


@pytest.mark.parametrize(
    ("job", "parts"),
    [
        (
            ("model", "someone/absent", ""),
            ("has no such model, or a private one", "check the spelling", "hf auth login"),
        ),
        (("model", "someone/gated", ""), ("only on request", "accept the terms", "hf auth login")),
        (("model", "someone/broken", ""), ("HTTP status 500", "try again later", "--model DIR")),
        (("model", "someone/cut", ""), ("broke off (RemoteProtocolError", "check the connection")),
        (("model", "someone/silent", ""), ("cannot be reached or broke off (ReadTimeout",)),
        (("model", "someone/only-tensorflow", ""), ("no weights: model.safetensors or pytorch_model.bin is needed",)),
        (("model", "someone/adapter", ""), ("not a model directory, it has no config.json",)),
        (("model", "not a name", ""), ("neither a directory nor a hub name", "check the spelling")),
        (("sentences", "someone/absent", "validation"), ("has no such dataset, or a private one",)),
        (("sentences", "someone/gated-data", "validation"), ("only on request",)),
        (("sentences", "someone/plain", "validation"), ("no readable split 'validation'",)),
        (("sentences", "someone/columns", "train"), ("columns 'sentence' and 'label' are needed", "'text', 'label'")),
        (("sentences", "someone/labels", "train"), ("row 1: label -1 marks a hidden label",)),
        (("sentences", "someone/damaged", "train"), ("no readable split 'train'",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and value[0] in ("model", "sentences") else "",
)
def test_a_failure_is_one_line_that_says_what_to_do(job: Job, parts: tuple[str, ...], session: Session) -> None:
    message = session.loading.refusal(*job)
    for part in parts:
        assert part in message


def test_a_cache_that_cannot_be_written_is_not_the_hubs_fault(session: Session) -> None:
    """Its place is taken by a file."""
    outcome = session.unwritable.outcomes["model", JEREMIAH, ""]
    assert outcome["type"] == "NotADirectoryError", outcome


def test_a_hub_in_trouble_is_not_asked_again_and_again(session: Session) -> None:
    for name in ("broken", "silent", "absent"):
        assert sum(f"/models/someone/{name}" in request for request in session.hub.requests) == 1
    downloads = [request for request in session.hub.requests if request.startswith("GET /network/someone/cut/")]
    assert len(downloads) == 6  # a download that breaks off is resumed five times, a second apart
