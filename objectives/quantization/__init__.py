"""Weights to codes and back: quantisers, the weight bank, and the statistics they need."""
