"""What plots and the first screen show of distilled maps."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from matplotlib.axes import Axes

from results.plots.pareto import draw_pareto
from results.plots.plot_info import pareto_info, pareto_table
from results.plots.unseen import draw_unseen, unseen_table
from results.report.distilled_view import distilled_gain, distilled_points
from results.report.verdict import DISTILLED, verdict_of
from results.statistics.analysis import Analysis, analyse
from tests.results.synthetic import made_up_distilled, made_up_outcome, with_holdout, with_unseen


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    outcome = made_up_outcome(trials=20)
    return analyse(with_unseen(outcome, outcome.trials[:12]))


def drawn_by(axes: Axes, style: str) -> list[list[list[float]]]:
    return [np.asarray(line.get_xydata()).tolist() for line in axes.get_lines() if line.get_linestyle() == style]


def marks_of(axes: Axes) -> list[tuple[str, float, float]]:
    """Return the label and the place of each mark of a distilled map."""
    marks = [line for line in axes.get_lines() if line.get_marker() in ("v", "s")]
    places = [np.asarray(line.get_xydata())[0] for line in marks]
    return [(str(line.get_label()), float(at), float(height)) for line, (at, height) in zip(marks, places, strict=True)]


def test_plots_show_the_maps_that_gained_on_the_sentences_of_their_other_points(analysis: Analysis) -> None:
    trials = analysis.outcome.trials
    on_unseen = analysis.unseen[3].damage
    same = replace(made_up_distilled(trials[3]), unseen_before=on_unseen * 1.0001, unseen_after=on_unseen / 2)
    scales = replace(made_up_distilled(trials[3], 0.5, "scales"), unseen_before=on_unseen, unseen_after_low=nan)
    other = replace(made_up_distilled(trials[9]), unseen_before=2 * analysis.unseen[9].damage)
    unchecked, in_vain = made_up_distilled(trials[14]), made_up_distilled(trials[10], share=1.1)
    strange = replace(same, number=999)
    points = distilled_points(analysis, [same, scales, other, unchecked, in_vain, strange])
    assert [point.trial.number for point in points] == [3, 3, 9, 14]
    assert [point.unseen is None for point in points] == [False, False, True, True]

    info = pareto_info(analysis, points)
    for axes, name in zip(draw_pareto(info).axes[:2], ("damage", "metric"), strict=True):
        marks, lines = marks_of(axes), drawn_by(axes, ":")
        assert [label for label, _, _ in marks if label[0] != "_"] == ["distilled: weights", "distilled: scales"]
        changes = [(point.trial.nominal_compression, getattr(point, name)) for point in points]
        assert [(at, height) for _, at, height in marks] == [(at, change.after) for at, change in changes]
        assert lines == [[[at, change.before], [at, change.after]] for at, change in changes]
    assert len(pareto_table(info)) == 1 + analysis.complete  # they are no trials
    drawn = draw_unseen(unseen_table(analysis), "nominal", points).axes[0]
    assert [height for _, _, height in marks_of(drawn)] == [on_unseen / 2, scales.unseen_after]


def test_one_sentence_says_what_distillation_gained(analysis: Analysis) -> None:
    trials = analysis.outcome.trials
    small, large = (made_up_distilled(trial) for trial in (trials[1], trials[4]))  # of 2 and 5 bits
    better = replace(made_up_distilled(trials[1], 0.1, "scales"), holdout_damage_after=nan)
    before, after = f"{small.damage_before:.3g}", f"{better.damage_after:.3g}"
    said = distilled_gain(analysis, [large, small, better])
    assert said == (
        f"2 maps; the smallest that gained is uniform 2, {trials[1].packed_compression:.1f} times smaller: at the same "
        f"size, damage went from {before} to {after}, and MCC from {small.metric_before:.3f} to "
        f"{small.metric_after:.3f}, on 200 validation sentences"
    )
    assert verdict_of(analysis, [large, small, better]).points == (*verdict_of(analysis).points, (DISTILLED, said))
    assert distilled_gain(analysis, []) == ""
    assert "no map gained" in distilled_gain(analysis, [made_up_distilled(trials[1], share=1.2)])
    assert "gained is uniform 5" in distilled_gain(analysis, [large, made_up_distilled(trials[1], share=1.2)])
    # The holdout set is trusted more, unless the search went on after it was scored.
    held = replace(small, holdout_damage_after=0.0123)
    for withdrawn, where in ((False, "to 0.0123, and"), (True, f"to {small.damage_after:.3g}, and")):
        scored = replace(analysis, outcome=with_holdout(analysis.outcome, withdrawn=withdrawn))
        assert where in distilled_gain(scored, [held])
