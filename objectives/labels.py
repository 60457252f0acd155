"""Labels as a head takes them."""

from __future__ import annotations

import numpy as np

from objectives.errors import InputError
from objectives.heads import Classes, Head
from objectives.scores import Labels


def fitting_labels(labels: Labels, head: Head, subject: str) -> Labels:
    """Return labels ``(n_sentences, *head.label_shape)`` in the head's type.

    Args:
        labels: of sentences, whole numbers or numbers.
        head: of the model.
        subject: names the sentences in the error.

    Raises:
        InputError: they are of another shape, or not what the head predicts.
    """
    given = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 and not head.label_shape else labels
    needed = f"the model predicts {head.description}"
    if given.shape[1:] != head.label_shape:
        columns = 1 if given.ndim == 1 else given.shape[1]
        found = "1 label column" if columns == 1 else f"{columns} label columns"
        raise InputError(f"{subject}: has {found}, and {needed}; choose data that fit the model")
    if head.kind == "numbers":
        if not np.isfinite(given).all():
            raise InputError(f"{subject}: {needed}, and a label is not finite; correct the data")
        if (np.ptp(given, axis=0) == 0).any():
            raise InputError(f"{subject}: {needed}, and all labels are equal, so nothing can be scored; use more data")
        return np.asarray(given, dtype=head.label_type)
    largest = head.n_classes - 1 if isinstance(head, Classes) else 1
    wrong = given[(given < 0) | (given > largest) | (given != np.round(given))]
    if wrong.size:
        raise InputError(
            f"{subject}: {needed}, so labels are 0 to {largest}, got {wrong.ravel()[0]}; choose data that fit the model"
        )
    return np.asarray(given, dtype=head.label_type)
