"""Contracts as Open Data Contract Standard YAML (v3.0 and v3.1), both ways.

What the standard has a word for is written in it; the rest are custom properties named `taut.…`. A check that taut
cannot keep is refused when the file is read, never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from taut.core.errors import InvalidInput, NotFound
from taut.project.manifest import ContractSpec
from taut.project.odcs_columns import columns_of, property_of
from taut.project.odcs_quality import Reading, quality_of
from taut.project.odcs_words import FREE_SPEC, Item, age_of, custom, items, only, sla_of
from taut.project.words import nearest

API_VERSION: Final = "v3.1.0"
_MAX_BYTES: Final = 4 * 2**20
_FOLDED: Final = frozenset("\r\n\x85\u2028\u2029\ufeff")
_OBJECT: Final = frozenset(
    [
        "id",
        "name",
        "logicalType",
        "physicalType",
        "physicalName",
        "description",
        "properties",
        "quality",
        "customProperties",
        "businessName",
        "tags",
        "authoritativeDefinitions",
        "dataGranularityDescription",
        "relationships",
    ]
)


_MAX_VALUES: Final = 500_000


def read_odcs(path: Path) -> ContractSpec:
    """Read a contract from a file; `FILE.yaml#NAME` picks one of several objects in it.

    Raises NotFound for an absent file, InvalidInput for one that is no contract or says what taut cannot keep, with
    the place in the file.
    """
    text, _, wanted = str(path).partition("#")
    file = Path(text)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InvalidInput(f"{file} is larger than 4 MiB: a contract is a small file")
        content = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = sorted(p.name for p in file.parent.glob("*.y*ml")) if file.parent.is_dir() else []
        raise NotFound(f"there is no contract {file}{nearest(file.name, there)}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file}: byte {error.start} is not utf-8: save it as UTF-8") from error
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error
    try:
        return parse_odcs(content, name=wanted or None)
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error}") from error


def parse_odcs(text: str, *, name: str | None = None) -> ContractSpec:
    """Parse a contract. name: which object of its schema; may be left out when there is one."""
    document = _load(text)
    if document.get("kind", "DataContract") != "DataContract":
        raise InvalidInput(f"kind is {document['kind']!r}, not DataContract")
    version = str(document.get("apiVersion", API_VERSION))
    if not version.startswith("v3."):
        raise InvalidInput(f"apiVersion is {version!r}: taut reads v3.0 and v3.1 of the standard")
    table = _object(document, name)
    where = f"schema {table['name']!r}"
    only(table, _OBJECT, where)
    own = {**custom(document, "contract"), **custom(table, where)}
    reading = Reading(columns_of(table, where))
    for check in items(table, "quality", where):
        reading.apply(check, column=None, where=where)
    keyed = _primary_key(table, where)
    if len(keyed) == 1:
        reading.change(keyed[0], unique=True)
    elif keyed:
        reading.keys.insert(0, keyed)
    freshness = _freshness(document, where)
    spec: dict[str, Any] = {word: own.pop(key) for key, word in FREE_SPEC.items() if key in own}
    for key in own:
        if key.startswith("taut."):
            raise InvalidInput(f"{where}: customProperties has {key!r}{nearest(key, FREE_SPEC)}")
    spec = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
    if reading.min_rows is not None:
        spec["min_rows"] = reading.min_rows
    try:
        return _converted(
            {
                **spec,
                **freshness,
                "columns": tuple(reading.columns.values()),
                "rules": tuple(reading.rules),
                "unique": tuple(reading.keys),
                "version": str(document.get("version", "1")),
                "description": _purpose(document),
            }
        )
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{where}: {error}") from error


def write_odcs(spec: ContractSpec, *, name: str) -> str:
    """Return a contract as YAML that `parse_odcs` reads back to an equal one. name: of the table and the contract."""
    default = ContractSpec(columns=())
    own = [
        {"property": key, "value": list(value) if isinstance(value, tuple) else value}
        for key, word in FREE_SPEC.items()
        if (value := getattr(spec, word)) != getattr(default, word)
    ]
    table: Item = {
        "name": name,
        "physicalType": "table",
        "properties": [property_of(column) for column in spec.columns],
    }
    if quality := quality_of(spec):
        table["quality"] = quality
    document: Item = {
        "apiVersion": API_VERSION, "kind": "DataContract", "id": name, "name": name, "version": spec.version,
        "status": "active",
    }  # fmt: skip
    if spec.description:
        document["description"] = {"purpose": spec.description}
    document["schema"] = [table]
    if spec.freshness_column is not None and spec.max_age is not None:
        value, unit = sla_of(spec.max_age)
        document["slaProperties"] = [
            {
                "property": "freshness",
                "value": value,
                "unit": unit,
                "element": f"{name}.{spec.freshness_column}",
            }
        ]
    if own:
        document["customProperties"] = own
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


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


def _load(text: str) -> Item:
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that refuses more
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        raise InvalidInput(f"{place}this is no YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError as error:
        raise InvalidInput("this YAML is nested too deep to be a contract") from error
    if not isinstance(document, dict):
        raise InvalidInput("this is no contract: expected apiVersion, kind, schema …")
    _check_size(document)
    return document


def _check_size(document: Item) -> None:
    """Refuse a document whose aliases unfold to far more than was written, before anybody walks through it."""
    waiting: list[Any] = [document]
    seen = 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if seen > _MAX_VALUES:
            raise InvalidInput(
                f"its aliases unfold to more than {_MAX_VALUES:,} values: write a small contract"
            )
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _object(document: Item, name: str | None) -> Item:
    tables = [table for table in items(document, "schema", "contract") if isinstance(table.get("name"), str)]
    if not tables:
        raise InvalidInput("schema is missing or has no object with a name")
    names = [table["name"] for table in tables]
    if name is None and len(tables) > 1:
        raise InvalidInput(f"schema has {', '.join(names)}: say which, as FILE.yaml#{names[0]}")
    for table in tables:
        if name is None or table["name"] == name:
            return table
    raise InvalidInput(f"schema has no {name!r}{nearest(str(name), names)}")


def _primary_key(table: Item, where: str) -> tuple[str, ...]:
    keyed = [p for p in items(table, "properties", where) if p.get("primaryKey")]
    positions = [p.get("primaryKeyPosition", -1) for p in keyed]
    order = sorted(
        range(len(keyed)), key=lambda i: (positions[i] if isinstance(positions[i], int) else -1, i)
    )
    return tuple(str(keyed[i]["name"]) for i in order)


def _freshness(document: Item, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for sla in items(document, "slaProperties", "contract"):
        if sla.get("property") != "freshness":
            continue  # promises about service, not about the data: nothing that a batch could break
        element = str(sla.get("element") or document.get("slaDefaultElement") or "")
        if "." not in element:
            raise InvalidInput(f"{where}: slaProperties freshness needs element: TABLE.COLUMN")
        found = {
            "freshness_column": element.rpartition(".")[2],
            "max_age": age_of(sla.get("value"), sla.get("unit")),
        }
    return found


def _purpose(document: Item) -> str:
    description = document.get("description")
    if isinstance(description, Mapping):
        return str(description.get("purpose") or "")
    return str(description or "")


def _converted(fields: Mapping[str, Any]) -> ContractSpec:
    return msgspec.convert(dict(fields), ContractSpec, from_attributes=True)
