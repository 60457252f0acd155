"""Fine-tuned classifiers: from a local directory or the Hugging Face hub, checked before anything is done with them."""

from __future__ import annotations

import glob
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import huggingface_hub
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from objectives.errors import InputError, all_faults

LABEL_NAMES = {0: "unacceptable", 1: "acceptable"}

# In the order of preference; safetensors cannot run code while it is read. An index names the shards of a split file.
_WEIGHTS = (
    ("model.safetensors", None),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin", None),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
_LOCAL_MODEL = "name a local model directory with --model DIR"


@dataclass(frozen=True)
class Classifier:
    """A two-class sentence classifier in FP32 and in eval mode, with its tokenizer; class 1 is "acceptable".

    ``source`` is what it was loaded by: a directory or a hub name.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    source: str

    @property
    def max_tokens(self) -> int:
        """The longest input in tokens, special ones included."""
        limit = int(self.model.config.max_position_embeddings)
        for name, module in self.model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                # RoBERTa counts its positions from after the padding index, and so has that many fewer.
                unused = 0 if module.padding_idx is None else module.padding_idx + 1
                limit = min(limit, module.num_embeddings - unused)
        return min(limit, int(self.tokenizer.model_max_length))


def load_classifier(source: str) -> Classifier:
    """Load a fine-tuned two-class classifier of the BERT family, without gradients.

    Args:
        source: a ``transformers`` model directory, or the name of a model on the Hugging Face hub.

    Raises:
        InputError: ``source`` is a path without a directory, or a directory without config, weights or tokenizer.
        InputError: the hub cannot be reached, has no such model, or keeps it behind a login.
        InputError: a file cannot be read, or its tensors are not those of the config.
        InputError: the model is no encoder of the BERT family, has no fine-tuned head, or not exactly two labels.
        InputError: the tokenizer has more tokens than the model has embeddings.
    """
    directory = model_directory(source)
    with quiet_libraries():
        config = _load_config(directory, source)
        names = {int(label): str(name) for label, name in (config.id2label or {}).items()}
        if len(names) != 2:
            raise InputError(
                f"model {source}: a classifier of exactly two labels is needed (0 unacceptable, 1 acceptable), this one"
                f" has {len(names)}; choose a model that was fine-tuned on CoLA"
            )
        if names.get(0, "").lower() == LABEL_NAMES[1]:
            raise InputError(
                f"model {source}: label 1 must mean acceptable, but its config calls label 0 {names[0]!r}; choose a "
                "model that was fine-tuned on CoLA's own labels"
            )
        model, absent = _load_model(directory, config, source)
        head, pooler, encoder = _split_by_part(model, absent)
        if head and not encoder:
            raise InputError(
                f"model {source} has no fine-tuned classification head (its files lack {', '.join(sorted(head))}); run "
                f"bitfront finetune --model {source} --out DIR and use DIR"
            )
        if pooler or encoder:
            raise _tensor_fault(source, pooler | encoder, absent)
        tokenizer = _load_tokenizer(directory, model, source)
    return Classifier(model.requires_grad_(False), tokenizer, source)


def load_base(source: str) -> Classifier:
    """Load an encoder of the BERT family to be fine-tuned: as ``load_classifier``, but a missing head is made anew.

    The new head is drawn from torch's global random generator, and gradients are on.

    Raises:
        InputError: as ``load_classifier``, except for the head and the number of labels.
    """
    directory = model_directory(source)
    with quiet_libraries():
        config = _load_config(directory, source)
        config.id2label = dict(LABEL_NAMES)
        config.label2id = {name: label for label, name in LABEL_NAMES.items()}
        config.problem_type = "single_label_classification"
        model, absent = _load_model(directory, config, source)
        _, _, encoder = _split_by_part(model, absent)  # masked language models are saved without a pooler too
        if encoder:
            raise _tensor_fault(source, encoder, absent)
        tokenizer = _load_tokenizer(directory, model, source)
    return Classifier(model, tokenizer, source)


def model_directory(source: str) -> Path:
    """Return the directory of a model's files: ``source`` itself, or the hub's snapshot in the local cache.

    Raises:
        InputError: there is no such directory or hub model, or a needed file is missing from it.
    """
    directory = local_directory(source, "model")
    if directory is None:
        directory = hub_snapshot(source, "model", _wanted_model_files, _LOCAL_MODEL)
    names = [path.name for path in directory.iterdir() if path.is_file()]
    if "config.json" not in names:
        raise InputError(f"model {source}: not a model directory, it has no config.json; {_LOCAL_MODEL}")
    faults = []
    if not any(name in names for name, _ in _WEIGHTS):
        faults.append("no weights: model.safetensors or pytorch_model.bin is needed")
    # Without these files transformers makes a tokenizer that knows no word, and says nothing.
    if not _matching(names, _VOCABULARIES):
        faults.append("no tokenizer: tokenizer.json or vocab.txt is needed; save the tokenizer beside the model")
    if faults:
        raise all_faults(f"model {source}", faults)
    return directory


def local_directory(source: str, what: str) -> Path | None:
    """Return ``source`` as a directory, or None where it can only be a name on the hub.

    Raises:
        InputError: it is empty, a file, or written as a path (``./x``, ``/a/b``, ``x/``) and no directory is there.
    """
    if not source.strip():
        raise InputError(f"{what} {source!r}: a directory or a hub name is needed, this is empty; name one")
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{what} {source}: a directory is needed, this is a file; name the directory it lies in")
    # A hub name is `name` or `owner/name`; whatever else has separators was meant as a path.
    if source.startswith(("/", ".", "~")) or source.endswith("/") or "\\" in source or source.count("/") > 1:
        raise InputError(f"{what} {source}: there is no such directory (looked for {path.absolute()}); check the path")
    return None


def hub_snapshot(
    name: str, kind: Literal["model", "dataset"], wanted: Callable[[Sequence[str]], list[str]], instead: str
) -> Path:
    """Return the folder of a hub repository in the local cache, after downloading what is wanted and not yet there.

    Offline (``HF_HUB_OFFLINE=1``), or where the hub does not answer, the cache is used as it is. Everything is fetched
    here and loaded from the folder, rather than by the libraries' own downloads: those retry a dead hub for half a
    minute a file, and ask the hub to convert ``pytorch_model.bin`` in a background thread.

    Args:
        name: ``owner/name`` or ``name``.
        kind: what sort of repository it is.
        wanted: picks the files to fetch from the names of all files.
        instead: what the user can do without the hub, for the error message.

    Raises:
        InputError: the hub cannot be reached and the cache has nothing, or a download breaks off.
        InputError: the hub has no such repository, or it is private or gated.
    """
    if huggingface_hub.is_offline_mode():
        cached = _cached_snapshot(name, kind)
        if cached is None:
            raise InputError(
                f"{kind} {name}: there is no directory of that name, HF_HUB_OFFLINE is set, and the cache "
                f"{constants.HF_HUB_CACHE} does not have it; unset HF_HUB_OFFLINE to download it, or {instead}"
            )
        return cached
    with _quiet_loggers():
        api, timeout_s = huggingface_hub.HfApi(), constants.HF_HUB_ETAG_TIMEOUT
        try:
            # Asked first because it is the one request with a time limit and without retries.
            info = (api.model_info if kind == "model" else api.dataset_info)(name, timeout=timeout_s)
        except Exception as error:
            cached = _cached_snapshot(name, kind) if _is_outage(error) else None
            if cached is None:
                raise _hub_fault(error, name, kind, instead) from error
            return cached
        files = wanted([sibling.rfilename for sibling in info.siblings or ()])
        # The bars are for somebody who waits minutes; for files that are there they would only flash by.
        present = all(
            isinstance(huggingface_hub.try_to_load_from_cache(name, file, revision=info.sha, repo_type=kind), str)
            for file in files
        )
        with nullcontext() if sys.stderr.isatty() and not present else _without_progress_bars():
            try:
                folder = huggingface_hub.snapshot_download(
                    name, repo_type=kind, allow_patterns=[glob.escape(file) for file in files]
                )
            except Exception as error:
                raise _hub_fault(error, name, kind, instead) from error
    return Path(folder)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the progress bars, log lines and warnings of the model libraries off the terminal, and restore them."""
    with warnings.catch_warnings(), _quiet_loggers(), _without_progress_bars():
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> str:
    """Return an exception as one line for a message: its type and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _load_config(directory: Path, source: str) -> PreTrainedConfig:
    with _as_input_error(source, "config.json"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    decodes = bool(getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False))
    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or decodes:
        raise InputError(
            f"model {source}: an encoder of the BERT family is needed (one that transformers can load as a masked "
            f"language model, and no decoder), this is {config.model_type!r}; choose a BERT, RoBERTa, ELECTRA, ..."
        )
    return config


def _load_model(
    directory: Path, config: PreTrainedConfig, source: str
) -> tuple[PreTrainedModel, dict[str, str | None]]:
    """Return the model and the tensors that did not come from its files: name -> what is wrong with its size, or None.

    Sizes are compared here (hence ``ignore_mismatched_sizes``), so that the message can name both of them.
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
            f"model {source}: an encoder of token embeddings and linear layers is needed, {type(model).__name__} is "
            "built of others; choose a BERT, RoBERTa, ELECTRA, ..."
        )
    absent: dict[str, str | None] = dict.fromkeys(info["missing_keys"])
    for name, found, expected in info["mismatched_keys"]:
        absent[name] = f"{name} is {tuple(found)} in the file, {tuple(expected)} by the config"
    return model, absent


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
            f"model {source}: the tokenizer's token ids must have embeddings, they go up to {highest} and the model "
            f"has {embeddings.num_embeddings} embeddings; use the tokenizer that the model was trained with"
        )
    return tokenizer


