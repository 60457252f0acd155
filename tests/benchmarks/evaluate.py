"""How fast a bit map is scored, against `transformers` used the obvious way and against the bare matrix products.

`python -m tests.benchmarks evaluate [bert] [roberta] [distilbert] [electra] [fp32] [bf16] [cuda]`: all architectures or
the named ones, in the named precisions, on the CPU or on a GPU.

Base shapes with random weights. The lengths of the sentences are CoLA's where the shared data is at hand, else drawn to
be like them (11.7 tokens on average, at most 35). BERT is measured in full, in both precisions unless one is named; of
the others, and of pairs, only the share that the bare products have, in FP32 unless another is named.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from objectives.batching import device_of
from objectives.evaluation import parts
from objectives.evaluation.evaluator import DTYPES, Evaluator
from objectives.evaluation.linear import FusedProduct, Product, make_product
from objectives.heads import TWO_CLASSES
from objectives.layers import WIDTHS, BitMap, Layer, uniform
from objectives.loading.layer_discovery import find_layers
from objectives.loading.sentences import load_sentences
from objectives.loading.tokenization import tokenize
from objectives.problem import Problem, load_problem
from objectives.quantization.affine import choose_affine, encode
from objectives.quantization.bank import FP32_WIDTH, WeightBank
from objectives.quantization.parameters import decode
from objectives.scores import Precision
from tests.benchmarks.timing import medians_s
from tests.objectives.padded import difference_from_transformers
from tests.shared import COLA, MODEL

PAD_TO, BATCH = 128, 32
CHUNK = 2048
BASE_SHAPES: dict[str, dict[str, int]] = {
    "bert": {},
    "roberta": {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
    "distilbert": {},
    "electra": {"embedding_size": 768, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}
"""What makes an architecture's default config that of its base model."""


def main(arguments: list[str]) -> None:
    """Print the tables, for the architectures, precisions and device named in ``arguments``."""
    device = "cuda" if "cuda" in arguments else "cpu"
    sentences = cola_tokens()
    tokens = sum(map(len, sentences))
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{len(sentences)} sentences, {tokens} tokens, {where}, base shapes")
    both: list[Precision] = ["fp32", "bf16"]
    precisions = [precision for precision in both if precision in arguments]
    for name in BASE_SHAPES:
        if name in arguments or not BASE_SHAPES.keys() & set(arguments):
            model = base_model(name, device)
            if name == "bert":
                measure_bert(model, sentences, precisions or both, device)
            for precision in precisions or both[:1]:
                measure_shares(name, model, sentences, precision)


def base_model(name: str, device: str) -> PreTrainedModel:
    """Return a random model of an architecture's base shapes."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, num_labels=2, **BASE_SHAPES[name])
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    model.eval().to(device)
    return model


def measure_bert(
    model: PreTrainedModel, sentences: list[tuple[int, ...]], precisions: list[Precision], device: str
) -> None:
    """Print all that is measured of BERT."""
    layers = find_layers(model)
    rng = np.random.default_rng(0)
    maps = [tuple(int(width) for width in rng.choice(WIDTHS, size=len(layers))) for _ in range(4)]
    twin_s = time_twin(model, layers, sentences, maps[0])
    print(f"twin (padded to {PAD_TO}, batches of {BATCH}, FP32, quantised anew): {twin_s:.2f} s")
    for precision in precisions:
        measure(model, layers, sentences, maps, precision, twin_s)
    print("largest difference of a logit from transformers' on the same quantised weights, FP32:")
    print(f"  bert-base's shapes, random weights  {difference_from_transformers(model, sentences[::8]):.1e}")
    for name, problem in trained_problems(device).items():
        print(f"  {name:34}  {difference_from_transformers(problem.network, problem.token_ids):.1e}")
        if name == "shared model":
            print(f"bf16's own damage on the shared model: {bf16_damage(problem):.2e} nats a sentence")


def measure_shares(name: str, model: PreTrainedModel, sentences: list[tuple[int, ...]], precision: Precision) -> None:
    """Print the bare products' share of an evaluation, of single sentences and of pairs."""
    layers, device = find_layers(model), device_of(model)
    maps = itertools.cycle([uniform(layers, 3), uniform(layers, 4)])  # all weights change each time
    bank = WeightBank(model, layers)
    pairs, types = pairs_of(sentences)
    has_types = int(getattr(model.config, "type_vocab_size", 1)) > 1
    for what, tokens, token_types in (("single sentences", sentences, None), ("pairs", pairs, types)):
        evaluator = Evaluator(model, layers, tokens, precision, bank, token_types if has_types else None)
        timed: dict[str, Callable[[], object]] = {
            "evaluation": lambda: evaluator.log_odds(next(maps)),  # noqa: B023
            "bare products": bare_products(layers, tokens, precision, device),
        }
        seconds = medians_s(timed, repeats=3)
        share = seconds["bare products"] / seconds["evaluation"]
        print(f"{name}, {precision}, {len(tokens)} {what}, {sum(map(len, tokens))} tokens: bare products {share:.1%}")
    if precision == "fp32":
        difference = difference_from_transformers(model, pairs[::24], types[::24] if has_types else None)
        print(f"  largest difference of a pair's logit from transformers' {difference:.1e}")


