"""Loading of classifiers: what is accepted, and one clear line for each thing that is not."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import pytest
import safetensors.torch
import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, progress_bar_states
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from transformers.utils import logging as transformers_logging

from objectives.errors import InputError
from objectives.heads import HeadKind, head_of
from objectives.loading.hub import quiet_libraries
from objectives.loading.models import Classifier, load_base, load_classifier
from tests.objectives.tiny_bert import MAX_TOKENS, SPECIAL, WORDS, make_tiny_bert

VOCABULARY = len(SPECIAL) + len(WORDS)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory that no test changes."""
    return make_tiny_bert(tmp_path_factory.mktemp("models") / "tiny")


def logits(classifier: Classifier, text: str = "the cats see a dog .") -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = classifier.model(**classifier.tokenizer(text, return_tensors="pt")).logits
        return result


def refusal(directory: Path, load: Callable[[str], Classifier] = load_classifier) -> str:
    """Return the message of the refusal, which is one line that names the source."""
    with pytest.raises(InputError) as caught:
        load(str(directory))
    message = str(caught.value)
    assert str(directory) in message
    assert "\n" not in message
    return message


def test_a_directory_gives_its_own_weights_in_fp32_for_inference(tiny: Path) -> None:
    classifier = load_classifier(str(tiny))
    saved = safetensors.torch.load_file(tiny / "model.safetensors")
    loaded = classifier.model.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert {parameter.dtype for parameter in classifier.model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in classifier.model.parameters())
    assert not any(module.training for module in classifier.model.modules())
    assert classifier.source == str(tiny)
    assert classifier.max_tokens == MAX_TOKENS


def test_half_precision_weights_become_fp32(tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "half"))
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    halves = {name: weight.half() for name, weight in weights.items()}
    safetensors.torch.save_file(halves, directory / "model.safetensors", metadata={"format": "pt"})
    edit_config(directory, dtype="float16")
    loaded = load_classifier(str(directory)).model.state_dict()
    assert all(torch.equal(loaded[name], halves[name].float()) for name in halves)


def test_the_older_files_give_the_same_model(tiny: Path, tmp_path: Path) -> None:
    older = make_tiny_bert(tmp_path / "older", older_files=True)
    assert {"pytorch_model.bin", "vocab.txt"} <= {path.name for path in older.iterdir()}
    assert not (older / "tokenizer.json").exists()
    ours, theirs = load_classifier(str(older)), load_classifier(str(tiny))
    weights, expected = ours.model.state_dict(), theirs.model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    text = "The CATS likes, a dog?"
    assert ours.tokenizer(text)["input_ids"] == theirs.tokenizer(text)["input_ids"]
    assert torch.allclose(logits(ours, text), logits(theirs, text))


def test_safetensors_is_preferred_to_pickle(tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "both"))
    (directory / "pytorch_model.bin").write_bytes(b"never read")
    load_classifier(str(directory))


def test_the_first_berts_names_of_tensors_are_understood(tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "first"))
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in weights.items()
    }
    assert len(renamed.keys() - weights.keys()) == 10
    safetensors.torch.save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
    loaded = load_classifier(str(directory)).model.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}
DEEP: dict[str, Any] = {"num_hidden_layers": 1, "intermediate_size": 32}
FAMILY: list[PreTrainedModel] = [
    RobertaForSequenceClassification(RobertaConfig(**SMALL, **DEEP, pad_token_id=1)),
    ElectraForSequenceClassification(ElectraConfig(**SMALL, **DEEP, embedding_size=8)),
    DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=VOCABULARY, dim=16, n_heads=2, n_layers=1, hidden_dim=32, max_position_embeddings=20
        )
    ),
]


@pytest.mark.parametrize("model", FAMILY, ids=lambda model: model.config.model_type)
def test_the_rest_of_the_family_loads_and_takes_just_its_longest_input(
    model: PreTrainedModel, tiny: Path, tmp_path: Path
) -> None:
    with quiet_libraries():
        AutoTokenizer.from_pretrained(tiny, model_max_length=512).save_pretrained(tmp_path)
        model.save_pretrained(tmp_path)
    classifier = load_classifier(str(tmp_path))
    longest = torch.full((1, classifier.max_tokens), 7)
    with torch.inference_mode():
        assert classifier.model(input_ids=longest).logits.shape == (1, 2)
        with pytest.raises((IndexError, RuntimeError)):
            classifier.model(input_ids=torch.full((1, classifier.max_tokens + 1), 7))


