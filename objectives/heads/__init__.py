"""Heads: what a model's outputs mean. Every head is an exponential family, and all formulas follow from one function.

Notation, for one sentence:
    p, q: outputs of the FP32 model and of a bit map.
    A: the head's log-partition function; its gradient is the mean, its Hessian the curvature.

    head            outputs                       A(x)
    C classes       C - 1 log-odds to class 0     log(1 + sum exp x)
    L yes/no labels L logits                      sum log(1 + exp x)
    R numbers       R values                      sum x^2 / (2 v), with v the variance of FP32's outputs

    KL(P || Q) = A(q) - A(p) - gradA(p) . (q - p)

This is the Bregman divergence of A (A. Banerjee et al., "Clustering with Bregman divergences", JMLR 6 (2005)). Its
gradient by q is gradA(q) - gradA(p), and its curvature is the Hessian of A at q.

Outputs of sentences are ``(n_sentences, *head.shape)``. The shape is ``()`` for a head of one output, such as the
log-odds of two classes, and else ``(n_outputs,)``. Flat outputs are ``(n_sentences * n_outputs,)``.
"""

from objectives.heads.base import Array, Curvature, Head, HeadKind, Outputs
from objectives.heads.choice import PROBLEM_TYPES, head_of, head_of_config, head_of_kind, head_of_record
from objectives.heads.classes import TWO_CLASSES, Classes
from objectives.heads.numbers import Numbers
from objectives.heads.yes_no_labels import YesNoLabels

__all__ = [
    "PROBLEM_TYPES",
    "TWO_CLASSES",
    "Array",
    "Classes",
    "Curvature",
    "Head",
    "HeadKind",
    "Numbers",
    "Outputs",
    "YesNoLabels",
    "head_of",
    "head_of_config",
    "head_of_kind",
    "head_of_record",
]
