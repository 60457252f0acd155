"""Models and sentences from directories and the hub, checked, with their fingerprints."""

from typing import Final

NONE: Final = "none"
"""The value of a setting that names nothing: no holdout set, no task, no file."""
AUTO: Final = "auto"
"""The value of a setting that leaves the choice to the data: the miniature's own holdout set, the usual split."""