def test_the_tokenizer_may_limit_the_input_further(tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "short"))
    with quiet_libraries():
        AutoTokenizer.from_pretrained(tiny, model_max_length=9).save_pretrained(directory)
    assert load_classifier(str(directory)).max_tokens == 9


@pytest.mark.parametrize("source", ["./absent", "/absent/model", "absent/", "~/absent-model", "a/b/c", "..\\absent"])
def test_what_is_written_as_a_path_is_never_looked_up_on_the_hub(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(InputError, match="there is no such directory") as caught:
        load_classifier(source)
    assert source in str(caught.value)


def test_a_file_and_an_empty_name_are_refused(tiny: Path) -> None:
    assert "a directory is needed, got a file" in refusal(tiny / "config.json")
    with pytest.raises(InputError, match="got an empty name"):
        load_classifier("")


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_tensor(directory: Path) -> None:
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    safetensors.torch.save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def set_architectures(value: object, directory: Path) -> None:
    drop_from_config(directory, "model_type")
    edit_config(directory, architectures=value)


def store_as(dtype: torch.dtype, pickled: bool, directory: Path) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    path = directory / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    weights[name] = (weights[name] * 100).to(dtype)
    if pickled:
        path.unlink()
        torch.save(weights, directory / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(weights, path, metadata={"format": "pt"})


def rename_weights(directory: Path, prefix: str) -> None:
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    renamed = {prefix + name: weight for name, weight in weights.items()}
    safetensors.torch.save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})


def drop_from_config(directory: Path, *names: str) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({name: config[name] for name in config.keys() - {*names}}))


def limit_input(limit: Any, directory: Path) -> None:
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": limit}))


TORCHAO = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}}}
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "a model directory has a config.json, this one has none"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "no weights"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "no tokenizer"),
    "broken config": (lambda d: cut_in_half(d / "config.json"), "config.json cannot be read"),
    "nonsense in config": (lambda d: edit_config(d, hidden_size="wide"), "config.json cannot be read"),
    "unknown type": (lambda d: edit_config(d, model_type="tomorrow"), "config.json cannot be read"),
    "cut weights": (lambda d: cut_in_half(d / "model.safetensors"), "the weights cannot be read"),
    "empty weights": (lambda d: (d / "model.safetensors").write_bytes(b""), "the weights cannot be read"),
    "cut tokenizer": (lambda d: cut_in_half(d / "tokenizer.json"), "the tokenizer cannot be read"),
    "decoder": (lambda d: edit_config(d, is_decoder=True), "an encoder of the BERT family is needed"),
    "more labels than the head has": (
        lambda d: edit_config(d, id2label={0: "a", 1: "b", 2: "c"}),
        "no fine-tuned classification head",
    ),
    "other sizes": (
        lambda d: edit_config(d, vocab_size=VOCABULARY + 3),
        f"word_embeddings.weight is ({VOCABULARY}, 16) in the file, ({VOCABULARY + 3}, 16) by the config",
    ),
    "one layer too few in config": (
        lambda d: edit_config(d, num_hidden_layers=1),
        "bert.encoder.layer.1.attention.output.LayerNorm.bias is in the file and not in this model",
    ),
    "missing tensor": (drop_tensor, "bert.encoder.layer.1.output.dense.weight is missing"),
    "config of another kind": (lambda d: (d / "config.json").write_text("[]"), "an object is needed, got list"),
    "no model_type": (
        lambda d: drop_from_config(d, "model_type"),
        'lacks model_type, the kind of its network; add "model_type": "bert" to it',
    ),
    "no model_type or architecture": (
        lambda d: drop_from_config(d, "model_type", "architectures"),
        'add it, for example "model_type": "bert" for a BERT',
    ),
    **{
        f"architectures {value!r} and no model_type": (
            partial(set_architectures, value),
            'add it, for example "model_type": "bert" for a BERT',
        )
        for value in ("BertForSequenceClassification", 3, {"0": "BertModel"}, [["BertModel"]])
    },
    **{
        f"weights in {name}, pickled {pickled}": (
            partial(store_as, dtype, pickled),
            f"quantised already or no weights (bert.encoder.layer.1.output.dense.weight is stored as {name})",
        )
        for name, dtype in (("int8", torch.int8), ("float8_e4m3fn", torch.float8_e4m3fn), ("bool", torch.bool))
        for pickled in (False, True)
    },
    "torchao's codes": (
        lambda d: edit_config(d, quantization_config=TORCHAO),
        "its weights are quantised already (quantization_config in its config.json, method 'torchao')",
    ),
    "other codes": (lambda d: edit_config(d, quantization_config=[4]), "quantised already"),
    "DataParallel": (lambda d: rename_weights(d, "module."), "its names begin with 'module.', which a wrapper"),
    "a class of one's own": (lambda d: rename_weights(d, "model."), "its names begin with 'model.', which a wrapper"),
    "another kind's names": (
        lambda d: rename_weights(d, "x"),
        "has none of the encoder's 39 tensors, but xbert.",
    ),
    **{
        f"longest input {limit}": (
            partial(limit_input, limit),
            f"sentences need more than 2 tokens (so many are special), but model_max_length in tokenizer_config.json "
            f"is {limit} and max_position_embeddings in config.json {MAX_TOKENS}",
        )
        for limit in (0, 1, 2, -1, "long")
    },
}


