"""Distilling a map in a benchmark, and its damage."""

from __future__ import annotations

from dataclasses import dataclass

from objectives.evaluation.precision import faster_precision
from objectives.layers import BitMap
from objectives.problem import Problem
from objectives.quantization.quantized_model import QuantizedModel
from objectives.training.distillation import Training, distil
from objectives.training_sentences import distillation_sentences
from results.statistics.bootstrap import Bootstrapped, Resamples

_UNSEEN = 200


class Distillery:
    """Distils maps of one problem alike, and scores them in nats a sentence."""

    def __init__(self, problem: Problem, epochs: int) -> None:
        """Every map is to be trained with so many epochs."""
        self.problem = problem
        self._sentences, self._unseen = distillation_sentences(problem, _UNSEEN)
        self._training = Training("weights", epochs, 0, faster_precision(problem.network))
        self._resamples = Resamples.draw(problem.labels, problem.in_domain)

    def searched(self, bit_map: BitMap) -> QuantizedModel:
        """Return a map's model before distillation."""
        return QuantizedModel.of(self.problem.network, self.problem.evaluator.bank, bit_map)

    def distilled(self, bit_map: BitMap) -> QuantizedModel:
        """Return a map's model after distillation."""
        fp32, head = self.problem.network, self.problem.head
        return distil(self.searched(bit_map), fp32, self._sentences, self._training, head=head).model

    def damage(self, model: QuantizedModel) -> Damage:
        """Return a model's damage."""
        problem = self.problem
        log_odds = problem.confirm_quantized(model).log_odds
        validation = self._resamples.mean(problem.head.divergences(log_odds, problem.fp32_log_odds)[None])
        outputs, wanted = (
            problem.evaluator_on(self._unseen, network).fp32_log_odds()
            for network in (model.decoded(problem.network), problem.network)
        )
        return Damage(validation, float(problem.head.divergences(outputs, wanted).mean()))


@dataclass(frozen=True)
class Damage:
    """Damage on the validation sentences, resampled, and on unseen ones."""

    validation: Bootstrapped
    unseen: float

    def against(self, other: Damage) -> str:
        """Return the paired difference on the validation sentences with its 95% interval."""
        difference = self.validation - other.validation
        [interval] = difference.intervals()
        return f"{difference.point[0]:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"

    def __str__(self) -> str:
        return f"{self.validation.point[0]:.4f} | {self.unseen:.4f}"
