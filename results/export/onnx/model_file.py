"""An ONNX model as a protocol buffer, and its exact size from shapes alone."""

from __future__ import annotations

from collections.abc import Callable

from onnx import GraphProto, ModelProto, TensorProto, helper

from objectives.layers import WIDTHS, BitMap, Layer, uniform
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import Classifier
from objectives.packing.onnx_size import OnnxSizes
from objectives.packing.scheme import Scheme
from results.export.onnx import Activations
from results.export.onnx.fragments import Fragment, Values, empty_model
from results.export.onnx.graph import Network
from results.export.onnx.layers import Place, check_scheme, fp32_layer, quantized_layer


def metadata_of(layers: tuple[Layer, ...], bit_map: BitMap, scheme: Scheme, activations: Activations) -> dict[str, str]:
    """Return what a file says of itself; its length does not depend on the widths, a digit each."""
    return {
        "bitfront.format": scheme.format,
        "bitfront.layers": " ".join(layer.name for layer in layers),
        "bitfront.bits": " ".join(map(str, bit_map)),
        "bitfront.activations": activations,
    }


def model_of(network: Network, fragment_of: Callable[[Place], Fragment], metadata: dict[str, str]) -> ModelProto:
    """Return the model, with what a function returns in each place of a searchable layer."""
    model = _without_graph(metadata)
    model.graph.CopyFrom(_empty_graph(network))
    for step in network.steps:
        fragment = fragment_of(step) if isinstance(step, Place) else step
        model.graph.node.extend(fragment.nodes)
        model.graph.initializer.extend(tensor.proto() for tensor in fragment.tensors)
    return model


def onnx_sizes(classifier: Classifier, scheme: Scheme, activations: Activations = "fp32") -> OnnxSizes:
    """Return the exact sizes of a model's ONNX files at every bit map, without writing one.

    Args:
        classifier: the FP32 model, for its config and shapes; its weights are not read.
        scheme: which parameters decode the codes.
        activations: what linear layers multiply; the files of both differ a little.

    Raises:
        InputError: ONNX runtimes cannot express the model or the scheme.
    """
    layers = find_layers(classifier.model)
    check_scheme(layers, scheme)
    network = Network(classifier, _no_values)
    places = network.places
    layer_bytes = tuple(
        tuple(quantized_layer(places[layer.name], width, scheme, activations).size_bytes for width in WIDTHS)
        for layer in layers
    )
    fp32_bytes = sum(fp32_layer(place, _no_values).size_bytes for place in places.values())
    graph_bytes = len(_empty_graph(network).SerializeToString()) + sum(
        step.size_bytes for step in network.steps if isinstance(step, Fragment)
    )
    metadata = metadata_of(layers, uniform(layers, WIDTHS[0]), scheme, activations)
    return OnnxSizes(
        layer_bytes,
        graph_bytes,
        other_bytes=_other_bytes(metadata),
        fp32_bytes=OnnxSizes((), graph_bytes + fp32_bytes, _other_bytes({}), 0).file_bytes(()),
    )


def _no_values(_: str = "") -> Values:
    raise AssertionError("sizes depend on shapes alone")


def _other_bytes(metadata: dict[str, str]) -> int:
    return len(_without_graph(metadata).SerializeToString()) + 1  # the tag of the graph


def _without_graph(metadata: dict[str, str]) -> ModelProto:
    model = empty_model()
    helper.set_model_props(model, metadata)
    return model


def _empty_graph(network: Network) -> GraphProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in network.inputs]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", network.n_logits])
    return helper.make_graph([], network.name, inputs, [output])