@pytest.mark.parametrize(("labels", "predicts"), [(1, "a number"), (2, "2 classes"), (3, "3 classes")])
def test_any_number_of_labels_is_loaded(tmp_path: Path, labels: int, predicts: str) -> None:
    classifier = load_classifier(str(make_tiny_bert(tmp_path / "model", labels=labels)))
    assert head_of(classifier.model).description == predicts


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_directory_is_refused_in_one_line(damage: str, tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "model"))
    change, expected = DAMAGES[damage]
    change(directory)
    assert expected in refusal(directory)


def test_a_packed_checkpoint_is_no_model_to_start_from(tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "packed"))
    (directory / "model.safetensors").rename(directory / "packed.safetensors")
    (directory / "bitfront.json").write_text("{}")
    assert "quantised already (a packed checkpoint of bitfront export)" in refusal(directory)


def test_all_missing_files_are_named_together(tiny: Path, tmp_path: Path) -> None:
    shutil.copy(tiny / "config.json", tmp_path)
    with pytest.raises(InputError, match=r"2 faults\n  - no weights.*\n  - no tokenizer"):
        load_classifier(str(tmp_path))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_is_refused_though_no_sentence_shows_it(
    tiny: Path, tmp_path: Path, value: float
) -> None:
    directory = shutil.copytree(tiny, tmp_path / "tiny")
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    name = "bert.embeddings.position_embeddings.weight"
    weights[name][-1, 0] = value
    safetensors.torch.save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    assert f"not finite ({name})" in refusal(directory)


def test_short_memory_is_not_the_models_fault(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", short)
    with pytest.raises(RuntimeError, match="allocate memory"):
        load_classifier(str(tiny))


def test_a_decoder_is_refused_by_its_type(tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "model"))
    (directory / "config.json").write_text('{"model_type": "gpt2"}')
    assert "got 'gpt2'" in refusal(directory)


class Intruder:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_pickled_checkpoint_is_not_run(save: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "model", older_files=True)
    save({"bert.pooler.dense.bias": Intruder(tmp_path / "intruded")}, directory / "pytorch_model.bin")
    assert "the file is more than tensors, as torch.save writes whole models: " in refusal(directory)
    assert not (tmp_path / "intruded").exists()
    pickle.loads(pickle.dumps(Intruder(tmp_path / "intruded")))  # the proof that it would have
    assert (tmp_path / "intruded").exists()


def test_a_whole_pickled_module_is_refused_with_its_reason(tiny: Path, tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "model", older_files=True)
    torch.save(load_classifier(str(tiny)).model, directory / "pytorch_model.bin")
    message = refusal(directory)
    assert "it has the Python object transformers.models.bert.modeling_bert.BertForSequenceClassification" in message
    assert "save it with save_pretrained" in message
    assert "\x1b" not in message


def test_a_state_dict_within_another_is_named(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "model", older_files=True)
    weights = torch.load(directory / "pytorch_model.bin", weights_only=True)
    torch.save({"state_dict": weights, "epoch": 3}, directory / "pytorch_model.bin")
    assert "but epoch, state_dict; save the model's own state_dict" in refusal(directory)


