"""Packed storage: bit streams, storage schemes, and the exact sizes of bit maps."""
