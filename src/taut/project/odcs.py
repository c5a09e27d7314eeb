"""Contracts as Open Data Contract Standard YAML (v3.0 and v3.1), both ways.

What the standard has a word for is written in it; the rest are custom properties named `taut.…`. A check that taut
cannot keep is refused when the file is read, never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput
from taut.project.manifest import ContractSpec
from taut.project.odcs_columns import columns_of, property_of
from taut.project.odcs_quality import Reading, quality_of
from taut.project.odcs_words import FREE_SPEC, Item, age_of, custom, items, only, sla_of
from taut.project.words import nearest
from taut.project.yaml_files import documents, dump, read_text

API_VERSION: Final = "v3.1.0"
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


def read_odcs(path: Path) -> ContractSpec:
    """Read a contract from a file; `FILE.yaml#NAME` picks one of several objects in it.

    Raises NotFound for an absent file, InvalidInput for one that is no contract or says what taut cannot keep, with
    the place in the file.
    """
    text, _, wanted = str(path).partition("#")
    file = Path(text)
    content = read_text(file, "contract")
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
    return dump(document)


def _load(text: str) -> Item:
    found = documents(text, "contract")
    if len(found) > 1:
        raise InvalidInput(f"this is no YAML: {len(found)} documents where a contract is one")
    if len(found) != 1 or not isinstance(found[0], dict):
        raise InvalidInput("this is no contract: expected apiVersion, kind, schema …")
    return found[0]


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
