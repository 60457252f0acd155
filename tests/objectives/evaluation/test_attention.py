"""Both layouts of attention against each sentence by itself."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from objectives.evaluation.attention import Attention, PaddedAttention, RunAttention

HEADS, HIDDEN = 3, 12
LENGTHS = [2] * 31 + [3] * 9 + [4] + [7] * 5 + [40, 41]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

Layout = Callable[[list[int], torch.dtype], Attention]
LAYOUTS: dict[str, Layout] = {
    "by runs": lambda lengths, dtype: RunAttention(lengths, HEADS, dtype),
    "padded": lambda lengths, _: PaddedAttention(lengths, HEADS, torch.device("cpu")),
}


def heads_of(part: Tensor) -> Tensor:
    return part.float().view(len(part), HEADS, -1).transpose(0, 1)


def one_by_one(projected: Tensor, lengths: list[int]) -> Tensor:
    """Return what tokens attend to, by the textbook formula, a sentence and a head at a time, in FP32."""
    attended = []
    for tokens in projected.split(lengths):
        query, key, value = map(heads_of, tokens.chunk(3, dim=1))
        weights = F.softmax(query @ key.transpose(1, 2) / (HIDDEN // HEADS) ** 0.5, dim=-1)
        attended.append((weights @ value).transpose(0, 1).reshape(len(tokens), HIDDEN))
    return torch.cat(attended)


@pytest.mark.parametrize("lengths", [LENGTHS, [5], [1, 1, 2]], ids=["many", "one", "shortest"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_sentence_attends_to_itself_alone(layout: Layout, dtype: torch.dtype, lengths: list[int]) -> None:
    torch.manual_seed(0)
    projected = torch.randn(sum(lengths), 3 * HIDDEN).to(dtype)
    expected = one_by_one(projected, lengths)
    attention = layout(lengths, dtype)
    found = attention(projected)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=TOLERANCE[dtype], rtol=0)

    first = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
    queries, keys_values = projected[first, :HIDDEN], projected[:, HIDDEN:].contiguous()
    found = attention.of_first_tokens(queries, keys_values)
    torch.testing.assert_close(found.float(), expected[first], atol=TOLERANCE[dtype], rtol=0)
