"""Read and write bit maps as text and JSON."""

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

_MOST_NAMED = 5  # unknown layers; from more, the map is of another model

# One line of the documented format. In Markdown each underscore may follow a backslash. Both fields match any text, so
# that a malformed field is reported instead of skipped as prose.
_LINE = re.compile(r"^\s*(?:[-*]\s+)?Layer:\s*(?P<name>.*?)\s*\|\s*bits?:\s*(?P<bits>.*?)\s*$", re.IGNORECASE)


def read_bit_map(path: Path, layers: Sequence[Layer]) -> BitMap:
    """Read a bit map for exactly these layers from a text or JSON file.

    Each line of a text file reads ``Layer: NAME | bit: N``. Lines that do not begin with ``Layer:`` are skipped as
    prose, and underscores may be escaped as in Markdown. A JSON file holds what :func:`to_json` writes, or a plain
    object of layer names and widths.

    Raises:
        InputError: the file is not UTF-8 text or holds no map.
        InputError: the map has unknown, missing or duplicate layers, or widths that are not whole numbers from 2 to 8.
            One message lists all faults of the file.
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
    is_text = any(line.lstrip().lower().startswith("layer:") for line in text.splitlines())
    is_json = not is_text and text.lstrip().startswith(("{", "["))
    entries = _json_entries(text, subject) if is_json else _text_entries(text, subject)
    names = {layer.name for layer in layers}
    widths: dict[str, int] = {}
    first_positions: dict[str, str] = {}
    faults = []
    unknown = [name for _, name, _ in entries if name not in names]
    for position, name, value in entries:
        if name not in names and len(unknown) <= _MOST_NAMED:
            faults.append(f"{position}: {name!r} is not a layer of this model")
        if name in first_positions:
            faults.append(f"{position}: {name!r} is already given at {first_positions[name]}; keep one of them")
        first_positions.setdefault(name, position)
        width = _parse_width(value)
        if width is None:
            rule = f"a width is a whole number from {WIDTHS[0]} to {WIDTHS[-1]}"
            faults.append(f"{position}: {name!r} has {value!r}; {rule}")
        else:
            widths[name] = width
    missing = [layer.name for layer in layers if layer.name not in first_positions]
    if len(unknown) > _MOST_NAMED:  # the map of another model: every name would be a line of its own
        faults.append(
            f"{len(unknown)} of its {len(entries)} layers, such as {unknown[0]!r}, are not layers of this model, and "
            f"{len(missing)} of this model's {len(names)} are missing; give a map that was made for this model"
        )
    else:
        faults += [f"{name!r} is missing" for name in missing]
    if faults:
        raise all_faults(subject, faults)
    return tuple(widths[layer.name] for layer in layers)


def quantizer_of(path: Path) -> str:
    """Return the quantiser recorded in a JSON bit map of a run; empty if none is recorded."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        return str(document["provenance"]["facts"]["fingerprint of quantizer"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def to_text(layers: Sequence[Layer], bit_map: BitMap) -> str:
    """Return the map in the documented text format, one line a layer."""
    return "".join(f"Layer: {layer.name} | bit: {width}\n" for layer, width in zip(layers, bit_map, strict=True))


def to_json(layers: Sequence[Layer], bit_map: BitMap, provenance: Mapping[str, Any]) -> str:
    """Return the map as JSON with its provenance: JSON values for its origin and scores."""
    widths = {layer.name: width for layer, width in zip(layers, bit_map, strict=True)}
    return json.dumps({"schema": JSON_SCHEMA, "provenance": dict(provenance), "bits": widths}, indent=2) + "\n"


def documented_bit_map(layers: Sequence[Layer]) -> BitMap:
    """Return the documented configuration for these layers.

    Raises:
        InputError: the layers differ; the message names them.
    """
    text = files("objectives").joinpath("documented_map.txt").read_text(encoding="utf-8")
    return parse_bit_map(text, layers, subject="the documented configuration")


def documented_misfit(n_layers: int) -> str:
    """Return the reason, for a report, why the documented configuration is not scored on a model of other layers."""
    return f"it is for the 76 layers of bert-base-uncased, and the {n_layers} of this model are not those"


_Entry = tuple[str, str, object]  # position in the file, layer name, unchecked width


def _parse_width(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
        value = int(value) if len(value) < 4 else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value in WIDTHS else None


def _text_entries(text: str, subject: str) -> list[_Entry]:
    entries: list[_Entry] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _LINE.match(line):
            entries.append((f"line {number}", match["name"].replace("\\_", "_"), match["bits"].replace("\\", "")))
        elif line.lstrip().lower().startswith("layer:"):
            raise InputError(
                f"{subject}: line {number}: {line.strip()[:80]!r} is incomplete; write it as 'Layer: NAME | bit: N'"
            )
    if not entries:
        raise InputError(f"{subject}: no line of the form 'Layer: NAME | bit: N'; is this a bit map?")
    return entries


def _json_entries(text: str, subject: str) -> list[_Entry]:
    duplicates: list[tuple[str, object]] = []

    def collect_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
        # json keeps only the last of several equal keys, which would hide a duplicate layer.
        names = [name for name, _ in pairs]
        duplicates.extend((name, value) for index, (name, value) in enumerate(pairs) if name in names[:index])
        return dict(pairs)

    try:
        document = json.loads(text, object_pairs_hook=collect_duplicates)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{subject}: not valid JSON ({error}); export the map again with `bitfront export`") from None
    except ValueError as error:  # a number with thousands of digits
        raise InputError(f"{subject}: not valid JSON ({error}); export the map again with `bitfront export`") from None
    if not isinstance(document, dict):
        raise InputError(f"{subject}: an object of layer names and widths is needed, got a {type(document).__name__}")
    if "schema" in document:
        if document["schema"] != JSON_SCHEMA:
            raise InputError(f"{subject}: schema {document['schema']!r} is not {JSON_SCHEMA!r}; export the map again")
        if unknown := sorted(set(document) - {"schema", "provenance", "bits"}):
            raise InputError(f"{subject}: unknown keys {unknown}; remove them")
        document = document.get("bits")
        if not isinstance(document, dict):
            raise InputError(f"{subject}: 'bits' must be an object of layer names and widths")
    return [("key", name, width) for name, width in [*document.items(), *duplicates]]
