"""Loading from the hub: what is fetched, what the cache serves, and one clear message for each way it can fail.

No hub is reached. A fake ``snapshot_download`` copies from folders with the hub's own matching of patterns. The cache
is read by the real one.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import httpx2
import huggingface_hub
import pandas as pd
import pytest
import safetensors.torch
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils._paths import filter_repo_objects

from objectives.errors import InputError
from objectives.loading.hub import _Bar
from objectives.loading.models import load_classifier
from objectives.loading.sentences import load_sentences
from tests.objectives.tiny_bert import make_tiny_bert

MODEL, DATA = "someone/model", "someone/data"
GLUE_CARD = """---
configs:
- config_name: cola
  data_files:
  - split: train
    path: cola/train-*
  - split: validation
    path: cola/validation-*
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
---
"""


class Hub:
    """Repositories as folders, and what was fetched of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: set[str] = set()
        self.failure: Exception | None = None

    def repository(self, name: str) -> Path:
        """Return the folder of one."""
        return self.folder / name

    def write(self, name: str, files: Mapping[str, bytes]) -> None:
        """Add files to a repository."""
        for file, content in files.items():
            path = self.repository(name) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def snapshot_download(self, name: str, *, allow_patterns: list[str], **_: Any) -> str:
        """Copy what matches, as huggingface_hub does."""
        if self.failure:
            raise self.failure
        source, snapshot = self.repository(name), self.folder / "snapshots" / name
        files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            self.fetched.add(file)
            (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, snapshot / file)
        return str(snapshot)


