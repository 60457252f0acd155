"""Classify sentences with an ONNX export, without torch: python examples/serve_onnx.py DIR < sentences.txt.

It needs onnxruntime, tokenizers and numpy. A line is a sentence, or two with a tab between them.
"""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

BATCH = 32


def main() -> None:
    """Print what the model predicts for each line of the standard input."""
    directory = Path(sys.argv[1])
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(directory, config)
    session = InferenceSession(directory / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    lines = [line.strip() for line in sys.stdin if line.strip()]
    for start in range(0, len(lines), BATCH):
        batch = lines[start : start + BATCH]
        for line, logits in zip(batch, run(session, tokenizer, batch), strict=True):
            print(f"{prediction(config, logits)}  {line}")


def load_tokenizer(directory: Path, config: dict) -> Tokenizer:
    """Return the tokenizer, set to fill batches up and to cut what is too long for the model."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer.enable_padding(pad_id=config.get("pad_token_id") or 0)
    tokenizer.enable_truncation(int(min(settings["model_max_length"], config["max_position_embeddings"])))
    return tokenizer


def run(session: InferenceSession, tokenizer: Tokenizer, lines: list[str]) -> np.ndarray:
    """Return the logits of some lines, (n_lines, n_outputs)."""
    texts = [tuple(line.split("\t", 1)) if "\t" in line else line for line in lines]
    tokens = tokenizer.encode_batch(texts)
    inputs = {
        "input_ids": [token.ids for token in tokens],
        "attention_mask": [token.attention_mask for token in tokens],
        "token_type_ids": [token.type_ids for token in tokens],
    }
    names = [entry.name for entry in session.get_inputs()]
    return session.run(["logits"], {name: np.array(inputs[name], dtype=np.int64) for name in names})[0]


def prediction(config: dict, logits: np.ndarray) -> str:
    """Return numbers, the yes/no labels that are true, or the class and its probability."""
    names = config.get("id2label", {})
    if config.get("problem_type") == "regression" or logits.size == 1:
        return " ".join(f"{number:.3f}" for number in logits)
    if config.get("problem_type") == "multi_label_classification":
        return ", ".join(names[str(at)] for at in np.flatnonzero(logits > 0)) or "none"
    probabilities = np.exp(logits - logits.max())
    best = int(probabilities.argmax())
    return f"{names[str(best)]} {probabilities[best] / probabilities.sum():.3f}"


if __name__ == "__main__":
    main()
