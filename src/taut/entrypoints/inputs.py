"""What people type on a command line, as values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from taut.core.errors import InvalidInput, NotFound

_MAX_BYTES = 64 * 2**20


def read_json(text: str) -> Any:
    """Read JSON that is written out, in a file (`@FILE`), or on standard input (`-`).

    Raises InvalidInput with the place of the fault, NotFound for an absent file.
    """
    where, data = _source(text)
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{where} has {len(data):,} bytes, more than {_MAX_BYTES:,}: send less at once")
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            f'{where} is no JSON: {error}: write for example \'{{"carrier": "UA"}}\''
        ) from error


def _source(text: str) -> tuple[str, bytes]:
    if text == "-":
        return "standard input", sys.stdin.buffer.read(_MAX_BYTES + 1)
    if not text.startswith("@"):
        return "the text", text.encode()
    path = Path(text[1:])
    try:
        return str(path), path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}: check the path after @") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def instances(value: Any) -> list[dict[str, Any]]:
    """Return what to predict: one object, a list of them, or `{"instances": [...]}`."""
    if isinstance(value, dict) and set(value) == {"instances"}:
        value = value["instances"]
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, dict) for item in items):
        raise InvalidInput('the data is no instance: write {"column": value, …}, or a list of such objects')
    return items


def outcomes(value: Any) -> list[dict[str, Any]]:
    """Return outcomes: one object, a list of them, or `{"outcomes": [...]}`."""
    if isinstance(value, dict) and set(value) == {"outcomes"}:
        value = value["outcomes"]
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, dict) for item in items):
        raise InvalidInput(
            'the data is no outcome: write {"request_id": "req_…", "label": …}, or a list of such objects'
        )
    return items


def parameters(words: Sequence[str]) -> dict[str, Any]:
    """Read `name=value` words; a value is JSON where it can be, a text otherwise."""
    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise InvalidInput(f"--param {word!r} is not understood: write name=value, for example depth=8")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
    return found


def node_versions(words: Sequence[str]) -> dict[str, str]:
    """Read `NODE=MODEL@NUMBER` words."""
    found: dict[str, str] = {}
    for word in words:
        name, sign, version = word.partition("=")
        if not sign or not name or not version or name in found:
            raise InvalidInput(
                f"--node {word!r} is not understood: write NODE=MODEL@NUMBER, each node once, for example trees=late-trees@3"
            )
        found[name] = version
    return found


def key_values(words: Sequence[str]) -> dict[str, str]:
    """Read `name=value` words; a value alone stands under "", for a result with one key column."""
    found: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        name, value = (name, value) if sign else ("", word)
        if name in found:
            raise InvalidInput(f"--key {word!r}: {name or 'a value alone'} is given twice")
        found[name] = value
    return found