@pytest.fixture(autouse=True)
def private_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "tables")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Answer no request within its time limit, and list the limits."""
    limits: list[float] = []

    def wait(*_: object, timeout: float, **__: object) -> None:
        limits.append(timeout)
        raise httpx2.ConnectTimeout("timed out")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", wait)
    yield limits


def refusal(load: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def model() -> Any:
    return load_classifier(MODEL)


def sentences() -> Any:
    return load_sentences(DATA, "train")


def answered(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    return kind("no", response=httpx2.Response(status, request=httpx2.Request("GET", "https://hub.test")))


@pytest.mark.parametrize("older_files", [False, True])
def test_a_model_loads_as_from_its_directory(older_files: bool, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    directory = make_tiny_bert(hub.repository(MODEL), older_files=older_files)
    local = load_classifier(str(directory))
    hub.write(MODEL, dict.fromkeys(("training_args.bin", "tf_model.h5", "onnx/model.onnx", "modeling.py"), b"unwanted"))
    if not older_files:
        hub.write(MODEL, {"pytorch_model.bin": b"unwanted beside safetensors"})
    capfd.readouterr()
    loaded = model()
    assert loaded.source == MODEL
    assert loaded.max_tokens == local.max_tokens
    assert loaded.tokenizer("the cat")["input_ids"] == local.tokenizer("the cat")["input_ids"]
    for name, tensor in local.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], tensor, rtol=0, atol=0)
    weights = {"pytorch_model.bin", "vocab.txt"} if older_files else {"model.safetensors", "tokenizer.json"}
    assert weights | {"config.json", "tokenizer_config.json"} <= hub.fetched
    assert hub.fetched <= weights | {"config.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert capfd.readouterr() == ("", "")


def test_weights_in_several_files_are_all_fetched(hub: Hub) -> None:
    directory = make_tiny_bert(hub.repository(MODEL))
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    model_of = load_classifier(str(directory)).model
    (directory / "model.safetensors").unlink()
    model_of.save_pretrained(directory, max_shard_size="8kB")
    loaded = model().model.state_dict()
    assert len([name for name in hub.fetched if name.startswith("model-")]) > 1
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_glue_is_read_with_its_configuration_cola(hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"sentence": [f"Sentence {i} ." for i in range(1043)], "label": [0, *[1] * 1042]})
    parts = (("cola", "validation", table), ("cola", "train", table[:20]), ("sst2", "train", table[:5]))
    for config, split, rows in parts:
        content = rows.to_parquet(None, index=False)
        assert content is not None
        hub.write("nyu-mll/glue", {f"{config}/{split}-00000-of-00001.parquet": content})
    hub.write("nyu-mll/glue", {"README.md": GLUE_CARD.encode()})
    loaded = load_sentences("nyu-mll/glue", "validation")
    assert list(loaded.texts) == table.sentence.tolist()
    assert loaded.labels.tolist() == table.label.tolist()
    assert loaded.in_domain is not None
    assert loaded.in_domain.tolist() == [True] * 527 + [False] * 516
    train = load_sentences("nyu-mll/glue", "train")
    assert (len(train), train.in_domain) == (20, None)  # not the 8,551 of CoLA
    assert hub.fetched == {"README.md", *(f"cola/{split}-00000-of-00001.parquet" for split in ("train", "validation"))}
    assert capfd.readouterr() == ("", "")


def test_another_data_set_needs_only_the_two_columns(hub: Hub) -> None:
    hub.write(DATA, {"data/train.csv": b"sentence,label\nA cat.,1\nCat a.,0\n", "script.py": b"unwanted"})
    loaded = sentences()
    assert (loaded.texts, loaded.labels.tolist(), loaded.in_domain) == (("A cat.", "Cat a."), [1, 0], None)
    assert hub.fetched == {"data/train.csv"}


def cached(cache: Path, kind: str, name: str) -> Path:
    """Return a new snapshot folder in the layout that transformers and datasets leave behind."""
    repository = cache / f"{kind}s--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    return repository / "snapshots" / ("a" * 40)


@pytest.mark.parametrize("state", ["offline", "unreachable"])
@pytest.mark.parametrize("older_files", [False, True])
def test_the_cache_serves_if_the_hub_cannot(
    state: str, older_files: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_tiny_bert(cached(tmp_path / "cache", "model", MODEL), older_files=older_files)
    folder = cached(tmp_path / "cache", "dataset", DATA)
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text("sentence,label\nA cat.,1\nCat a.,0\n", encoding="utf-8")
    request.getfixturevalue(state)
    assert model().source == MODEL
    assert sentences().texts == ("A cat.", "Cat a.")


@pytest.mark.parametrize(("load", "instead"), [(model, "--model DIR"), (sentences, "--data DIR")])
def test_what_the_cache_lacks_offline_says_what_to_do(load: Callable[[], Any], instead: str, offline: None) -> None:
    message = refusal(load)
    assert "HF_HUB_OFFLINE is set, and the cache" in message
    assert "unset HF_HUB_OFFLINE to download them" in message
    assert instead in message


@pytest.mark.parametrize(("load", "instead"), [(model, "--model DIR"), (sentences, "--data DIR")])
def test_a_silent_hub_is_waited_for_ten_seconds(
    load: Callable[[], Any], instead: str, unreachable: list[float]
) -> None:
    message = refusal(load)
    assert unreachable == [10]
    assert "cannot be reached or broke off (ConnectTimeout: timed out)" in message
    assert "set HF_HUB_OFFLINE=1 if the cache has all files" in message
    assert instead in message


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FAILURES: dict[str, tuple[Exception, tuple[str, ...]]] = {
    "absent": (
        answered(RepositoryNotFoundError, 401),
        ("this model is missing or private", "check the spelling", "hf auth login"),
    ),
    "gated": (answered(GatedRepoError, 403), ("only on request", "accept the terms", "hf auth login")),
    "forbidden": (answered(HfHubHTTPError, 403), ("refused it with HTTP status 403", "hf auth login")),
    "down": (answered(HfHubHTTPError, 500), ("HTTP status 500", "try again later", "--model DIR")),
    "down, and nothing cached": (
        caused(LocalEntryNotFoundError("an error happened\n"), answered(HfHubHTTPError, 503)),
        ("HTTP status 503",),
    ),
    "cut": (
        httpx2.RemoteProtocolError("peer closed connection"),
        ("broke off (RemoteProtocolError: peer closed", "check the connection"),
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_one_line_that_says_what_to_do(failure: str, hub: Hub) -> None:
    hub.failure, parts = FAILURES[failure]
    message = refusal(model)
    assert message.startswith(f"model {MODEL}: ")
    assert all(part in message for part in parts), message


def test_what_is_no_hub_name_is_said_to_be_none() -> None:
    message = refusal(lambda: load_classifier("not a name"))
    assert "neither a directory nor a hub name" in message
    assert "check the spelling" in message


def test_a_full_disk_is_not_the_hubs_fault(hub: Hub) -> None:
    hub.failure = OSError(errno.ENOSPC, "No space left on device", "/cache/weights")
    with pytest.raises(OSError, match="No space left on device") as caught:
        model()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/cache/weights")
    assert "free disk space, or set HF_HOME" in str(caught.value)


def test_a_repository_without_a_model_is_told_what_it_lacks(hub: Hub) -> None:
    hub.write(MODEL, {"adapter_config.json": b"{}"})
    assert "a model directory has a config.json, this one has none" in refusal(model)
    hub.write(MODEL, {"config.json": b"{}", "vocab.txt": b"[PAD]", "tf_model.h5": b"x"})
    assert "no weights: model.safetensors or pytorch_model.bin is needed" in refusal(model)


@pytest.mark.parametrize(
    ("content", "split", "part"),
    [
        (b"sentence,label\nA cat.,1\n", "validation", "no readable split 'validation'"),
        (
            b"body,label\nA cat.,1\n",
            "train",
            "train.csv: columns 'sentence' and 'label', or others with usual names, are",
        ),
        (b"sentence,label\nA cat.,1\nCat a.,-1\n", "train", "line 3: label -1 marks a hidden label"),
        (b"", "train", "train.csv: is empty"),
    ],
)
def test_a_data_set_of_another_kind_is_refused(content: bytes, split: Any, part: str, hub: Hub) -> None:
    hub.write(DATA, {"train.csv": content})
    assert part in refusal(lambda: load_sentences(DATA, split))


def test_bars_are_for_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in _Bar(range(3), desc="Fetching 3 files", disable=False):
        pass
    assert capfd.readouterr() == ("", "")
