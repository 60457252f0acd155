"""Heat maps as tables: every layer's number in its place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from objectives.errors import InputError
from objectives.layers import WIDTHS
from results.plots.heat_maps import sensitivity_table
from results.plots.plot_info import bits_info
from results.report.heat_tables import EDGES, bits_tables, sensitivity_tables
from results.statistics.analysis import analyse
from tests.results.synthetic import bert_layers, made_up_outcome


def test_every_layer_has_its_width_and_its_name() -> None:
    info = bits_info(analyse(made_up_outcome(trials=12)))
    figures = str(bits_tables(info)).split("<figure>")[1:]
    assert len(figures) == len(info.maps)
    names = [cell.layer for cell in info.grid.cells]
    for figure, shown in zip(figures, info.maps, strict=True):
        found = {name: int(width) for name, width in re.findall(r'title="([^"]+): (\d) bits"', figure)}
        assert found == dict(zip(names, shown.bit_map, strict=True))
        assert [int(text) for text in re.findall(r'<td class="w(\d)"', figure)] == [
            int(text) for text in re.findall(r">(\d)</td>", figure)
        ]
        assert figure.count("<tr>") == len(info.grid.rows) and shown.title[0] in figure


def test_damages_are_coloured_by_their_size(tmp_path: Path) -> None:
    layers = bert_layers()
    assert sensitivity_tables(layers, tmp_path) == ""
    damages = np.geomspace(0.05, 1e-6, len(layers))[:, None] * 4.0 ** -np.arange(len(WIDTHS))
    table = sensitivity_table(layers, damages, np.ones(damages.shape, dtype=np.bool_))
    table.to_csv(tmp_path / "sensitivity.csv", index=False)
    figures = str(sensitivity_tables(layers, tmp_path)).split("<figure>")[1:]
    assert len(figures) == 4 and "2 bits" in figures[0] and "5 bits" in figures[3]
    cells = re.findall(r'class="s(\d)"[^>]*title="([^"]+): ([^"]+)">([^<]*)<', figures[0])
    assert {name for _, name, _, _ in cells} == {layer.name for layer in layers}
    for colour, _, damage, text in cells:
        thousandths = 1000 * float(damage)
        assert (
            sum(edge <= thousandths * 1.005 for edge in EDGES)
            >= int(colour)
            >= sum(edge <= thousandths * 0.995 for edge in EDGES)
        )
        assert text == "" or float(text) == pytest.approx(thousandths, rel=0.1, abs=0.06)
    (tmp_path / "sensitivity.csv").write_text("layer,width\nx,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="put it back"):
        sensitivity_tables(layers, tmp_path)