@contextmanager
def _as_input_error(source: str, part: str) -> Iterator[None]:
    # transformers, torch, safetensors and tokenizers raise a dozen types for broken files, some of them bare Exception.
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(
            f"model {source}: {part} cannot be read ({first_line(error)}); download or save the model again"
        ) from error


def _split_by_part(model: PreTrainedModel, names: Iterable[str]) -> tuple[set[str], set[str], set[str]]:
    """Return the names that belong to the classification head, to the pooler, and to the encoder."""
    body = {name for name in names if name.startswith(f"{model.base_model_prefix}.")}
    pooler = {name for name in body if "pooler" in name}
    return set(names) - body, pooler, body - pooler


def _tensor_fault(source: str, names: Iterable[str], absent: dict[str, str | None]) -> InputError:
    ordered = sorted(names)
    faults = [absent[name] or f"{name} is missing" for name in ordered[:5]]
    if len(ordered) > len(faults):
        faults.append(f"and {len(ordered) - len(faults)} more")
    return InputError(
        f"model {source}: the weights must be those of config.json, they differ in {len(ordered)} tensors "
        f"({'; '.join(faults)}); save the model again, config and weights together"
    )


def _wanted_model_files(names: Sequence[str]) -> list[str]:
    wanted = _matching(names, ("config.json", *_VOCABULARIES, *_TOKENIZER_EXTRAS))
    for weights, shards in _WEIGHTS:
        if weights in names:
            return [*wanted, weights, *(_matching(names, (shards,)) if shards else ())]
    return wanted


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    # A path with a folder in it never matches: the model's own files lie at the top.
    return [name for name in names if "/" not in name and any(Path(name).match(pattern) for pattern in patterns)]


