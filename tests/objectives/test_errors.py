import os
import subprocess

import pytest

from objectives.errors import printable, quoted

NOT_UTF8 = os.fsdecode(b"caf\xe9 'x'\\n/\xc3\xa9")


@pytest.mark.parametrize("word", ["plain/run", "two words", "it's", "$HOME", "Straße", NOT_UTF8])
def test_a_quoted_word_comes_back_from_the_shell_whole(word: str) -> None:
    printed = quoted(word)
    printed.encode()  # can be written to any file
    told = subprocess.run(["bash", "-c", f"printf %s {printed}"], capture_output=True, check=True)
    assert told.stdout == os.fsencode(word)


def test_what_is_no_utf_8_is_printed_as_its_bytes() -> None:
    assert printable("Straße") == "Straße"
    assert printable(os.fsdecode(b"run\xff")) == r"run\xff"
