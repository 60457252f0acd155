"""Intervals, comparisons, picks and what follows from them."""
