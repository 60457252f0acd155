"""Files as accidents leave them: cut off, with bytes changed, lines shuffled, parts lost or doubled, foreign text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_INTRUDERS = (
    *(b"\x00", b"\n", b"\r\n", b"\t", b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"|", b"=", b"#"),
    *(b"-1", b"0", b"9", b"1e999", b"nan", b"-inf", b"null", b"true", b"2.5", b"9" * 5000, b"[" * 3000, b'{"a":' * 500),
    *(b"\xff\xfe", b"\xc3", "\u00e9\u2028\u202e".encode(), b"../../etc", b"Layer:", b"Layer: x | bit: 4\n"),
)


def malformed(content: bytes, seed: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield ``count`` damaged copies of a file's content, each with its number; a seed gives the same ones again."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        damaged = content
        while damaged == content:
            for _ in range(rng.integers(1, 4)):
                damaged = _damage(damaged, rng)
        yield number, damaged


def _damage(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(int(at) for at in rng.integers(0, len(content) + 1, size=2))
    end = min(end, start + int(rng.choice([1, 4, 40, 400, 10**9])))
    lines = content.splitlines(keepends=True)
    match rng.integers(8):
        case 0:
            return content[:start]
        case 1:
            return content[:start] + rng.bytes(1) + content[start + 1 :]
        case 2:
            return content[:start] + content[end:]
        case 3:
            return content[:end] + content[start:end] + content[end:]
        case 4:
            return content[:start] + bytes(_INTRUDERS[rng.integers(len(_INTRUDERS))]) + content[end:]
        case 5:
            return content[:start] + bytes(_INTRUDERS[rng.integers(len(_INTRUDERS))]) + content[start:]
        case 6 if lines:
            return b"".join(lines[at] for at in rng.permutation(len(lines)))
        case _:
            digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
            if not digits:
                return content
            at = digits[rng.integers(len(digits))]
            return content[:at] + str(rng.integers(10)).encode() + content[at + 1 :]
