"""Load and check fine-tuned classifiers from a local directory or the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from objectives.errors import InputError, all_faults, quoted
from objectives.heads import PROBLEM_TYPES, HeadKind, head_of_config, head_of_kind
from objectives.loading.hub import (
    hub_snapshot,
    library_faults,
    local_directory,
    quiet_libraries,
    refuse_lfs_pointers,
)
from objectives.loading.tokenization import Text, TokenIds, Tokens, encode, load_tokenizer
from objectives.loading.weights import load_weights, split_by_part, tensor_error

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
_MANIFEST = "bitfront.json"  # of exported checkpoints
_CARD = ("README.md",)
_LOCAL_MODEL = "name a local model directory with --model DIR"


@dataclass(frozen=True)
class Classifier:
    """A sentence classifier or regressor in FP32 and eval mode, with its tokenizer.

    ``source`` is the directory or hub name that it was loaded from. Inputs are cut to ``max_length`` tokens; 0 for the
    model's own limit.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    source: str
    max_length: int = 0

    @property
    def max_tokens(self) -> int:
        """The longest input in tokens, including special tokens."""
        longest = self.tokenizer.model_max_length
        limit = getattr(self.model.config, "max_position_embeddings", longest)
        for name, module in self.model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                # RoBERTa's positions start after the padding index, which leaves fewer of them.
                unused = 0 if module.padding_idx is None else module.padding_idx + 1
                limit = min(limit, module.num_embeddings - unused)
        return int(min(limit, longest, self.max_length or limit))

    @property
    def n_embeddings(self) -> int:
        """The number of token embeddings."""
        embeddings = self.model.get_input_embeddings()
        assert isinstance(embeddings, nn.Embedding)
        return embeddings.num_embeddings

    @property
    def label_names(self) -> tuple[str, ...]:
        """The name of each label, in the order of the outputs."""
        return _label_names(self.model.config)

    @property
    def takes_types(self) -> bool:
        """Whether the model tells the texts of a pair apart by token types."""
        named = "token_type_ids" in signature(self.model.forward).parameters
        return named and (getattr(self.model.config, "type_vocab_size", None) or 0) > 1

    def encode(self, texts: Sequence[Text]) -> Tokens:
        """Return the tokens of texts or pairs, with special tokens, cut to ``max_tokens`` and without padding.

        Raises:
            InputError: the tokenizer fails at a sentence, or gives a token without an embedding.
            InputError: ``max_length`` leaves no room for a word.
        """
        try:
            return encode(self.tokenizer, texts, self.max_tokens, self.n_embeddings, self.takes_types)
        except InputError as error:
            raise InputError(f"model {self.source}: {error}") from error

    def tokenize(self, texts: Sequence[Text]) -> TokenIds:
        """Return the token ids of texts, as :meth:`encode`."""
        return self.encode(texts).ids


def load_classifier(source: str) -> Classifier:
    """Load a fine-tuned classifier or regressor of the BERT family, with gradients off.

    Args:
        source: a ``transformers`` model directory, or the name of a model on the Hugging Face hub.

    Raises:
        InputError: there is no such directory, or it lacks config, weights or tokenizer.
        InputError: the hub cannot be reached, lacks the model, or requires a login.
        InputError: a file cannot be read, or its tensors do not match the config.
        InputError: the model is quantised already or is no encoder of the BERT family.
        InputError: it has no fine-tuned head, or its config's problem type and number of labels do not fit.
        InputError: the longest input has no room for a word.
        InputError: a weight is not finite.
    """
    directory = model_directory(source)
    with quiet_libraries():
        config = _load_config(directory, source)
        try:
            head_of_config(config)
        except InputError as error:
            raise InputError(f"model {source}: {error}") from None
        model, faulty = load_weights(directory, config, source)
        head, pooler, encoder = split_by_part(model, faulty)
        if head and not encoder:
            raise InputError(
                f"model {source} has no fine-tuned classification head (its files lack {', '.join(sorted(head))}); run "
                f"bitfront finetune --model {quoted(source)} --out DIR and use DIR"
            )
        if pooler or encoder:
            raise tensor_error(source, pooler | encoder, faulty)
        classifier = _with_tokenizer(directory, model, source)
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:  # such values can sit in rows that no sentence uses
        raise InputError(
            f"model {source}: {len(broken)} of its tensors have values that are not finite ({', '.join(broken[:3])}); "
            "its weights are damaged, download or save the model again"
        )
    model.requires_grad_(False)
    return classifier


def load_base(
    source: str,
    label_names: Sequence[str] = tuple(LABEL_NAMES.values()),
    kind: HeadKind = "classes",
    report_progress: Callable[[str], None] = lambda _: None,
) -> Classifier:
    """Load an encoder of the BERT family for fine-tuning, as ``load_classifier``, but with a head to train.

    The model's own head is kept if it has the same classes or yes/no labels. Else the head is drawn from torch's global
    random generator; so is one of numbers, whose unit may be another. Gradients are on.

    Args:
        source: as for ``load_classifier``.
        label_names: a name for each class, yes/no label or number.
        kind: what the head is to predict.
        report_progress: called with a line on the head.

    Raises:
        InputError: as ``load_classifier``, except for the head and the number of labels.
    """
    directory = model_directory(source)
    with quiet_libraries():
        config = _load_config(directory, source)
        own = _label_names(config), config.problem_type or PROBLEM_TYPES["classes"]
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: label for label, name in enumerate(label_names)}
        config.problem_type = PROBLEM_TYPES[kind]  # type: ignore[assignment] # it is one of the names
        model, faulty = load_weights(directory, config, source)
        head, _, encoder = split_by_part(model, faulty)  # masked language models are saved without a pooler too
        if encoder:
            raise tensor_error(source, encoder, faulty)
        keeps = not head and kind != "numbers" and own == (tuple(label_names), PROBLEM_TYPES[kind])
        if not head and not keeps:
            _draw_head(model, config)
        predicts = head_of_kind(kind, len(label_names)).description
        report_progress(f"{source}: its encoder, with {'its own' if keeps else 'a new'} head for {predicts}")
        classifier = _with_tokenizer(directory, model, source)
    if not 0 <= _id_of_padding(classifier) < classifier.n_embeddings:
        raise InputError(
            f"model {source}: training pads sentences, and the tokenizer's padding token "
            f"{classifier.tokenizer.pad_token!r} has none of the {classifier.n_embeddings} embeddings; use the "
            "tokenizer that the model was trained with"
        )
    return classifier