def _cached_snapshot(name: str, kind: str) -> Path | None:
    try:
        # Patterns that every repository meets: which files are needed cannot be asked now, their readers will tell.
        return Path(
            huggingface_hub.snapshot_download(
                name, repo_type=kind, local_files_only=True, allow_patterns=["config.json"]
            )
        )
    except (OSError, ValueError):
        return None


def _is_outage(error: Exception) -> bool:
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500


def _hub_fault(error: BaseException, name: str, kind: str, instead: str) -> InputError:
    while not isinstance(error, HfHubHTTPError) and error.__cause__ is not None:
        error = error.__cause__  # the hub's client wraps what happened in "an error happened"
    hub, log_in = constants.ENDPOINT, "log in (`hf auth login`, or HF_TOKEN)"
    match error:
        case GatedRepoError():
            fault = f"its owner on {hub} gives it out only on request; accept the terms there and {log_in}"
        case RepositoryNotFoundError():
            fault = (
                f"there is no directory of that name, and {hub} has no such {kind}, or a private one; check the "
                f"spelling, {log_in}"
            )
        case HFValidationError():
            fault = f"neither a directory nor a hub name ({first_line(error)}); check the spelling"
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            fault = f"{hub} refused it with HTTP status {error.response.status_code}; {log_in}"
        case HfHubHTTPError():
            fault = f"{hub} answered with HTTP status {error.response.status_code}; try again later"
        case _:
            fault = (
                f"there is no directory of that name, and {hub} cannot be reached or broke off ({first_line(error)}); "
                "check the connection, set HF_HUB_OFFLINE=1 if the cache has it"
            )
    return InputError(f"{kind} {name}: {fault}, or {instead}")


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    # transformers' own functions switch the hub's bars too, but would forget what those were set to.
    transformers_bars, hub_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hub's client warns where HF_HUB_DISABLE_PROGRESS_BARS has the last word
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            if transformers_bars:
                transformers_logging.enable_progress_bar()
            (enable_progress_bars if hub_bars else disable_progress_bars)()
