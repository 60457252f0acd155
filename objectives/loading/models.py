"""Load and check fine-tuned classifiers from a local directory or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from objectives.errors import InputError, all_faults, is_out_of_memory
from objectives.loading.hub import first_line, hub_snapshot, local_directory, quiet_libraries

LABEL_NAMES = {0: "unacceptable", 1: "acceptable"}

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_NOT_WEIGHTS = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *_VOCABULARIES,
)
# Each pair of patterns matches the single file or the index, and the shards.
_SAFETENSORS = ("model.safetensors*", "model-*.safetensors")
_PICKLED = ("pytorch_model.bin*", "pytorch_model-*.bin")
_LOCAL_MODEL = "name a local model directory with --model DIR"


@dataclass(frozen=True)
class Classifier:
    """A two-class sentence classifier in FP32 and eval mode, with its tokenizer; class 1 is "acceptable".

    ``source`` is the directory or hub name that it was loaded from.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    source: str

    @property
    def max_tokens(self) -> int:
        """The longest input in tokens, including special tokens."""
        limit = int(getattr(self.model.config, "max_position_embeddings", self.tokenizer.model_max_length))
        for name, module in self.model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                # RoBERTa's positions start after the padding index, which leaves fewer of them.
                unused = 0 if module.padding_idx is None else module.padding_idx + 1
                limit = min(limit, module.num_embeddings - unused)
        return min(limit, int(self.tokenizer.model_max_length))


def load_classifier(source: str) -> Classifier:
    """Load a fine-tuned two-class classifier of the BERT family, with gradients off.

    Args:
        source: a ``transformers`` model directory, or the name of a model on the Hugging Face hub.

    Raises:
        InputError: there is no such directory, or it lacks config, weights or tokenizer.
        InputError: the hub cannot be reached, lacks the model, or requires a login.
        InputError: a file cannot be read, or its tensors do not match the config.
        InputError: the model is no encoder of the BERT family, has no fine-tuned head, or not exactly two labels.
        InputError: the tokenizer has more tokens than the model has embeddings.
        InputError: a weight is not finite.
    """
    directory = model_directory(source)
    with quiet_libraries():
        config = _load_config(directory, source)
        names = {int(label): str(name) for label, name in (config.id2label or {}).items()}
        if len(names) != 2:
            raise InputError(
                f"model {source}: a classifier with two labels is needed (0 unacceptable, 1 acceptable), got "
                f"{len(names)} labels; choose a model that was fine-tuned on CoLA"
            )
        if names.get(0, "").lower() == LABEL_NAMES[1]:
            raise InputError(
                f"model {source}: label 1 must mean acceptable, but its config calls label 0 {names[0]!r}; choose a "
                "model that was fine-tuned on CoLA's labels"
            )
        model, faulty = _load_model(directory, config, source)
        head, pooler, encoder = _split_by_part(model, faulty)
        if head and not encoder:
            raise InputError(
                f"model {source} has no fine-tuned classification head (its files lack {', '.join(sorted(head))}); run "
                f"bitfront finetune --model {source} --out DIR and use DIR"
            )
        if pooler or encoder:
            raise _tensor_error(source, pooler | encoder, faulty)
        tokenizer = _load_tokenizer(directory, model, source)
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:  # such values can sit in rows that no sentence uses
        raise InputError(
            f"model {source}: {len(broken)} of its tensors have values that are not finite ({', '.join(broken[:3])}); "
            "its weights are damaged, download or save the model again"
        )
    return Classifier(model.requires_grad_(False), tokenizer, source)


def load_base(source: str) -> Classifier:
    """Load an encoder of the BERT family for fine-tuning, as ``load_classifier`` but with a new head if it has none.

    A new head is drawn from torch's global random generator. Gradients are on.

    Raises:
        InputError: as ``load_classifier``, except for the head and the number of labels.
    """
    directory = model_directory(source)
    with quiet_libraries():
        config = _load_config(directory, source)
        config.id2label = dict(LABEL_NAMES)
        config.label2id = {name: label for label, name in LABEL_NAMES.items()}
        config.problem_type = "single_label_classification"
        model, faulty = _load_model(directory, config, source)
        _, _, encoder = _split_by_part(model, faulty)  # masked language models are saved without a pooler too
        if encoder:
            raise _tensor_error(source, encoder, faulty)
        tokenizer = _load_tokenizer(directory, model, source)
    return Classifier(model, tokenizer, source)


def save_all_but_weights(classifier: Classifier, directory: Path) -> None:
    """Write the config and the tokenizer of a classifier into a directory."""
    with quiet_libraries():
        classifier.model.config.save_pretrained(directory)
        classifier.tokenizer.save_pretrained(directory)


def empty_classifier(directory: Path) -> Classifier:
    """Return a classifier with a directory's config and tokenizer, and weights for the caller to fill in.

    Raises:
        InputError: the config or the tokenizer cannot be read.
    """
    source = str(directory)
    with quiet_libraries():
        config = _load_config(directory, source)
        # Without random weights, which would fill all of the model's memory before the first real one is there.
        with _as_input_error(source, "config.json"), no_init_weights():
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        tokenizer = _load_tokenizer(directory, model, source)
    return Classifier(model.eval().requires_grad_(False), tokenizer, source)


