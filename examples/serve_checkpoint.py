"""Classify sentences with a packed checkpoint: python examples/serve_checkpoint.py DIR [--packed] < sentences.txt.

With --packed its weights stay packed in memory, and each layer is decoded when it is called: the same answers in a
fraction of the memory, and later.
"""

import sys

import torch

from results.export.packed import load_checkpoint


def main() -> None:
    """Print the class and its probability for each line of the standard input."""
    checkpoint = load_checkpoint(sys.argv[1], packed="--packed" in sys.argv[2:])
    sentences = [line.strip() for line in sys.stdin if line.strip()]
    tokens = checkpoint.tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.inference_mode():
        probabilities = checkpoint.model(**tokens).logits.softmax(dim=-1)
    for sentence, row in zip(sentences, probabilities, strict=True):
        best = int(row.argmax())
        print(f"{checkpoint.model.config.id2label[best]} {row[best]:.3f}  {sentence}")


if __name__ == "__main__":
    main()
