"""Reading of delimited files: quotation marks by each format's own rules, and no line lost without a word."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.errors import InputError
from objectives.loading.labels import BINARY
from objectives.loading.tables import Table, read_content, read_delimited, text_faults

HEADER = "sentence\tlabel\n"


def read(tmp_path: Path, text: str | bytes, delimiter: str = ",") -> Table:
    path = tmp_path / "table"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_delimited(path, delimiter)


def refusal(tmp_path: Path, text: str | bytes, delimiter: str = ",") -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text, delimiter)
    assert str(tmp_path / "table") in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ('"Where is it?\t1\nshe said.\t0\n', ['"Where is it?', "she said."]),  # one mark that nothing closes
        ('"Hello he said.\t1\nA cat.\t1\nHe said hello"\t0\n', ['"Hello he said.', "A cat.", 'He said hello"']),
        ('"Yes," she said.\t1\n"No"\t0\n', ['"Yes," she said.', '"No"']),  # the first field shows that marks are text
        ('He said "no".\t1\n', ['He said "no".']),
        ('"A ""cat""."\t1\n"No\ttabs."\t0\n', ['A "cat".', "No\ttabs."]),  # pandas writes TSV with marks
        ('"two\nlines"\t1\none\t0\n', ["two\nlines", "one"]),
        ('"No"\t1\nplain\t0\n', ["No", "plain"]),
        ("windows\t1\r\n\r\nlast\t0", ["windows", "last"]),
        ("no end\u2028of\u0085a line\t1\n", ["no end\u2028of\u0085a line"]),
    ],
)
def test_marks_in_tab_separated_files_are_text_unless_all_of_them_quote(
    rows: str, texts: list[str], tmp_path: Path
) -> None:
    table = read(tmp_path, HEADER + rows, "\t")
    assert table.columns == ("sentence", "label")
    assert [row[0] for row in table.rows] == texts


def test_comma_separated_files_quote_and_rows_have_their_lines(tmp_path: Path) -> None:
    table = read(tmp_path, '\ufeffsentence,label\n"Well, ""yes"".",1\n\n"two\r\nlines",0\na "b" c,1\n')
    assert table.columns == ("sentence", "label")
    assert table.rows == (('Well, "yes".', "1"), ("two\r\nlines", "0"), ('a "b" c', "1"))
    assert table.lines == (2, 4, 6)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ('a,1\n"Where is it?,1\nshe said.,0\n', "line 3: a quotation mark begins a field and none ends it"),
        ('a,1\n"Where is it?,1\nb,0\n' + "x" * 200_000, "line 3: a quotation mark begins a field and none ends it"),
        ('a,1\n"Yes," she said.,1\n', "line 3: a field that begins with a quotation mark goes on after its second"),
        ('"Where,1\nb,0\nHe said "no",0\n', "line 2: a field that begins with a quotation mark goes on"),
        ('a,1\n"Hello, you.,1\nA cat.,1\nHe said hello",0\n', "lines 3 to 5: a quotation mark joins them to one row"),
        ('"Hello, you.,1\nHe, too, said hello",0\n', "lines 2 to 3: a quotation mark joins them to one row"),
        ("a,1\na,b,1\n", "line 3: needs 2 fields separated by ',', as many as there are columns, has 3"),
        ("a\n", "line 2: needs 2 fields separated by ','"),
        ("a,1\nb\rc,1\n", "line 3: has a carriage return that ends no line"),
        ("", "is empty"),
        ("\n\n", "is empty"),
    ],
)
def test_what_would_lose_rows_is_refused_with_its_line(rows: str, fault: str, tmp_path: Path) -> None:
    assert fault in refusal(tmp_path, "sentence,label\n" + rows)


@pytest.mark.parametrize("order", [("sentence", "label"), ("label", "sentence"), ("id", "sentence", "label")])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_joined_rows_are_found_in_every_order_of_columns(
    order: tuple[str, ...], delimiter: str, tmp_path: Path
) -> None:
    texts = ["Fine.", "{}Hello he said.", "A cat.", "He said hello{}", "Fine."]
    rows = [{"id": str(at), "sentence": text, "label": str(at % 2)} for at, text in enumerate(texts)]

    names = {name: name for name in order}
    marked = "".join(delimiter.join(row[name].format('"') for name in order) + "\n" for row in (names, *rows))
    if delimiter == "\t":
        at = order.index("sentence")
        assert [row[at] for row in read(tmp_path, marked, delimiter).rows] == [text.format('"') for text in texts]
    else:
        assert "lines 3 to 5: a quotation mark joins them to one row" in refusal(tmp_path, marked)


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.text("ab\"',\t\n ", max_size=12), st.sampled_from("01")), min_size=1, max_size=5),
    delimiter=st.sampled_from(",\t;"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_the_csv_module_writes_is_read_back(
    rows: list[tuple[str, str]], delimiter: str, quoting: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if delimiter == "\t":  # with both in one text, its lines can be rows by themselves
        rows = [(text.replace("\n", "\t"), label) for text, label in rows]
    path = tmp_path_factory.getbasetemp() / "written.csv"
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(  # type: ignore[arg-type]
        [("sentence", "label"), *rows]
    )
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    assert read_delimited(path, delimiter).rows == tuple(rows)


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("table.csv", content)
    return file.getvalue()


def arrow(codec: str) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, codec) as stream:
            stream.write(content)
        return bytes(sink.getvalue())

    return compress


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "zstd": arrow("zstd"),
    "lz4": arrow("lz4"),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_files_are_read_and_cut_ones_refused(kind: str, tmp_path: Path) -> None:
    content = "sentence,label\n" + "".join(f"Sentence {number}.,{number % 2}\n" for number in range(3000))
    compressed = COMPRESSED[kind](content.encode())
    assert len(read(tmp_path, compressed).rows) == 3000
    assert "cannot be decompressed" in refusal(tmp_path, compressed[: len(compressed) // 2])


def test_an_archive_of_two_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "")
        archive.writestr("b.csv", "")
    with pytest.raises(InputError, match="2 files in it"):
        read_content(tmp_path / "two.zip")


def test_lines_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    message = refusal(tmp_path, b"sentence,label\na\xff,1\nb,0\n\xfe,1\n")
    assert "line 2: must be UTF-8, byte 2 is not" in message
    assert "line 4: must be UTF-8, byte 1 is not" in message


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("Hello he said.\t1\nHe said hello", True),
        ("5\t1\t\tHello\n6\t0\t*\tThe cat", True),
        ("A text\nof two lines", False),
        ("A\ttab", False),
        ("tabs\tand\nlines", False),
        ("1\t0", False),
    ],
)
def test_texts_with_rows_in_them_are_found_whatever_the_file(text: str, joined: bool) -> None:
    assert bool([*text_faults([text], BINARY)]) == joined
