"""Every head: its divergence, gradient and curvature against closed forms, torch.distributions and differences."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from objectives.errors import InputError
from objectives.heads import (
    TWO_CLASSES,
    Array,
    Classes,
    Head,
    Numbers,
    YesNoLabels,
    head_of,
    head_of_record,
)
from tests.objectives.random_models import random_bert
from tests.objectives.stacked import Stacked

VARIANCES = (0.5, 2.0, 3.0)
HEADS: dict[str, Head] = {
    "two classes": TWO_CLASSES,
    "three classes": Classes(2),
    "five classes": Classes(4),
    "one label": YesNoLabels(1),
    "three labels": YesNoLabels(3),
    "one number": Numbers(1, (0.7,)),
    "three numbers": Numbers(3, VARIANCES),
}
heads = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)


def draw(head: Head, seed: int, count: int = 50, scale: float = 2.0) -> Array:
    return np.random.default_rng(seed).normal(0, scale, (count, *head.shape))


def kl_by_torch(head: Head, other: Tensor, one: Tensor) -> Tensor:
    """Return the divergences of outputs from those of FP32, by torch's own distributions."""
    if isinstance(head, Classes):
        columns = (one, other) if head.shape else (one[:, None], other[:, None])
        one, other = (torch.nn.functional.pad(x, (1, 0)) for x in columns)
        return kl_divergence(Categorical(logits=one), Categorical(logits=other))
    if isinstance(head, Numbers):
        deviation = torch.tensor(head.variances, dtype=torch.float64).sqrt().reshape(head.shape)
        divergence = kl_divergence(Normal(one, deviation), Normal(other, deviation))
    else:
        divergence = kl_divergence(Bernoulli(logits=one), Bernoulli(logits=other))
    return divergence.sum(-1) if head.shape else divergence


@heads
def test_the_divergence_is_that_of_torchs_distributions(head: Head) -> None:
    p, q = draw(head, 0), draw(head, 1)
    np.testing.assert_allclose(head.divergences(q, p), kl_by_torch(head, torch.tensor(q), torch.tensor(p)), atol=1e-12)
    assert not head.divergences(p, p).any()
    by_tensors = head.torch_divergences(torch.tensor(q), torch.tensor(p))
    np.testing.assert_allclose(by_tensors, head.divergences(q, p), atol=1e-12)


def test_divergences_of_known_pairs() -> None:
    three: Array = np.log(np.array([[2.0, 1.0]]))  # a half, a quarter and a quarter, in the order 1, 0, 2
    even: Array = np.zeros((1, 2))
    assert Classes(2).divergences(even, three)[0] == pytest.approx(0.5 * np.log(1.5) + 0.5 * np.log(0.75))
    assert YesNoLabels(2).divergences(even, three)[0] == pytest.approx(2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3))
    assert Numbers(2, (2.0, 0.5)).divergences(even, np.array([[2.0, 1.0]]))[0] == 4 / 4 + 1 / 1


def hessians(head: Head, q: Array) -> Array:
    """Return the curvature at outputs as matrices, ``(n_sentences, n_outputs, n_outputs)``."""
    curvature = head.curvature(head.means(q))
    pivots = curvature.pivots.reshape(len(q), head.n_outputs, 1) * np.eye(head.n_outputs)
    mixing = np.broadcast_to(np.eye(head.n_outputs), pivots.shape) if curvature.mixing is None else curvature.mixing
    return np.asarray(mixing @ pivots @ np.swapaxes(mixing, 1, 2))


@heads
def test_gradient_and_curvature_are_those_of_torchs_distributions(head: Head) -> None:
    p, q = draw(head, 0, 8), draw(head, 1, 8, 1.5)
    for fp32, outputs, gradient, hessian in zip(p, q, head.means(q) - head.means(p), hessians(head, q), strict=True):

        def divergence(x: Tensor, fp32: Array = fp32) -> Tensor:
            return kl_by_torch(head, x.reshape(1, *head.shape), torch.tensor(fp32)[None])[0]

        point = torch.tensor(outputs).reshape(head.n_outputs)
        slope = torch.autograd.functional.jacobian(divergence, point)
        np.testing.assert_allclose(gradient.reshape(-1), slope, atol=1e-9)
        np.testing.assert_allclose(hessian, torch.autograd.functional.hessian(divergence, point), atol=1e-9)


