"""Score a bit map of your own: python examples/score_a_map.py [MODEL DATA]."""

import sys

from objectives.layers import uniform
from objectives.problem import load_problem


def main() -> None:
    """Compare 4 bits everywhere with 8 bits for embeddings and 3 for all other layers."""
    model, data = sys.argv[1:] or ("miniature", "miniature")
    problem = load_problem(model, data)  # affine codes; quantizer="calibrated" for GPTQ
    maps = {
        "uniform 4": uniform(problem.layers, 4),
        "embeddings 8, others 3": tuple(8 if layer.kind == "embedding" else 3 for layer in problem.layers),
    }
    print(f"FP32: MCC {problem.fp32.metric:.3f}")
    for name, bit_map in maps.items():
        scores = problem.evaluate(bit_map).scores
        compression = problem.footprint.compression(bit_map, "packed")
        print(f"{name}: {compression:.2f}x smaller, damage {scores.damage:.4f} nats, MCC {scores.metric:.3f}")


if __name__ == "__main__":
    main()
