"""Models and sentences from directories and the hub, checked, with their fingerprints."""

NONE, AUTO = "none", "auto"
"""Names of holdout sets: none; and the one that comes with the data, as the miniature's does."""
