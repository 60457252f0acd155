import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import matthews_corrcoef

from tests.assets.miniature import training
from tests.assets.miniature.grammar import IN_DOMAIN, OUT_OF_DOMAIN, Sentence, Sentences, generate, minimal_pair
from tests.assets.miniature.muon import Muon, _orthogonalised
from tests.assets.miniature.training import Recipe, train


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return generate(0)


def splits(sentences: Sentences) -> list[tuple[Sentence, ...]]:
    return [
        sentences.train,
        sentences.in_domain,
        sentences.out_of_domain,
        sentences.held_out_in_domain,
        sentences.held_out_out_of_domain,
    ]


# --------------------------------------------------------------------------------------------------------------------
# The grammar.


def test_a_seed_determines_the_sentences() -> None:
    first, again, other = (generate(seed, train_pairs=200, in_domain=50, out_of_domain=20) for seed in (3, 3, 4))
    assert first == again
    assert first.train != other.train
    assert first.validation != other.validation


def test_splits_have_their_sizes_and_share_no_sentence(sentences: Sentences) -> None:
    assert [len(split) for split in splits(sentences)] == [60_000, 700, 300, 700, 300]
    texts = [sentence.text for split in splits(sentences) for sentence in split]
    assert len(set(texts)) == len(texts)


def test_about_two_thirds_are_acceptable_as_in_cola(sentences: Sentences) -> None:
    assert np.mean([sentence.label for sentence in sentences.train]) == 0.5  # minimal pairs
    for split in splits(sentences)[1:]:
        assert 0.55 < np.mean([sentence.label for sentence in split]) < 0.75


def test_training_is_in_pairs_and_rarely_from_out_of_domain(sentences: Sentences) -> None:
    good, bad = sentences.train[::2], sentences.train[1::2]
    assert [sentence.source for sentence in good] == [sentence.source for sentence in bad]
    assert all(sentence.label == 1 for sentence in good)
    assert all(sentence.label == 0 for sentence in bad)
    assert 0.02 < np.mean([sentence.source in OUT_OF_DOMAIN for sentence in good]) < 0.04
    assert {sentence.source for sentence in sentences.validation} == {*IN_DOMAIN, *OUT_OF_DOMAIN}
    assert {sentence.source for sentence in sentences.out_of_domain} == set(OUT_OF_DOMAIN)


def test_every_word_occurs_in_training(sentences: Sentences) -> None:
    seen = Counter(word for sentence in sentences.train for word in sentence.text.split())
    used = {word for split in splits(sentences) for sentence in split for word in sentence.text.split()}
    assert used == set(sentences.words)
    assert min(seen[word] for word in used) >= 20
    assert len(used) >= 205  # 210 rows with the special tokens are what the documented map needs
    assert all(re.fullmatch("[a-z]+", word) for word in used)
    assert max(len(sentence.text.split()) for split in splits(sentences) for sentence in split) <= 30


@pytest.mark.parametrize("source", [*IN_DOMAIN, *OUT_OF_DOMAIN])
def test_pairs_are_minimal_and_words_balanced(source: str) -> None:
    rng = random.Random(11)
    good_words: Counter[str] = Counter()
    bad_words: Counter[str] = Counter()
    for _ in range(3000):
        good, bad = (Counter(sentence.split()) for sentence in minimal_pair(source, rng))
        assert sum(((good - bad) + (bad - good)).values()) <= 5, f"seed 11: {good} against {bad}"
        good_words += good
        bad_words += bad
    for word in good_words | bad_words:
        in_good, in_bad = good_words[word], bad_words[word]
        # Six standard deviations of a difference of counts; two where it may occur twice in a sentence.
        assert abs(in_good - in_bad) <= 6 * (in_good + in_bad) ** 0.5, f"seed 11: {word} {in_good} and {in_bad} times"


def test_no_sentence_is_both_acceptable_and_not() -> None:
    rng = random.Random(12)
    pairs = [minimal_pair(source, rng) for source in (*IN_DOMAIN, *OUT_OF_DOMAIN) for _ in range(2000)]
    assert not {good for good, _ in pairs} & {bad for _, bad in pairs}


def test_words_alone_do_not_tell(sentences: Sentences) -> None:
    counts = CountVectorizer(token_pattern=r"\S+")
    classifier = LogisticRegression(max_iter=1000)
    classifier.fit(counts.fit_transform([s.text for s in sentences.train]), [s.label for s in sentences.train])
    predicted = classifier.predict(counts.transform([s.text for s in sentences.validation]))
    assert matthews_corrcoef([s.label for s in sentences.validation], predicted) <= 0.3


# --------------------------------------------------------------------------------------------------------------------
# How it is made, with a training too short to learn anything.