def _draw_head(model: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Fill all that lies outside the encoder as in a new model."""
    drawn = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).state_dict()
    head, _, _ = split_by_part(model, drawn)
    model.load_state_dict({name: drawn[name] for name in head}, strict=False)


def _label_names(config: PreTrainedConfig) -> tuple[str, ...]:
    names = {int(label): str(name) for label, name in (config.id2label or {}).items()}
    return tuple(names[label] for label in sorted(names))


def _id_of_padding(classifier: Classifier) -> int:
    token = classifier.tokenizer.pad_token_id
    return -1 if token is None else int(token)


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
        with library_faults(f"model {source}", "config.json"), no_init_weights():
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        return _with_tokenizer(directory, model.eval().requires_grad_(False), source)


def model_directory(source: str) -> Path:
    """Return the directory of a model's files: ``source`` itself, or the hub's snapshot in the local cache.

    Raises:
        InputError: there is no such directory or hub model, or a needed file is missing from it.
    """
    directory = local_directory(source, "model")
    if directory is None:
        directory = hub_snapshot(source, "model", _NOT_WEIGHTS + _SAFETENSORS + _CARD, _LOCAL_MODEL)
        if not any(directory.glob("model*safetensors*")):  # older models have pickled weights only
            directory = hub_snapshot(source, "model", _NOT_WEIGHTS + _PICKLED, _LOCAL_MODEL)
    # The hub's client makes no directory if the repository has none of these files.
    files = [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []
    names = {path.name for path in files}
    if "config.json" not in names:
        raise InputError(f"model {source}: a model directory has a config.json, this one has none; {_LOCAL_MODEL}")
    # Those that are read; a directory may have others, of which nobody pulled the content.
    weights = _SAFETENSORS if any(path.match(_SAFETENSORS[0]) for path in files) else _PICKLED
    needed = [path for path in files if any(path.match(pattern) for pattern in (*_NOT_WEIGHTS, *weights))]
    refuse_lfs_pointers(f"model {source}", sorted(needed))
    faults = []
    if _MANIFEST in names and names.isdisjoint(_WEIGHTS):
        raise InputError(
            f"model {source}: its weights are quantised already (a packed checkpoint of bitfront export); name the "
            "model that it was made from, which its bitfront.json has"
        )
    if names.isdisjoint(_WEIGHTS):
        faults.append("no weights: model.safetensors or pytorch_model.bin is needed")
    # Without these files transformers silently makes a tokenizer with an empty vocabulary.
    if not any(path.match(pattern) for path in files for pattern in _VOCABULARIES):
        faults.append("no tokenizer: tokenizer.json or vocab.txt is needed; save the tokenizer beside the model")
    if faults:
        raise all_faults(f"model {source}", faults)
    return directory


def _load_config(directory: Path, source: str) -> PreTrainedConfig:
    with library_faults(f"model {source}", "config.json"):
        settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise TypeError(f"an object is needed, got {type(settings).__name__}")
    if "model_type" not in settings:
        named = settings.get("architectures")
        architecture = named[0] if isinstance(named, list) and named else None
        known = (*MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.items(), *MODEL_FOR_MASKED_LM_MAPPING_NAMES.items())
        kind = next((kind for kind, name in known if name == architecture), None)
        raise InputError(
            f"model {source}: its config.json lacks model_type, the kind of its network; add "
            + (f'"model_type": "{kind}" to it' if kind else 'it, for example "model_type": "bert" for a BERT')
        )
    if quantization := settings.get("quantization_config"):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else "unknown"
        raise InputError(
            f"model {source}: its weights are quantised already (quantization_config in its config.json, method "
            f"{method!r}); name the model in floating point that it was made from"
        )
    with library_faults(f"model {source}", "config.json"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    decodes = bool(getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False))
    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or decodes:
        raise InputError(
            f"model {source}: an encoder of the BERT family is needed (a masked language model in transformers, not a "
            f"decoder), got {config.model_type!r}; choose a BERT, RoBERTa, ELECTRA, ..."
        )
    return config


def _with_tokenizer(directory: Path, model: PreTrainedModel, source: str) -> Classifier:
    classifier = Classifier(model, load_tokenizer(directory, source), source)
    special = classifier.tokenizer.num_special_tokens_to_add()
    limit = classifier.tokenizer.model_max_length
    if not isinstance(limit, int | float) or classifier.max_tokens <= special:
        raise InputError(
            f"model {source}: sentences need more than {special} tokens (so many are special), but model_max_length in "
            f"tokenizer_config.json is {limit} and max_position_embeddings in config.json "
            f"{getattr(model.config, 'max_position_embeddings', 'not set')}; correct the one that is too low"
        )
    return classifier