def pairs_of(sentences: list[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """Return each two consecutive sentences as a pair of one beginning, and the types of its tokens."""
    twos = list(zip(sentences[::2], sentences[1::2], strict=False))
    types = [[0] * len(first) + [1] * (len(second) - 1) for first, second in twos]
    return [(*first, *second[1:]) for first, second in twos], types


def measure(
    model: PreTrainedModel,
    layers: tuple[Layer, ...],
    sentences: list[tuple[int, ...]],
    maps: list[BitMap],
    precision: Precision,
    twin_s: float,
) -> None:
    """Print what one precision takes, as ratios."""
    device = device_of(model)
    evaluator = Evaluator(model, layers, sentences, precision)
    for bit_map in maps:
        evaluator.log_odds(bit_map)  # fills the bank
    turn = iter(range(10**6))
    probe = maps[0]
    evaluator.log_odds(probe, remember=True)
    upper = (*probe[:-1], probe[-1] % 8 + 2)  # another pooler: everything below it is remembered

    def new_map() -> BitMap:
        return maps[next(turn) % (len(maps) - 1) + 1]

    timed = {
        "evaluation": lambda: evaluator.log_odds(new_map()),
        "bare products": bare_products(layers, sentences, precision, device),
        "swap": finished(lambda: evaluator._load(new_map(), first=0), device),
        "top layer alone": lambda: evaluator.log_odds(upper),
    }
    if fuses := isinstance(make_product(1, torch.zeros(1, dtype=DTYPES[precision], device=device)), FusedProduct):
        with patch.object(parts, "make_product", Product):
            plain = Evaluator(model, layers, sentences, precision, evaluator.bank)
        timed["not fused"] = lambda: plain.log_odds(new_map())
    seconds = medians_s(timed, repeats=5)
    whole = seconds["evaluation"]
    print(
        f"{precision}: {whole:.4g} s an evaluation, {1 / whole:.3g} a second, "
        f"{twin_s / whole:.1f} times as fast as the twin"
    )
    if fuses:
        print(f"  with torch's own products   {seconds['not fused'] / whole:.1%}")
    print(f"  bare products / evaluation  {seconds['bare products'] / whole:.1%}")
    print(f"  swapping in a random map    {seconds['swap'] / whole:.1%}")
    print(f"  changing the pooler alone   {seconds['top layer alone'] / whole:.1%}")
    print(f"  sensitivities / evaluation  {sensitivity_share(evaluator, device):.1%}  (a layer at one width)")


def sensitivity_share(evaluator: Evaluator, device: torch.device) -> float:
    """Return what a map in which one layer is quantised costs, as a share of a full pass; the mean over all layers.

    From the top layer down, each once; a full pass is timed beside every sixth of them.
    """
    fp32 = (FP32_WIDTH,) * len(evaluator.layers)
    evaluator.log_odds(fp32, remember=True)
    wait = finished(lambda: None, device)
    one_layer_s, full_s = [], []
    for index in reversed(range(len(evaluator.layers))):
        evaluator.bank.entry(evaluator.layers[index], 3)
        wait()
        started = time.perf_counter()
        evaluator.log_odds((*fp32[:index], 3, *fp32[index + 1 :]))
        one_layer_s.append(time.perf_counter() - started)
        if index % 6 == 0:
            started = time.perf_counter()
            evaluator._forward.run(-1, None, None)
            full_s.append(time.perf_counter() - started)
    return statistics.mean(one_layer_s) / statistics.mean(full_s)


def time_twin(
    model: PreTrainedModel, layers: tuple[Layer, ...], sentences: list[tuple[int, ...]], bit_map: BitMap
) -> float:
    """Return the seconds of one evaluation written by hand; the forward is timed on every eighth batch."""
    weights = {layer.name: model.get_parameter(layer.parameter).detach().clone() for layer in layers}

    def quantise() -> None:
        for layer, width in zip(layers, bit_map, strict=True):
            parameters = choose_affine(weights[layer.name], width)
            decoded = decode(encode(weights[layer.name], parameters), parameters)
            model.get_parameter(layer.parameter).data = decoded

    batches = [sentences[start : start + BATCH] for start in range(0, len(sentences), BATCH)]
    timed = batches[::8]
    device = device_of(model)

    def forward() -> None:
        with torch.inference_mode():
            for batch in timed:
                ids = torch.tensor([[*ids, *[0] * (PAD_TO - len(ids))] for ids in batch])
                mask = torch.tensor([[1] * len(ids) + [0] * (PAD_TO - len(ids)) for ids in batch])
                model(input_ids=ids.to(device), attention_mask=mask.to(device))

    seconds = medians_s({"quantise": finished(quantise, device), "forward": finished(forward, device)}, repeats=1)
    for layer in layers:
        model.get_parameter(layer.parameter).data = weights[layer.name]
    return seconds["quantise"] + seconds["forward"] * len(sentences) / sum(map(len, timed))


def finished(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a function that has a GPU do all that another one asks of it before it returns."""
    if device.type == "cpu":
        return run

    def run_and_wait() -> None:
        run()
        torch.cuda.synchronize()

    return run_and_wait


def bare_products(
    layers: tuple[Layer, ...], sentences: list[tuple[int, ...]], precision: Precision, device: torch.device
) -> Callable[[], None]:
    """Return a function that does the matrix products that an evaluation cannot avoid, and nothing else.

    By torch's own operator, layer after layer with weights of its own and over all tokens, as an evaluation does; the
    last layer and the head for first tokens alone. The shapes are those of base models.
    """
    dtype = DTYPES[precision]
    encoder = [layer for layer in layers if ".layer." in layer.name]
    depth, hidden, wide = len(encoder) // 6, encoder[0].columns, max(layer.rows for layer in encoder)
    n_tokens = sum(map(len, sentences))
    every = {width: torch.randn(n_tokens, width, dtype=dtype, device=device) for width in (hidden, wide)}
    first = {width: rows[: len(sentences)] for width, rows in every.items()}
    feed_forward = ((hidden, hidden), (wide, hidden), (hidden, wide))
    products: list[tuple[dict[int, Tensor], tuple[int, int]]] = []
    for _ in range(depth - 1):
        products += [(every, shape) for shape in ((3 * hidden, hidden), *feed_forward)]
    products.append((every, (2 * hidden, hidden)))
    products += [(first, shape) for shape in ((hidden, hidden), *feed_forward, (hidden, hidden))]
    made = [
        (
            rows[shape[1]],
            torch.randn(shape, dtype=dtype, device=device),
            torch.randn(shape[0], dtype=dtype, device=device),
        )
        for rows, shape in products
    ]
    chunk_tokens = CHUNK if device.type == "cpu" else n_tokens

    def run() -> None:
        with torch.inference_mode():
            for rows, weight, bias in made:
                for chunk in rows.split(chunk_tokens):
                    F.linear(chunk, weight, bias)

    return finished(run, device)


def trained_problems(device: str) -> dict[str, Problem]:
    """Return the miniature and, where it is at hand, the shared model."""
    problems = {"miniature": load_problem("miniature", "miniature", device=device)}
    return problems | ({"shared model": load_problem(str(MODEL), str(COLA), device=device)} if MODEL.is_dir() else {})


def bf16_damage(problem: Problem) -> float:
    """Return the damage that bf16 alone does."""
    bf16 = Evaluator(problem.network, problem.layers, problem.token_ids, "bf16").fp32_log_odds()
    return float(TWO_CLASSES.divergences(bf16, problem.fp32_log_odds).mean())


def cola_tokens() -> list[tuple[int, ...]]:
    """Return the tokens of CoLA's validation sentences, or random ones of like lengths."""
    if MODEL.is_dir() and COLA.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        return list(tokenize(tokenizer, load_sentences(str(COLA), "validation").texts, 512))
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.gamma(6.0, 11.7 / 6.0, size=1043).round(), 4, 35).astype(int)
    return [tuple(int(token) for token in rng.integers(1000, 30000, size=length)) for length in lengths]
