import numpy as np
import pytest
import torch

from objectives.layers import WIDTHS
from objectives.quantization.affine import AffineParameters, choose_affine, column_groups, encode, storable_zero_point
from objectives.quantization.gptq import (
    HessianFactors,
    choose_weighted,
    coordinate_descent,
    fit_parameters,
    quantize_gptq,
    round_columns,
)
from objectives.quantization.parameters import decode


def correlated_inputs(columns: int, seed: int) -> torch.Tensor:
    """Return inputs ``(n, columns)`` that go together in a few directions, some much larger than others."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) * torch.logspace(0, -1.5, columns)
    return torch.randn(4 * columns, columns, generator=generator) @ mixing.T


def random_weight(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) + 0.2


def weights_of(codes: torch.Tensor, parameters: AffineParameters) -> torch.Tensor:
    return (codes - parameters.zero_point) * parameters.scale


def row_errors(weight: torch.Tensor, decoded: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """Return what each row's error weighs, ``(rows,)``."""
    error = (decoded - weight).double()
    return ((error @ moments.double()) * error).sum(dim=1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("columns", [24, 150])  # within one block of columns, and over three
def test_outputs_are_nearer_than_with_rounding_to_the_nearest(width: int, columns: int) -> None:
    weight, inputs = random_weight(40, columns, width), correlated_inputs(columns, seed=1)
    codes, parameters = quantize_gptq(weight, width, HessianFactors.of(inputs.T @ inputs / len(inputs)))
    assert codes.dtype == torch.uint8
    assert int(codes.max()) < 2**width
    assert torch.equal(parameters.zero_point, storable_zero_point(parameters.zero_point, width))
    affine = choose_affine(weight, width)
    nearest, ours = (
        float((inputs @ (decoded - weight).T).square().mean())
        for decoded in (decode(encode(weight, affine), affine), decode(codes, parameters))
    )
    assert ours < 0.6 * nearest


@pytest.mark.parametrize("width", WIDTHS)
def test_each_step_weighs_less_than_the_one_before(width: int) -> None:
    weight, inputs = random_weight(30, 100, width), correlated_inputs(100, seed=2)
    factors = HessianFactors.of(inputs.T @ inputs / len(inputs))
    ordered, moments = weight[:, factors.order], factors.moments
    parameters = choose_weighted(ordered, width, factors.factor.diagonal() ** -2)
    codes = round_columns(ordered, parameters, factors)
    compensated = row_errors(ordered, weights_of(codes, parameters), moments)
    rounded = (ordered / parameters.scale + parameters.zero_point).round().clamp(0, 2**width - 1)
    assert compensated.sum() < row_errors(ordered, weights_of(rounded, parameters), moments).sum()

    fitted = fit_parameters(ordered, codes, parameters, moments)
    assert (row_errors(ordered, weights_of(codes, fitted), moments) <= compensated * 1.001).all()
    descended = codes.clone()
    coordinate_descent(ordered, descended, fitted, moments)
    before = row_errors(ordered, weights_of(codes, fitted), moments)
    after = row_errors(ordered, weights_of(descended, fitted), moments)
    assert (after <= before * 1.001).all()
    assert after.sum() < before.sum()
    assert ((descended >= 0) & (descended <= 2**width - 1) & (descended == descended.round())).all()


def test_fitted_scales_are_the_least_squares_of_each_row() -> None:
    weight, inputs = random_weight(6, 20, 0), correlated_inputs(20, seed=3)
    moments = inputs.T @ inputs / len(inputs)
    start = choose_affine(weight, 8)  # at 8 bits zero points are whole: few of them to try
    codes = encode(weight, start).float()
    fitted = fit_parameters(weight, codes, start, moments)
    found = row_errors(weight, weights_of(codes, fitted), moments)
    root = torch.linalg.cholesky(moments.double()).T  # |root e|^2 = e' M e
    for row in range(len(weight)):
        best = np.inf
        for zero_point in range(256):
            steps = (root @ (codes[row] - zero_point).double()).numpy()
            target = (root @ weight[row].double()).numpy()
            scale = steps @ target / (steps @ steps)
            if scale > 0:
                best = min(best, float(((scale * steps - target) ** 2).sum()))
        assert float(found[row]) == pytest.approx(best, rel=0.02)


def test_fitted_scales_of_a_group_are_its_least_squares_with_all_others_held() -> None:
    weight, inputs = random_weight(6, 20, 0), correlated_inputs(20, seed=3)
    moments = inputs.T @ inputs / len(inputs)
    groups = torch.tensor([0, 2, 1, 2, 0] * 4)  # in some order of rounding
    start = choose_affine(weight, 8, groups)
    codes = encode(weight, start)
    fitted = fit_parameters(weight, codes.float(), start, moments)
    decoded = decode(codes, fitted)
    found = row_errors(weight, decoded, moments)
    root = torch.linalg.cholesky(moments.double()).T  # |root e|^2 = e' M e
    last = groups == 2  # is fitted when all others are as they stay
    for row in range(len(weight)):
        target = (root @ (weight[row] - decoded[row] * ~last).double()).numpy()
        best = np.inf
        for zero_point in range(256):
            steps = (root @ ((codes[row].double() - zero_point) * last)).numpy()
            scale = steps @ target / (steps @ steps)
            if scale > 0:
                best = min(best, float(((scale * steps - target) ** 2).sum()))
        assert float(found[row]) == pytest.approx(best, rel=0.02)


def test_descent_moves_each_code_to_where_its_row_weighs_least() -> None:
    weight, inputs = random_weight(4, 5, 7), correlated_inputs(5, seed=4)
    moments = inputs.T @ inputs / len(inputs)
    parameters = choose_affine(weight, 2)
    codes, by_hand = (encode(weight, parameters).float() for _ in range(2))
    coordinate_descent(weight, codes, parameters, moments)
    for row in range(4):
        for _ in range(2):
            for column in range(5):
                tried = by_hand[row].repeat(4, 1)
                tried[:, column] = torch.arange(4)
                scale, zero_point = parameters.scale[row], parameters.zero_point[row]
                errors = row_errors(weight[row].repeat(4, 1), (tried - zero_point) * scale, moments)
                by_hand[row, column] = errors.argmin()
    assert torch.equal(codes, by_hand)


def test_levels_of_two_bits_lie_evenly_about_the_mean() -> None:
    weight = torch.special.ndtri((torch.arange(20_000) + 0.5) / 20_000)[None]
    parameters = choose_weighted(weight, 2, torch.ones(20_000))
    codes = (weight / parameters.scale + parameters.zero_point).round().clamp(0, 3)
    # Max, IRE Transactions on Information Theory 6 (1960), table II: four evenly spaced levels for a unit Gaussian.
    assert float(parameters.scale) == pytest.approx(0.9957, rel=0.02)
    assert float((weights_of(codes, parameters) - weight).square().mean()) == pytest.approx(0.1188, rel=0.02)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_compensating_rounds_each_column_by_the_scale_of_its_group(width: int) -> None:
    weight, inputs = random_weight(5, 90, width), correlated_inputs(90, seed=3)
    factors = HessianFactors.of(inputs.T @ inputs / len(inputs))
    groups = column_groups(90, 7)
    assert groups is not None
    ordered, in_order = weight[:, factors.order], groups[factors.order]
    parameters = choose_weighted(ordered, width, factors.factor.diagonal() ** -2, in_order)
    assert parameters.scale.shape == (5, 13)
    found = round_columns(ordered, parameters, factors)
    for row in range(5):
        left, factor = ordered[row].double(), factors.factor.double()
        for column in range(90):
            scale, zero_point = (of[row, in_order[column]].double() for of in (parameters.scale, parameters.zero_point))
            code = (left[column] / scale + zero_point).round().clamp(0, 2**width - 1)
            if code != found[row, column]:  # a tie in FP32
                assert abs(float(left[column] / scale + zero_point) % 1 - 0.5) < 1e-3
                break
            error = (left[column] - (code - zero_point) * scale) / factor[column, column]
            left[column:] -= error * factor[column, column:]
        else:
            continue
        assert column > 20


@pytest.mark.parametrize("width", WIDTHS)
def test_groups_of_columns_weigh_less_at_each_step(width: int) -> None:
    weight, inputs = random_weight(30, 100, width), correlated_inputs(100, seed=2)
    factors = HessianFactors.of(inputs.T @ inputs / len(inputs))
    groups = column_groups(100, 16)
    assert groups is not None
    ordered, moments = weight[:, factors.order], factors.moments
    importance = factors.factor.diagonal() ** -2
    parameters = choose_weighted(ordered, width, importance, groups[factors.order])
    codes = round_columns(ordered, parameters, factors)
    before = row_errors(ordered, decode(codes.to(torch.uint8), parameters), moments)
    fitted = fit_parameters(ordered, codes, parameters, moments)
    after = row_errors(ordered, decode(codes.to(torch.uint8), fitted), moments)
    assert (after <= before * 1.001).all()
    assert after.sum() < before.sum()
    coordinate_descent(ordered, codes, fitted, moments)
    last = row_errors(ordered, decode(codes.to(torch.uint8), fitted), moments)
    assert (last <= after * 1.001).all()

    grouped, per_row = (
        row_errors(weight, decode(*quantize_gptq(weight, width, factors, of)), inputs.T @ inputs)
        for of in (groups, None)
    )
    assert grouped.sum() < per_row.sum()


def test_one_group_of_all_columns_is_a_row() -> None:
    weight, inputs = random_weight(9, 30, 0), correlated_inputs(30, seed=2)
    factors = HessianFactors.of(inputs.T @ inputs / len(inputs))
    codes, parameters = quantize_gptq(weight, 3, factors)
    whole = torch.zeros(30, dtype=torch.long)
    in_one, of_one = quantize_gptq(weight, 3, factors, whole)
    torch.testing.assert_close(decode(in_one, of_one), decode(codes, parameters))
    assert column_groups(30, 30) is None


def test_inputs_that_have_nothing_to_do_with_each_other_leave_nothing_to_make_up_for() -> None:
    weight = random_weight(10, 30, 0)
    parameters = choose_affine(weight, 3)
    factors = HessianFactors.of(torch.diag(torch.linspace(0.5, 2.0, 30)))
    codes = round_columns(weight[:, factors.order], parameters, factors)
    assert torch.equal(codes.to(torch.uint8), encode(weight, parameters)[:, factors.order])


def test_inputs_that_never_occur_are_no_obstacle() -> None:
    weight = random_weight(10, 30, 0)
    moments = torch.zeros(30, 30)
    for seen in (moments, moments + torch.diag((torch.arange(30) < 3).float())):
        codes, parameters = quantize_gptq(weight, 4, HessianFactors.of(seen))
        assert int(codes.max()) < 16
        assert parameters.scale.isfinite().all()


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_one_value_or_none_are_kept(width: int) -> None:
    weight = torch.tensor([[0.0] * 6, [5.0] * 6, [-3.0] * 6, [1e-44] * 6])
    inputs = correlated_inputs(6, seed=5)
    codes, parameters = quantize_gptq(weight, width, HessianFactors.of(inputs.T @ inputs))
    assert (parameters.scale > 0).all()
    torch.testing.assert_close(decode(codes, parameters), weight, rtol=0.02, atol=1e-30)
