"""The graph of a sentence classifier: BERT and its kin as ``objectives.evaluation`` has them, for padded batches.

Hidden states are matrices ``(tokens, hidden)`` with all tokens of a batch in turn; only attention sees sentences. The
last encoder layer computes the first token of each sentence alone, which is all that the head reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from objectives.errors import InputError
from objectives.evaluation.architectures import Architecture, architecture_of
from objectives.layers import Layer
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import Classifier
from results.export.onnx.coded import Place
from results.export.onnx.fragments import Fragment, Stored, Values
from results.export.onnx.layers import fp32_layer

TensorOf = Callable[[str], Values]
"""Returns the value of a tensor of the model's state dict by its name."""

_LOWEST = float(np.finfo(np.float32).min)
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_fast": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}
"""The operator of each activation function, by its name in configs or in torch, and its attributes."""


class Network:
    """The graph of a classifier, in which places stand for layers whose nodes depend on their widths.

    Attributes:
        name: the class of the model.
        inputs: the names of the inputs, each int64 ``(batch, length)``.
        n_logits: the columns of the output, ``logits``.
        steps: in the order of computation, fragments and the places of searchable layers.
    """

    def __init__(self, classifier: Classifier, tensor_of: TensorOf) -> None:
        """Build the graph.

        Args:
            classifier: the model, for its config and the shapes of its modules.
            tensor_of: the values of all but searchable layers.

        Raises:
            InputError: only ``transformers`` computes this architecture.
        """
        self._model = classifier.model
        self._tensor_of = tensor_of
        self.name = type(self._model).__name__
        self.n_logits = len(classifier.label_names)
        self._layers = {layer.name: layer for layer in find_layers(self._model)}
        self._fragment = Fragment()
        self.steps: list[Fragment | Place] = [self._fragment]
        self.inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if classifier.takes_types else [])]
        architecture = architecture_of(self._model, _ACTIVATIONS)
        if architecture is None:
            raise InputError(
                f"--format onnx: {self.name} with its config cannot be exported, only BERT, RoBERTa, XLM-R, CamemBERT, "
                f"DistilBERT and ELECTRA with absolute positions and one of {', '.join(_ACTIVATIONS)}; export "
                "--format packed"
            )
        self._build(architecture)

    @property
    def places(self) -> dict[str, Place]:
        """The places of searchable layers, by the layer's name."""
        return {step.layer.name: step for step in self.steps if isinstance(step, Place)}

    def _build(self, architecture: Architecture) -> None:
        base = str(self._model.base_model_prefix)
        config: Any = self._model.config
        encoder = f"{base}.{architecture.layers}"
        n_layers = len(list(self._model.get_submodule(encoder).children()))
        self._n_heads = int(config.num_attention_heads)
        hidden = self._columns(f"{encoder}.0.{architecture.query}")
        self._head_size = hidden // self._n_heads
        activation = str(getattr(config, "activation", None) or config.hidden_act)

        shape = self._node("Shape", ["input_ids"], "shape")
        self._split = self._node(
            "Concat", [shape, self._sizes("heads", self._n_heads, self._head_size)], "split", axis=0
        )
        self._by_sentence = self._node("Concat", [shape, self._sizes("hidden", hidden)], "by_sentence", axis=0)
        self._first_split = self._sizes("first_split", -1, 1, self._n_heads, self._head_size)
        self._rows = self._sizes("rows", -1, hidden)
        self._flat = self._sizes("flat", -1)
        self._scale = self._scalar("attention.scale", self._head_size**-0.5)
        self._first = self._constant("first", np.array(0))
        self._mask = self._attention_mask()

        x = self._embed(f"{base}.embeddings", shape)
        if hasattr(self._model.get_submodule(base), "embeddings_project"):  # ELECTRA, if its embeddings are narrower
            x = self._linear(f"{base}.embeddings_project", x)
        for number in range(n_layers):
            x = self._encoder_layer(architecture, f"{encoder}.{number}", x, activation, last=number == n_layers - 1)
        x = self._linear(architecture.dense, x)
        x = self._activated(architecture.activation.__name__, x, f"{architecture.dense}.activation")
        self._linear(architecture.classifier, x, "logits")

    def _attention_mask(self) -> str:
        """Return what attention adds to its scores: 0 for tokens, the lowest number for padding."""
        mask = self._node("Cast", ["attention_mask"], "mask.float", to=1)
        padding = self._node("Sub", [self._scalar("one", 1.0), mask], "mask.padding")
        lowest = self._node("Mul", [padding, self._scalar("lowest", _LOWEST)], "mask.lowest")
        return self._node("Unsqueeze", [lowest, self._constant("mask.axes", np.array([1, 2]))], "mask")

    def _embed(self, name: str, shape: str) -> str:
        """Return the embedded tokens, ``(tokens, columns)``."""
        embeddings = self._model.get_submodule(name)
        words, positions, types = (f"{name}.{kind}_embeddings" for kind in ("word", "position", "token_type"))
        tokens = self._node("Reshape", ["input_ids", self._flat], "tokens")
        total = self._embedding(words, tokens)
        if hasattr(embeddings, "token_type_embeddings"):
            index = (
                self._node("Reshape", ["token_type_ids", self._flat], "types")
                if "token_type_ids" in self.inputs
                else self._sizes("type", 0)  # one row for all tokens
            )
            total = self._node("Add", [total, self._embedding(types, index)], f"{name}.words_and_types")
        padding: Any = self._model.get_submodule(positions).padding_idx
        if padding is None:
            # Each position's row is decoded once, and added to all sentences.
            columns = self._sizes(f"{name}.columns", self._columns(positions))
            sentences = self._node("Concat", [shape, columns], f"{name}.by_sentence", axis=0)
            total = self._node("Reshape", [total, sentences], f"{name}.sentences")
            length = self._node("Gather", [shape, self._constant("one_index", np.array(1))], "length")
            step = self._constant("step", np.array(1))
            index = self._node("Range", [self._first, length, step], "positions")
        else:
            index = self._counted_positions(int(padding))
        total = self._node("Add", [total, self._embedding(positions, index)], f"{name}.sum")
        normed = self._norm(f"{name}.LayerNorm", total)
        return self._node("Reshape", [normed, self._sizes(f"{name}.rows", -1, self._columns(words))], name)

    def _counted_positions(self, padding: int) -> str:
        """Return positions as RoBERTa counts them, from the padding token's, ``(tokens,)``."""
        token = self._constant("padding", np.array(padding))
        is_padding = self._node("Equal", ["input_ids", token], "is_padding")
        counts = self._node("Cast", [self._node("Not", [is_padding], "is_token")], "counted", to=7)
        numbers = self._node("CumSum", [counts, self._constant("sentence.axis", np.array(1))], "numbers")
        numbers = self._node("Mul", [numbers, counts], "token_numbers")
        numbers = self._node("Add", [numbers, token], "positions")
        return self._node("Reshape", [numbers, self._flat], "flat_positions")

    def _encoder_layer(self, architecture: Architecture, name: str, x: str, activation: str, last: bool) -> str:
        """Return the hidden states above an encoder layer; above the last, of first tokens only."""
        asking = self._first_tokens(x) if last else x
        query = self._linear(f"{name}.{architecture.query}", asking)
        query = self._node("Mul", [query, self._scale], f"{name}.query.scaled")
        query = self._by_head(query, f"{name}.query", [0, 2, 1, 3], first_only=last)
        key = self._by_head(self._linear(f"{name}.{architecture.key}", x), f"{name}.key", [0, 2, 3, 1])
        value = self._by_head(self._linear(f"{name}.{architecture.value}", x), f"{name}.value", [0, 2, 1, 3])
        scores = self._node("MatMul", [query, key], f"{name}.scores")
        scores = self._node("Add", [scores, self._mask], f"{name}.scores.masked")
        shares = self._node("Softmax", [scores], f"{name}.shares", axis=-1)
        mixed = self._node("MatMul", [shares, value], f"{name}.mixed")
        mixed = self._node("Transpose", [mixed], f"{name}.mixed.by_token", perm=[0, 2, 1, 3])
        mixed = self._node("Reshape", [mixed, self._rows], f"{name}.attended")
        mixed = self._linear(f"{name}.{architecture.attention_output}", mixed)
        mixed = self._node("Add", [mixed, asking], f"{name}.attended.sum")
        mixed = self._norm(f"{name}.{architecture.attention_norm}", mixed)
        inner = self._linear(f"{name}.{architecture.intermediate}", mixed)
        inner = self._activated(activation, inner, f"{name}.activation")
        output = self._linear(f"{name}.{architecture.output}", inner)
        output = self._node("Add", [output, mixed], f"{name}.sum")
        return self._norm(f"{name}.{architecture.output_norm}", output)

    def _first_tokens(self, x: str) -> str:
        sentences = self._node("Reshape", [x, self._by_sentence], "sentences")
        return self._node("Gather", [sentences, self._first], "first_tokens", axis=1)

    def _by_head(self, x: str, name: str, order: list[int], first_only: bool = False) -> str:
        split = self._node("Reshape", [x, self._first_split if first_only else self._split], f"{name}.split")
        return self._node("Transpose", [split], f"{name}.by_head", perm=order)

    def _activated(self, function: str, x: str, name: str) -> str:
        operator, attributes = _ACTIVATIONS[function]
        return self._node(operator, [x], name, **attributes)

    def _norm(self, name: str, x: str) -> str:
        module: Any = self._model.get_submodule(name)
        parts = [self._kept(f"{name}.weight"), self._kept(f"{name}.bias")]
        return self._node("LayerNormalization", [x, *parts], name, epsilon=float(module.eps))

    def _embedding(self, name: str, index: str) -> str:
        return self._place(Place(self._layers[name], index, name))

    def _linear(self, name: str, x: str, output: str = "") -> str:
        module: Any = self._model.get_submodule(name)
        bias = "" if module.bias is None else self._kept(f"{name}.bias")
        rows, columns = module.weight.shape
        layer = Layer(name, "linear", rows, columns)
        return self._place(Place(layer, x, output or name, bias))

    def _place(self, place: Place) -> str:
        if place.layer.name in self._layers:
            self._fragment = Fragment()
            self.steps += [place, self._fragment]
        else:
            fragment = fp32_layer(place, lambda: self._tensor_of(place.layer.parameter))
            self._fragment.nodes.extend(fragment.nodes)
            self._fragment.tensors.extend(fragment.tensors)
        return place.output

    def _columns(self, name: str) -> int:
        return int(self._model.get_parameter(f"{name}.weight").shape[1])

    def _node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        return self._fragment.node(operator, inputs, name, **attributes)

    def _constant(self, name: str, values: Values) -> str:
        return self._fragment.constant(name, values)

    def _scalar(self, name: str, value: float) -> str:
        return self._fragment.scalar(name, value)

    def _sizes(self, name: str, *sizes: int) -> str:
        return self._constant(name, np.array(sizes))

    def _kept(self, name: str) -> str:
        shape = tuple(self._model.get_parameter(name).shape)
        self._fragment.tensors.append(Stored(name, "float32", shape, lambda: self._tensor_of(name)))
        return name
