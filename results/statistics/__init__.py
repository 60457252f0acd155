"""Intervals, comparisons, picks, and their corrections for selection."""
