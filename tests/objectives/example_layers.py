"""Layers of odd shapes, for tests of whatever needs layers and no model."""

from objectives.layers import Layer

LAYERS = (
    Layer("bert.embeddings.word_embeddings", "embedding", 11, 6),
    Layer("bert.encoder.layer.0.attention.self.query", "linear", 6, 6),
    Layer("bert.encoder.layer.0.intermediate.dense", "linear", 9, 6),
    Layer("bert.pooler.dense", "linear", 5, 3),
)
