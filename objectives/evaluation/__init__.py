"""Fast scoring of bit maps: forward passes over a fixed set of sentences."""