@heads
def test_divergence_gradient_and_curvature_are_those_of_the_textbook(head: Head) -> None:
    p, q = (draw(head, seed, 20).reshape(20, -1) for seed in (0, 1))
    if isinstance(head, Numbers):
        v = np.array(head.variances)
        expected = ((q - p) ** 2 / (2 * v)).sum(axis=1), (q - p) / v, np.eye(head.n_outputs) / v
    elif isinstance(head, Classes):
        one, other = (np.exp(np.pad(x, ((0, 0), (1, 0)))) for x in (p, q))
        one, other = (x / x.sum(axis=1, keepdims=True) for x in (one, other))  # softmax
        divergence, rest = (one * np.log(one / other)).sum(axis=1), other[:, 1:]
        hessian = rest[:, :, None] * np.eye(head.n_outputs) - rest[:, :, None] * rest[:, None, :]
        expected = divergence, (other - one)[:, 1:], hessian
    else:
        one, other = (1 / (1 + np.exp(-x)) for x in (p, q))
        each = one * np.log(one / other) + (1 - one) * np.log((1 - one) / (1 - other))
        expected = each.sum(axis=1), other - one, (other * (1 - other))[:, :, None] * np.eye(head.n_outputs)
    p, q = (x.reshape(20, *head.shape) for x in (p, q))
    np.testing.assert_allclose(head.divergences(q, p), expected[0], atol=1e-12)
    np.testing.assert_allclose((head.means(q) - head.means(p)).reshape(20, -1), expected[1], atol=1e-12)
    np.testing.assert_allclose(hessians(head, q), np.broadcast_to(expected[2], hessians(head, q).shape), atol=1e-12)


@heads
def test_extreme_outputs_have_finite_divergences(head: Head) -> None:
    extreme = draw(head, 0, scale=1e4).astype(np.float32)
    assert np.isfinite(head.divergences(-extreme, extreme)).all()
    assert not head.divergences(extreme, extreme).any()
    means = head.means(extreme)
    assert np.isfinite(head.curvature(means, floor=0.02).pivots).all()


@heads
def test_gradient_and_curvature_are_those_of_finite_differences(head: Head) -> None:
    p, q, step = draw(head, 0), draw(head, 1, scale=1.5), 1e-5
    gradient = head.means(q) - head.means(p)
    curvature = head.curvature(head.means(q))
    traces = np.zeros(len(q))
    for output in range(head.n_outputs):
        unit = np.eye(head.n_outputs)[output].reshape(head.shape) * step
        slope = (head.divergences(q + unit, p) - head.divergences(q - unit, p)) / (2 * step)
        along = gradient.reshape(len(q), -1)[:, output]
        np.testing.assert_allclose(along, slope, atol=1e-7)
        bend = (head.means(q + unit) - head.means(q - unit)) / (2 * step)
        traces += bend.reshape(len(q), -1)[:, output]
    np.testing.assert_allclose(curvature.traces, traces, atol=1e-8)
    shifts = draw(head, 2)
    difference = (head.means(q + step * shifts) - head.means(q - step * shifts)) / (2 * step)
    quadratic = (difference * shifts).reshape(len(q), -1).sum(axis=1)
    mixed = curvature.mixed(shifts.ravel()) ** 2 * curvature.pivots
    np.testing.assert_allclose(mixed.reshape(len(q), -1).sum(axis=1), quadratic, atol=1e-7)


@heads
def test_unmixing_is_the_transpose_of_mixing(head: Head) -> None:
    curvature = head.curvature(head.means(draw(head, 0, 8)))
    size = 8 * head.n_outputs
    np.testing.assert_allclose(curvature.mixed(np.eye(size)), curvature.unmixed(np.eye(size)), atol=1e-12)