def model_directory(source: str) -> Path:
    """Return the directory of a model's files: ``source`` itself, or the hub's snapshot in the local cache.

    Raises:
        InputError: there is no such directory or hub model, or a needed file is missing from it.
    """
    directory = local_directory(source, "model")
    if directory is None:
        directory = hub_snapshot(source, "model", _NOT_WEIGHTS + _SAFETENSORS, _LOCAL_MODEL)
        if not any(directory.glob("model*safetensors*")):  # older models have pickled weights only
            directory = hub_snapshot(source, "model", _NOT_WEIGHTS + _PICKLED, _LOCAL_MODEL)
    # The hub's client makes no directory if the repository has none of these files.
    files = [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []
    names = {path.name for path in files}
    if "config.json" not in names:
        raise InputError(f"model {source}: a model directory has a config.json, this one has none; {_LOCAL_MODEL}")
    faults = []
    if names.isdisjoint(_WEIGHTS):
        faults.append("no weights: model.safetensors or pytorch_model.bin is needed")
    # Without these files transformers silently makes a tokenizer with an empty vocabulary.
    if not any(path.match(pattern) for path in files for pattern in _VOCABULARIES):
        faults.append("no tokenizer: tokenizer.json or vocab.txt is needed; save the tokenizer beside the model")
    if faults:
        raise all_faults(f"model {source}", faults)
    return directory


def _load_config(directory: Path, source: str) -> PreTrainedConfig:
    with _as_input_error(source, "config.json"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    decodes = bool(getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False))
    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or decodes:
        raise InputError(
            f"model {source}: an encoder of the BERT family is needed (a masked language model in transformers, not a "
            f"decoder), got {config.model_type!r}; choose a BERT, RoBERTa, ELECTRA, ..."
        )
    return config


def _load_model(
    directory: Path, config: PreTrainedConfig, source: str
) -> tuple[PreTrainedModel, dict[str, str | None]]:
    """Return the model and its faulty tensors: name -> fault, None if the file lacks the tensor.

    ``ignore_mismatched_sizes`` leaves the comparison of sizes to this function, whose message names both.
    """
    with _as_input_error(source, "the weights"):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            directory,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    if not isinstance(model.get_input_embeddings(), nn.Embedding) or not any(
        isinstance(module, nn.Linear) for module in model.base_model.modules()
    ):
        raise InputError(
            f"model {source}: an encoder of token embeddings and linear layers is needed, {type(model).__name__} has "
            "others; choose a BERT, RoBERTa, ELECTRA, ..."
        )
    faulty: dict[str, str | None] = dict.fromkeys(info["missing_keys"])
    for name, shape, expected in info["mismatched_keys"]:
        faulty[name] = f"{name} is {tuple(shape)} in the file, {tuple(expected)} by the config"
    # Unexpected tensors of the head or the pooler do no harm; those of the encoder mean that the config is wrong.
    _, _, encoder = _split_by_part(model, info["unexpected_keys"])
    for name in encoder:
        if not name.endswith("_ids"):  # buffers that older versions saved
            faulty[name] = f"{name} is in the file and not in this model"
    return model, faulty


def _load_tokenizer(directory: Path, model: PreTrainedModel, source: str) -> PreTrainedTokenizerBase:
    with _as_input_error(source, "the tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        highest = max(tokenizer.get_vocab().values())
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    if highest >= embeddings.num_embeddings:
        raise InputError(
            f"model {source}: every token id needs an embedding, the tokenizer's go up to {highest} and the model has "
            f"{embeddings.num_embeddings} embeddings; use the tokenizer that the model was trained with"
        )
    return tokenizer


@contextmanager
def _as_input_error(source: str, part: str) -> Iterator[None]:
    # transformers, torch, safetensors and tokenizers raise a dozen types for broken files, including bare Exception.
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"model {source}: {part} cannot be read ({first_line(error)}); download or save the model again"
        ) from error


def _split_by_part(model: PreTrainedModel, names: Iterable[str]) -> tuple[set[str], set[str], set[str]]:
    """Return the names that belong to the classification head, to the pooler, and to the encoder."""
    body = {name for name in names if name.startswith(f"{model.base_model_prefix}.")}
    pooler = {name for name in body if "pooler" in name}
    return set(names) - body, pooler, body - pooler


def _tensor_error(source: str, names: Iterable[str], faulty: dict[str, str | None]) -> InputError:
    ordered = sorted(names)
    faults = [faulty[name] or f"{name} is missing" for name in ordered[:5]]
    if len(ordered) > len(faults):
        faults.append(f"and {len(ordered) - len(faults)} more")
    return InputError(
        f"model {source}: the weights must match config.json, {len(ordered)} tensors differ ({'; '.join(faults)}); "
        "save the model again, config and weights together"
    )
