"""ONNX exports of tiny models for tests, and how other runtimes compute them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from objectives.layers import WIDTHS, BitMap
from objectives.loading.layer_discovery import find_layers
from objectives.loading.models import Classifier
from objectives.packing.scheme import PER_ROW, Scheme
from objectives.quantization.bank import WeightBank
from objectives.quantization.quantized_model import QuantizedModel
from results.export.onnx_session import Batch, Logits

NODE_MODULES = os.environ.get("BITFRONT_NODE_MODULES", "")
"""A folder with npm's onnxruntime-web in it; `npm install onnxruntime-web` makes it."""

_PROGRAM = """
const ort = require("onnxruntime-web");
const { file, batches } = JSON.parse(require("fs").readFileSync(0, "utf8"));
ort.env.wasm.numThreads = 1;
(async () => {
  const session = await ort.InferenceSession.create(require("fs").readFileSync(file));
  const all = [];
  for (const batch of batches) {
    const feeds = {};
    for (const name of session.inputNames) {
      const rows = batch[name];
      feeds[name] = new ort.Tensor("int64", BigInt64Array.from(rows.flat().map(BigInt)), [rows.length, rows[0].length]);
    }
    all.push(Array.from((await session.run(feeds)).logits.data));
  }
  console.log(JSON.stringify(all));
})();
"""


def random_map(model: Any, seed: int) -> BitMap:
    """Return a bit map of a model with every width as likely."""
    rng = np.random.default_rng(seed)
    return tuple(int(width) for width in rng.choice(WIDTHS, size=len(find_layers(model))))


def quantized_by(model: Any, bit_map: BitMap, scheme: Scheme = PER_ROW) -> QuantizedModel:
    """Return a model rounded to a bit map."""
    return QuantizedModel.of(model, WeightBank(model, find_layers(model), scheme), bit_map)


def classifier_of(model: Any, tokenizer: PreTrainedTokenizerBase) -> Classifier:
    """Return a classifier of a model built in memory, beside a tokenizer that is only written."""
    return Classifier(model, tokenizer, "random")


def openvino_logits(file: Path, batch: Batch) -> Logits:
    """Return the logits of a batch by OpenVINO, without approximations of its own."""
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "INFERENCE_NUM_THREADS": "1"}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", exact)
    names = {name for given in compiled.inputs for name in given.names}
    logits: Logits = compiled({name: values for name, values in batch.items() if name in names})[0]
    return logits


def web_logits(file: Path, batches: list[Batch]) -> list[Logits]:
    """Return the logits of batches by onnxruntime-web in Node, compiled to WebAssembly."""
    given = {
        "file": str(file),
        "batches": [{name: values.tolist() for name, values in batch.items()} for batch in batches],
    }
    node = shutil.which("node")
    assert node is not None
    told = subprocess.run(
        [node, "-e", _PROGRAM],
        input=json.dumps(given),
        env=os.environ | {"NODE_PATH": NODE_MODULES},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    return [
        np.array(numbers, np.float32).reshape(len(batch["input_ids"]), -1)
        for numbers, batch in zip(json.loads(told.splitlines()[-1]), batches, strict=True)
    ]