def test_two_classes_are_the_one_column_case_of_the_general_formulas() -> None:
    general = Stacked(1)
    p, q = draw(TWO_CLASSES, 0, 500, 5.0), draw(TWO_CLASSES, 1, 500, 5.0)
    p_column, q_column, means = p[:, None], q[:, None], TWO_CLASSES.means(q)
    for one, many in (
        (TWO_CLASSES.divergences(q, p), general.divergences(q_column, p_column)),
        (TWO_CLASSES.means(q), general.means(q_column)[:, 0]),
        (TWO_CLASSES.curvature(means, 0.02).pivots, general.curvature(means[:, None], 0.02).pivots),
        (TWO_CLASSES.curvature(means).traces, general.curvature(means[:, None]).traces),
        (
            TWO_CLASSES.torch_divergences(torch.tensor(q), torch.tensor(p)),
            general.torch_divergences(torch.tensor(q_column), torch.tensor(p_column)),
        ),
        (TWO_CLASSES.predictions(q), general.predictions(q_column)),
        (TWO_CLASSES.reversed(q), general.reversed(q_column)[:, 0]),
        (TWO_CLASSES.cross_entropies(q, p > 0), general.cross_entropies(q_column, (p > 0).astype(np.int8))),
    ):  # fmt: skip
        np.testing.assert_allclose(one, many, atol=1e-12)
    assert TWO_CLASSES.worst_divergence(p) == pytest.approx(general.worst_divergence(p_column), abs=1e-12)


@pytest.mark.parametrize("head", [Classes(2), Classes(6)])
def test_predictions_of_classes_are_the_argmax_of_the_logits(head: Classes) -> None:
    logits = torch.randn(200, head.n_classes, generator=torch.Generator().manual_seed(0))
    outputs = head.outputs(logits).numpy()
    assert outputs.shape == (200, head.n_outputs)
    assert head.predictions(outputs).tolist() == logits.argmax(dim=1).tolist()
    labels = logits.argmin(dim=1)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    np.testing.assert_allclose(head.cross_entropies(outputs, labels.numpy()), expected, rtol=1e-5)


def test_a_constant_number_has_no_divergence() -> None:
    outputs = np.array([[1.0, 2.0], [3.0, 2.0]], dtype=np.float32)
    with pytest.raises(InputError, match="output 1 is the same for all sentences"):
        Numbers.of(outputs)
    assert Numbers.of(outputs[:, :1]).variances == (1.0,)


@heads
def test_a_recorded_head_is_read_back(head: Head) -> None:
    assert head_of_record(head.record()) == head
    assert head_of_record(None) == TWO_CLASSES


@pytest.mark.parametrize(
    ("problem_type", "labels", "head"),
    [
        (None, 2, TWO_CLASSES),
        (None, 3, Classes(2)),
        (None, 1, Numbers(1)),
        ("regression", 2, Numbers(2)),
        ("single_label_classification", 5, Classes(4)),
        ("multi_label_classification", 4, YesNoLabels(4)),
        ("multi_label_classification", 1, YesNoLabels(1)),
    ],
)
def test_the_head_is_that_of_the_config(problem_type: str | None, labels: int, head: Head) -> None:
    model: Any = SimpleNamespace(config=SimpleNamespace(problem_type=problem_type, num_labels=labels))
    assert head_of(model) == head


@pytest.mark.parametrize(
    ("n_labels", "labels"),
    [(1, torch.tensor([0.5, 2.0])), (2, torch.tensor([0, 1])), (4, torch.tensor([3, 0]))],
)
def test_a_config_that_does_not_say_has_the_head_that_transformers_decides(n_labels: int, labels: Tensor) -> None:
    model = random_bert(num_labels=n_labels)
    ours = head_of(model)
    assert model.config.problem_type is None
    model(input_ids=torch.tensor([[1, 2], [3, 4]]), labels=labels)
    assert model.config.problem_type is not None
    assert head_of(model) == ours


def test_a_config_with_an_impossible_head_is_refused() -> None:
    model: Any = SimpleNamespace(config=SimpleNamespace(problem_type="single_label_classification", num_labels=1))
    with pytest.raises(InputError, match="classes must be two or more"):
        head_of(model)
    with pytest.raises(InputError, match="'ranking' with 3 labels"):
        head_of(SimpleNamespace(config=SimpleNamespace(problem_type="ranking", num_labels=3)))  # type: ignore[arg-type]


def test_the_variances_scale_the_damage_of_numbers() -> None:
    head = HEADS["one number"]
    assert isinstance(head, Numbers)
    q, p = draw(head, 0), draw(head, 1)
    doubled = replace(head, variances=(1.4,))
    np.testing.assert_allclose(doubled.divergences(q, p) * 2, head.divergences(q, p))