TINY = Recipe(layers=1, steps=3, warm_up_steps=1, pairs_per_batch=4, fault_layers=(1,), least_mcc=-1.0)


def few_sentences(seed: int) -> Sentences:
    return generate(seed, train_pairs=2000, in_domain=20, out_of_domain=8)  # fewer would not have every word


def test_a_training_that_fails_is_tried_again_and_then_told() -> None:
    sentences = few_sentences(0)
    with pytest.raises(RuntimeError, match=r"MCC of 0\.99, its 2 attempts reached -?\d\.\d\d, -?\d\.\d\d$"):
        train(sentences, replace(TINY, least_mcc=0.99, attempts=2), seed=0)


def test_training_is_repeatable_and_leaves_random_states_alone() -> None:
    sentences = few_sentences(0)
    before = torch.get_rng_state(), random.getstate()
    first, _ = train(sentences, TINY, seed=0)
    torch.testing.assert_close(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    torch.rand(1)
    again, _ = train(sentences, TINY, seed=0)
    other, _ = train(sentences, TINY, seed=1)
    weights = [model.state_dict()["bert.embeddings.word_embeddings.weight"] for model in (first, again)]
    assert torch.equal(*weights)
    assert not torch.equal(other.state_dict()["classifier.weight"], first.state_dict()["classifier.weight"])


@pytest.mark.parametrize(
    ("good", "bad", "faults"),
    [
        ("john sleeps", "john sleep", [0, 1, 0]),
        ("john took the key", "john took", [0, 0, 1]),
        ("john slept", "john slept the key", [0, 0, 1, 1, 0]),
        ("the tall boy slept", "the boy tall slept", [0, 1, 1, 0, 0]),
        ("does john say that mary slept", "does john say mary slept", [0, 0, 0, 1, 0, 0]),
        ("boys boys sleep", "boys sleep", [0, 1, 0]),
    ],
)
def test_faults_are_the_words_that_differ(good: str, bad: str, faults: list[int]) -> None:
    of_good, of_bad = training._faults(good.split(), bad.split())
    assert of_good == [0] * (len(good.split()) + 1)
    assert of_bad == faults


def test_batches_keep_pairs_together_and_pass_over_all() -> None:
    lengths = [random.Random(5).randrange(3, 20) for _ in range(2 * 131)]
    batches = training._batches(lengths, 4, random.Random(6))
    passed = [next(batches) for _ in range(33)]
    assert sorted(index for batch in passed for index in batch) == list(range(2 * 131))
    assert all(good % 2 == 0 and bad == good + 1 for batch in passed for good, bad in zip(batch[::2], batch[1::2]))  # noqa: B905


def test_some_words_are_hidden_so_that_every_row_occurs() -> None:
    tokens = torch.tensor([[2, 7, 8, 9, 3, 0]]).repeat(2000, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        hidden = training._with_hidden_words(tokens, 0.1)
    changed = hidden != tokens
    assert 0.07 < changed[:, 1:4].float().mean() < 0.13
    assert not changed[:, [0, 4, 5]].any()
    assert set(hidden[changed].tolist()) == {1, 4}


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 8, 24), (3, 24, 8)])
def test_updates_are_made_orthogonal(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(8))
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    turned = u.mT @ _orthogonalised(matrices, iterations=5) @ vh.mT
    # The singular vectors stay; the values come near 1, but for those that were next to nothing.
    torch.testing.assert_close(turned, torch.diag_embed(torch.diagonal(turned, dim1=1, dim2=2)), atol=1e-4, rtol=0)
    values = torch.diagonal(turned, dim1=1, dim2=2)[s > 0.1 * s.amax(dim=1, keepdim=True)]
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_treats_matrices_of_one_shape_as_if_alone() -> None:
    generator = torch.Generator().manual_seed(9)
    starts = [torch.randn(shape, generator=generator) for shape in ((6, 4), (6, 4), (4, 6))]
    gradients = [[torch.randn(start.shape, generator=generator) for start in starts] for _ in range(3)]
    together = [torch.nn.Parameter(start.clone()) for start in starts]
    alone = [torch.nn.Parameter(start.clone()) for start in starts]
    optimisers = [(Muon(together, momentum=0.9, weight_decay=0.1), together)]
    optimisers += [(Muon([matrix], momentum=0.9, weight_decay=0.1), [matrix]) for matrix in alone]
    for step in gradients:
        for matrix, gradient in zip(together + alone, step + step, strict=True):
            matrix.grad = gradient.clone()
        for optimiser, matrices in optimisers:
            optimiser.step(0.01)
            assert all(matrix.grad is None for matrix in matrices)
    for one, other, start in zip(together, alone, starts, strict=True):
        torch.testing.assert_close(one, other)
        assert not torch.equal(one, start)
