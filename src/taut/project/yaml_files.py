"""YAML that a project brings along: safe types only, nothing written twice, nothing that unfolds to far more than was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from taut.core.errors import InvalidInput, NotFound
from taut.project.words import nearest

_MAX_BYTES: Final = 4 * 2**20
_MAX_VALUES: Final = 500_000
_FOLDED: Final = frozenset("\r\n\x85\u2028\u2029\ufeff")


def read_text(file: Path, what: str) -> str:
    """Return the text of a file. what: it is, such as `contract`. Raises NotFound for an absent one, InvalidInput for one that is no text."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InvalidInput(f"{file} is larger than 4 MiB: a {what} is a small file")
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = sorted(p.name for p in file.parent.glob("*.y*ml")) if file.parent.is_dir() else []
        raise NotFound(f"there is no {what} {file}{nearest(file.name, there)}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file}: byte {error.start} is not utf-8: save it as UTF-8") from error
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error


def documents(text: str, what: str) -> list[Any]:
    """Return the documents of a YAML text. Raises InvalidInput, with the line, for what is none."""
    try:
        found = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        raise InvalidInput(f"{place}this is no YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError as error:
        raise InvalidInput(f"this YAML is nested too deep to be a {what}") from error
    _check_size(found, what)
    return found


def dump(*found: Any) -> str:
    """Return documents as YAML that is read back as they are."""
    return yaml.dump_all(found, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """YAML's safe types; a text with a line break that YAML would fold is quoted, so that it is read back whole."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _FOLDED & set(text) else None)


_Dumper.add_representer(str, _text)


class _Loader(yaml.SafeLoader):
    """YAML's safe types, with a key that is written twice refused instead of the last one winning."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool | None):
            raise InvalidInput(f"line {key_node.start_mark.line + 1}: a key must be a word")
        if key in seen:
            raise InvalidInput(f"line {key_node.start_mark.line + 1}: {key!r} is written twice")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _check_size(found: list[Any], what: str) -> None:
    """Refuse documents whose aliases unfold to far more than was written, before anybody walks through them."""
    waiting: list[Any] = [found]
    seen = 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > _MAX_VALUES:
            raise InvalidInput(
                f"its aliases unfold to more than {_MAX_VALUES:,} values: write a small {what}"
            )
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
