"""Load the weights of a model, and name what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import load_state_dict

from objectives.errors import InputError
from objectives.loading.hub import library_faults

# Of torch.load's message, which advises to run the code in the file.
_PYTHON_OBJECT = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)")
_REASON = re.compile(r"WeightsUnpickler error:\s*(.+)")
_OLD_BUFFERS = ("_ids", "inv_freq")  # constants that older versions of transformers saved and newer ones compute
_NAMES_SHOWN = 3
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# As transformers looks for them: the first of these that is there is read, an index with all its parts.
_FILES = (
    ("model.safetensors", "model.safetensors"),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin"),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)


def load_weights(
    directory: Path, config: PreTrainedConfig, source: str
) -> tuple[PreTrainedModel, dict[str, str | None]]:
    """Return the model and its faulty tensors: name -> fault, None if the file lacks the tensor.

    ``ignore_mismatched_sizes`` leaves the comparison of sizes to this function, whose message names both.

    Raises:
        InputError: the file cannot be read or holds more than tensors.
        InputError: a parameter is stored as integers or in 8 bits, as codes of a quantiser are.
        InputError: the file has none of the model's tensors, or the model has other parts than linear layers.
    """
    with library_faults(f"model {source}", "the weights"):
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                directory,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except UnpicklingError as error:
            text = str(error)
            if found := _PYTHON_OBJECT.search(text):
                reason = f"it has the Python object {found[1]}"
            elif found := _REASON.search(text):
                reason = found[1]
            else:
                raise
            raise UnpicklingError(
                f"the file is more than tensors, as torch.save writes whole models: {reason}; such files can run code "
                "and are never loaded; if you trust it, load it elsewhere and save it with save_pretrained"
            ) from error
    if not isinstance(model.get_input_embeddings(), nn.Embedding) or not any(
        isinstance(module, nn.Linear) for module in model.base_model.modules()
    ):
        raise InputError(
            f"model {source}: an encoder of token embeddings and linear layers is needed, {type(model).__name__} has "
            "others; choose a BERT, RoBERTa, ELECTRA, ..."
        )
    with library_faults(f"model {source}", "the weights"):
        stored = _stored_types(directory)
    _refuse_codes(model, stored, source)
    _refuse_other_names(model, info["missing_keys"], info["unexpected_keys"], source)
    faulty: dict[str, str | None] = dict.fromkeys(info["missing_keys"])
    for name, shape, expected in info["mismatched_keys"]:
        faulty[name] = f"{name} is {tuple(shape)} in the file, {tuple(expected)} by the config"
    # Unexpected tensors of the head or the pooler do no harm; those of the encoder mean that the config is wrong.
    _, _, encoder = split_by_part(model, info["unexpected_keys"])
    for name in encoder:
        if not name.endswith(_OLD_BUFFERS):
            faulty[name] = f"{name} is in the file and not in this model"
    return model, faulty


def split_by_part(model: PreTrainedModel, names: Iterable[str]) -> tuple[set[str], set[str], set[str]]:
    """Return the names that belong to the classification head, to the pooler, and to the encoder."""
    body = {name for name in names if name.startswith(f"{model.base_model_prefix}.")}
    pooler = {name for name in body if "pooler" in name}
    return set(names) - body, pooler, body - pooler


def tensor_error(source: str, names: Iterable[str], faulty: dict[str, str | None]) -> InputError:
    """Return the error that lists the first faults of these tensors."""
    ordered = sorted(names)
    faults = [faulty[name] or f"{name} is missing" for name in ordered[:5]]
    if len(ordered) > len(faults):
        faults.append(f"and {len(ordered) - len(faults)} more")
    return InputError(
        f"model {source}: the weights must match config.json, {len(ordered)} tensors differ ({'; '.join(faults)}); "
        "save the model again, config and weights together"
    )


def _stored_types(directory: Path) -> dict[str, torch.dtype]:
    """Return the type of each tensor in a directory's weights, by name; no tensor is read."""
    pattern = next((parts for name, parts in _FILES if (directory / name).is_file()), "")
    return {
        name: tensor.dtype
        for path in (sorted(directory.glob(pattern)) if pattern else [])
        for name, tensor in load_state_dict(str(path), map_location="meta", weights_only=True).items()
        if isinstance(tensor, torch.Tensor)  # a checkpoint of a training loop has other things, and is refused for them
    }


def _refuse_codes(model: PreTrainedModel, stored: dict[str, torch.dtype], source: str) -> None:
    """Check that no parameter was converted from codes: without their scales, these are no weights."""
    prefix = f"{model.base_model_prefix}."
    parameters = {name.removeprefix(prefix) for name, _ in model.named_parameters()}
    for name, dtype in sorted(stored.items()):
        if dtype not in _FLOATS and name.removeprefix(prefix) in parameters:
            raise InputError(
                f"model {source}: its weights are quantised already or no weights ({name} is stored as "
                f"{str(dtype).removeprefix('torch.')}); name the model in floating point that it was made from"
            )


def _refuse_other_names(
    model: PreTrainedModel, missing: Collection[str], unexpected: Collection[str], source: str
) -> None:
    """Check that the file has at least one of the encoder's tensors by its name."""
    encoder = {name for name, _ in model.named_parameters() if name.startswith(f"{model.base_model_prefix}.")}
    if not encoder or not encoder <= {*missing}:
        return
    shown = ", ".join(sorted(unexpected)[:_NAMES_SHOWN]) + (", ..." if len(unexpected) > _NAMES_SHOWN else "")
    if prefix := _prefix(model, encoder, unexpected):
        remedy = (
            f"its names begin with {prefix!r}, which a wrapper (DataParallel, torch.compile, a class of your own) adds "
            "or another kind of network has; save the model inside the wrapper with save_pretrained, or correct "
            "model_type in config.json"
        )
    else:
        remedy = "save the model's own state_dict, or the model with save_pretrained"
    raise InputError(
        f"model {source}: the weights file has none of the encoder's {len(encoder)} tensors, but {shown or 'nothing'}; "
        f"{remedy}"
    )


def _prefix(model: PreTrainedModel, encoder: Collection[str], unexpected: Collection[str]) -> str | None:
    """Return what stands before one of the encoder's names in the file."""
    for inner in ("", f"{model.base_model_prefix}."):  # the longer name first
        name = max(encoder, key=len).removeprefix(inner)
        for other in sorted(unexpected):
            if other.endswith(f".{name}"):
                return other.removesuffix(name)
    return None