def test_constants_that_older_versions_saved_do_no_harm(tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "older"))
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    for name in ("embeddings.position_ids", "encoder.layer.0.attention.self.rotary.inv_freq"):
        weights[f"bert.{name}"] = torch.zeros(3)
    safetensors.torch.save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(logits(load_classifier(str(directory))), logits(load_classifier(str(tiny))))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_pointer_of_git_lfs_is_named_in_place_of_any_file(name: str, tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "pointer"))
    (directory / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 231508\n")
    assert f"Git LFS pointer: {name}; run `git lfs pull` in {directory}" in refusal(directory)


def test_a_pointer_in_place_of_a_file_that_is_not_read_does_no_harm(tiny: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny, tmp_path / "pointer"))
    for name in ("pytorch_model.bin", "tf_model.h5"):
        (directory / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n")
    load_classifier(str(directory))


def test_a_model_without_head_is_sent_to_finetune(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "base", head=False)
    message = refusal(directory)
    assert "has no fine-tuned classification head (its files lack classifier.bias, classifier.weight)" in message
    assert f"run bitfront finetune --model {directory}" in message


def test_a_base_gets_a_new_head_from_the_global_seed(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "base", head=False)
    saved = safetensors.torch.load_file(directory / "model.safetensors")

    def load(seed: int) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return load_base(str(directory)).model.state_dict()

    first, again, other = load(1), load(1), load(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    encoder = [name for name in saved if name.startswith("bert.")]
    assert len(encoder) > 20
    assert all(torch.equal(saved[name], first[name]) for name in encoder)


def test_a_base_is_named_after_colas_labels_and_can_learn(tmp_path: Path) -> None:
    base = load_base(str(make_tiny_bert(tmp_path / "base", labels=3)))
    assert base.model.config.id2label == {0: "unacceptable", 1: "acceptable"}
    assert base.model.config.num_labels == 2
    assert logits(base).shape == (1, 2)
    assert all(parameter.requires_grad for parameter in base.model.parameters())


def test_a_base_keeps_its_head_only_for_what_it_predicts(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "base")
    own = safetensors.torch.load_file(directory / "model.safetensors")["classifier.weight"]
    said: list[str] = []

    def weight(names: tuple[str, ...], kind: HeadKind) -> torch.Tensor:
        return load_base(str(directory), names, kind, said.append).model.get_parameter("classifier.weight")

    assert torch.equal(weight(("LABEL_0", "LABEL_1"), "classes"), own)
    assert said.pop() == f"{directory}: its encoder, with its own head for 2 classes"
    for names, kind in ((("no", "yes"), "classes"), (("LABEL_0", "LABEL_1"), "labels"), (("a", "b"), "numbers")):
        new = weight(names, cast(HeadKind, kind))
        assert new.shape == own.shape and not torch.equal(new, own)
        assert "with a new head" in said.pop()


def test_a_base_with_a_hole_in_its_encoder_is_refused(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "base", head=False)
    drop_tensor(directory)
    assert "bert.encoder.layer.1.output.dense.weight is missing" in refusal(directory, load_base)


def test_a_base_needs_an_embedding_of_its_padding(tmp_path: Path) -> None:
    directory = make_tiny_bert(tmp_path / "base", head=False)
    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(directory)
        tokenizer.add_special_tokens({"pad_token": "<new>"})
        tokenizer.save_pretrained(directory)
    message = refusal(directory, load_base)
    assert f"the tokenizer's padding token '<new>' has none of the {VOCABULARY} embeddings" in message


def terminal_settings() -> tuple[Any, ...]:
    return (
        transformers_logging.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
        [logging.getLogger(name).level for name in ("transformers", "huggingface_hub", "datasets")],
    )


@pytest.mark.parametrize("bars", [True, False])
def test_loading_prints_nothing_and_restores_the_libraries(
    bars: bool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transformers_logging, "_tqdm_active", bars)
    monkeypatch.setitem(progress_bar_states, "_global", bars)  # the hub's
    before = terminal_settings()
    load_classifier(str(tiny))
    refusal(make_tiny_bert(tmp_path / "base", head=False))
    assert terminal_settings() == before
    assert capfd.readouterr() == ("", "")


def test_without_being_quiet_the_library_does_print(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    BertForSequenceClassification.from_pretrained(tiny, config=BertConfig.from_pretrained(tiny))
    assert "Loading weights" in capfd.readouterr().err
