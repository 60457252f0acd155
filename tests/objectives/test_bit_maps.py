import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.bit_maps import documented_bit_map, parse_bit_map, read_bit_map, to_json, to_text
from objectives.errors import InputError
from objectives.layers import WIDTHS, Layer
from tests.objectives.example_layers import LAYERS
from tests.objectives.random_models import bert_base_layers
from tests.shared import PUBLISHED_MAP

GOOD = (2, 5, 8, 3)
NAMES = [layer.name for layer in LAYERS]


@pytest.fixture(scope="module")
def bert_base() -> tuple[Layer, ...]:
    return bert_base_layers()


@given(bit_map=st.tuples(*[st.sampled_from(WIDTHS)] * len(LAYERS)))
def test_text_and_json_round_trip(bit_map: tuple[int, ...]) -> None:
    assert parse_bit_map(to_text(LAYERS, bit_map), LAYERS, "text") == bit_map
    assert parse_bit_map(to_json(LAYERS, bit_map, {"trial": 3}), LAYERS, "json") == bit_map


def test_text_is_the_documented_format(bert_base: tuple[Layer, ...]) -> None:
    documented = (Path(__file__).parents[2] / "objectives" / "documented_map.txt").read_text(encoding="utf-8")
    assert to_text(bert_base, documented_bit_map(bert_base)) == documented


def test_order_of_the_lines_does_not_matter() -> None:
    lines = to_text(LAYERS, GOOD).splitlines()
    assert parse_bit_map("\n".join(reversed(lines)), LAYERS, "text") == GOOD


def test_prose_and_markdown_escapes_are_passed_over() -> None:
    text = "# Widths\n\nSome prose: see below.\n\n" + to_text(LAYERS, GOOD).replace("_", "\\_").replace("\n", "  \n")
    assert parse_bit_map(text, LAYERS, "text") == GOOD


def test_prose_may_begin_as_json_does() -> None:
    assert parse_bit_map("[1]: where it comes from\n\n" + to_text(LAYERS, GOOD), LAYERS, "text") == GOOD


@pytest.mark.skipif(not PUBLISHED_MAP.is_file(), reason=f"{PUBLISHED_MAP} is absent; set BITFRONT_SHARED")
def test_the_documented_configuration_as_it_was_published(bert_base: tuple[Layer, ...]) -> None:
    assert read_bit_map(PUBLISHED_MAP, bert_base) == documented_bit_map(bert_base)


def test_the_documented_configuration_is_refused_where_it_does_not_fit() -> None:
    with pytest.raises(
        InputError,
        match=r"^the documented configuration: 73 of its 76 layers, such as 'bert\.\S+', are not layers of this model, "
        "and 0 of this model's 3 are missing; give a map that was made for this model$",
    ):
        documented_bit_map(LAYERS[:3])


def test_all_faults_of_a_file_come_together(tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text(
        f"Layer: {NAMES[0]} | bit: 9\nLayer: {NAMES[1]} | bit: 4\nLayer: {NAMES[1]} | bit: 5\n"
        f"Layer: bert.nonsense | bit: 3\nLayer: {NAMES[2]} | bit: 4.0\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError) as caught:
        read_bit_map(path, LAYERS)
    message = str(caught.value)
    assert f"{path}: 5 faults" in message
    assert "line 1: 'bert.embeddings.word_embeddings' has '9'; a width is a whole number from 2 to 8" in message
    assert "line 3: 'bert.encoder.layer.0.attention.self.query' is already given at line 2" in message
    assert "line 4: 'bert.nonsense' is not a layer of this model" in message
    assert "'4.0'" in message
    assert "'bert.pooler.dense' is missing" in message


@pytest.mark.parametrize(
    "width", ["1", "9", "0", "-2", "4.0", "four", "", "0x4", "4 bits", "1e1", "²", "٤", "9" * 5000, "08a"]
)
def test_widths_that_are_not_whole_numbers_from_2_to_8_are_refused(width: str) -> None:
    text = to_text(LAYERS, GOOD).replace("bit: 5", f"bit: {width}")
    with pytest.raises(InputError, match="a width is a whole number from 2 to 8"):
        parse_bit_map(text, LAYERS, "text")


@pytest.mark.parametrize("width", [1, 9, 4.0, 4.5, True, None, "x", [4], {"bits": 4}, 10**30])
def test_json_widths_are_checked_as_strictly(width: object) -> None:
    widths = dict(zip(NAMES, GOOD, strict=True)) | {NAMES[1]: width}
    with pytest.raises(InputError, match="a width is a whole number from 2 to 8"):
        parse_bit_map(json.dumps(widths), LAYERS, "json")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is this a bit map"),
        ("hello\nworld\n", "is this a bit map"),
        (f"Layer: {NAMES[0]}", "is incomplete"),
        (f"Layer: {NAMES[0]} | b", "is incomplete"),
        ("{", "not valid JSON"),
        ("[1, 2]", "an object of layer names and widths is needed, got a list"),
        ('{"schema": "other-1", "bits": {}}', "schema 'other-1' is not"),
        ('{"schema": "bitfront-bit-map-1", "bits": [2]}', "'bits' must be an object"),
        ('{"schema": "bitfront-bit-map-1", "bits": {}, "more": 1}', r"unknown keys \['more'\]"),
        ('{"schema": "bitfront-bit-map-1"}', "'bits' must be an object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_malformed_files_are_refused_with_one_message(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_bit_map(text, LAYERS, "some file")


def test_a_doubled_key_in_json_is_seen() -> None:
    pairs = ", ".join(f'"{name}": {width}' for name, width in [*zip(NAMES, GOOD, strict=True), (NAMES[0], 4)])
    with pytest.raises(InputError, match=f"'{NAMES[0]}' is already given"):
        parse_bit_map("{" + pairs + "}", LAYERS, "json")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_bit_map(tmp_path / "missing.txt", LAYERS)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00Layer")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_bit_map(tmp_path / "binary", LAYERS)
    with pytest.raises(InputError, match="cannot be read"):
        read_bit_map(tmp_path, LAYERS)


def test_very_many_faults_are_cut_short() -> None:
    text = "".join(f"Layer: {LAYERS[0].name} | bit: {number}\n" for number in range(100, 350))  # no width, and again
    with pytest.raises(InputError, match="and 482 more"):
        parse_bit_map(text, LAYERS, "text")
