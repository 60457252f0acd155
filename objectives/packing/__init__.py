"""Sizes to the byte: bit streams, schemes of storage, and the footprint of a bit map."""
