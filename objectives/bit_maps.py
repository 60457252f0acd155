"""Bit maps as text and JSON: reading them strictly, writing them in the documented format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from objectives.errors import InputError, all_faults
from objectives.layers import WIDTHS, BitMap, Layer

JSON_SCHEMA = "bitfront-bit-map-1"

# One line of the documented format. Markdown escapes underscores, so a backslash may stand before any of them. Both
# fields take whatever stands there: what is wrong with it is told by name and not passed over as prose.
_LINE = re.compile(r"^\s*(?:[-*]\s+)?Layer:\s*(?P<name>.*?)\s*\|\s*bits?:\s*(?P<bits>.*?)\s*$", re.IGNORECASE)


def read_bit_map(path: Path, layers: Sequence[Layer]) -> BitMap:
    """Read a bit map for exactly these layers from a text or JSON file.

    Text is the documented format, ``Layer: NAME | bit: N`` a line; lines that do not begin with ``Layer:`` are prose
    and passed over, and underscores may be escaped as in Markdown. JSON is what :func:`to_json` writes, or a plain
    object of layer names and widths.

    Raises:
        InputError: the file cannot be read as UTF-8 text, or holds no map, or the map has unknown, missing or doubled
            layers, or widths that are not whole numbers of 2..8. All faults of the file are in one message.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); give a text or JSON bit map"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a bit map") from None
    return parse_bit_map(text, layers, subject=str(path))


def parse_bit_map(text: str, layers: Sequence[Layer], subject: str) -> BitMap:
    """Parse the text of a bit map; ``subject`` names it in errors. See :func:`read_bit_map`."""
    as_text = any(line.lstrip().lower().startswith("layer:") for line in text.splitlines())
    as_json = not as_text and text.lstrip().startswith(("{", "["))
    entries = _json_entries(text, subject) if as_json else _text_entries(text, subject)
    known = {layer.name for layer in layers}
    widths: dict[str, int] = {}
    seen: dict[str, str] = {}
    faults = []
    for where, name, given in entries:
        if name not in known:
            faults.append(f"{where}: {name!r} is not a layer of this model")
        if name in seen:
            faults.append(f"{where}: {name!r} is there already at {seen[name]}; keep one")
        seen.setdefault(name, where)
        width = _width(given)
        if width is None:
            faults.append(
                f"{where}: {name!r} has {given!r}; a width is a whole number from {WIDTHS[0]} to {WIDTHS[-1]}"
            )
        else:
            widths[name] = width
    faults += [f"{layer.name!r} is missing" for layer in layers if layer.name not in seen]
    if faults:
        shown = (
            [*faults[:_MOST_FAULTS], f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else faults
        )
        raise all_faults(subject, shown)
    return tuple(widths[layer.name] for layer in layers)


def quantizer_of(path: Path) -> str:
    """Return the quantiser that a JSON bit map of a run was searched with; empty where it does not say."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        return str(document["provenance"]["facts"]["fingerprint of quantizer"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def to_text(layers: Sequence[Layer], bit_map: BitMap) -> str:
    """Return the map in the documented format, a line for each layer."""
    return "".join(f"Layer: {layer.name} | bit: {width}\n" for layer, width in zip(layers, bit_map, strict=True))


def to_json(layers: Sequence[Layer], bit_map: BitMap, provenance: Mapping[str, Any]) -> str:
    """Return the map as JSON with its provenance (plain JSON values: where it came from, what it scored)."""
    widths = {layer.name: width for layer, width in zip(layers, bit_map, strict=True)}
    return json.dumps({"schema": JSON_SCHEMA, "provenance": dict(provenance), "bits": widths}, indent=2) + "\n"


def documented_bit_map(layers: Sequence[Layer]) -> BitMap:
    """Return the documented configuration for these layers.

    Raises:
        InputError: it does not fit; the message says which layers differ.
    """
    text = files("objectives").joinpath("documented_map.txt").read_text(encoding="utf-8")
    return parse_bit_map(text, layers, subject="the documented configuration")


_MOST_FAULTS = 20
_Entry = tuple[str, str, object]  # where it stands, layer name, width as given


def _width(given: object) -> int | None:
    if isinstance(given, str) and re.fullmatch(r"[0-9]+", given):
        given = int(given) if len(given) < 4 else None
    return given if isinstance(given, int) and not isinstance(given, bool) and given in WIDTHS else None


def _text_entries(text: str, subject: str) -> list[_Entry]:
    entries: list[_Entry] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _LINE.match(line):
            entries.append((f"line {number}", match["name"].replace("\\_", "_"), match["bits"].replace("\\", "")))
        elif line.lstrip().lower().startswith("layer:"):
            raise InputError(
                f"{subject}: line {number}: {line.strip()[:80]!r} is cut off; it should read 'Layer: NAME | bit: N'"
            )
    if not entries:
        raise InputError(f"{subject}: no line of the form 'Layer: NAME | bit: N'; is this a bit map?")
    return entries


def _json_entries(text: str, subject: str) -> list[_Entry]:
    doubled: list[tuple[str, object]] = []

    def keep_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
        # json keeps only the last of two equal keys; a doubled layer must be seen.
        names = [name for name, _ in pairs]
        doubled.extend((name, value) for at, (name, value) in enumerate(pairs) if name in names[:at])
        return dict(pairs)

    try:
        document = json.loads(text, object_pairs_hook=keep_pairs)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"{subject}: not valid JSON ({error}); give what `bitfront export --format json` writes"
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{subject}: not valid JSON ({error})") from None
    if not isinstance(document, dict):
        raise InputError(f"{subject}: holds no JSON object of layer names and widths")
    if "schema" in document:
        if document["schema"] != JSON_SCHEMA:
            raise InputError(f"{subject}: schema {document['schema']!r} is not {JSON_SCHEMA!r}; export the map again")
        if unknown := sorted(set(document) - {"schema", "provenance", "bits"}):
            raise InputError(f"{subject}: unknown keys {unknown}")
        document = document.get("bits")
        if not isinstance(document, dict):
            raise InputError(f"{subject}: 'bits' must be an object of layer names and widths")
    return [("key", name, width) for name, width in [*document.items(), *doubled]]
