"""Properties of an Open Data Contract Standard file as columns, both ways."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.schema import DType
from taut.project.manifest import ColumnSpec, RowRuleSpec
from taut.project.odcs_words import Item, custom, items, only, plain, quoted, word_of

_TYPES: Final = {
    "string": DType.STRING, "integer": DType.INT, "number": DType.FLOAT, "boolean": DType.BOOL,
    "date": DType.DATE, "timestamp": DType.DATETIME,
}  # fmt: skip
_LOGICAL: Final = {dtype: word for word, dtype in _TYPES.items()}
_PROPERTY: Final = frozenset(
    [
        "id", "name", "logicalType", "logicalTypeOptions", "physicalType", "physicalName", "description", "required",
        "unique", "primaryKey", "primaryKeyPosition", "quality", "customProperties", "businessName", "classification",
        "criticalDataElement", "encryptedName", "examples", "partitioned", "partitionKeyPosition", "tags",
        "authoritativeDefinitions", "transformLogic", "transformSourceObjects", "transformDescription", "relationships",
    ]
)  # fmt: skip
_OPTIONS: Final = frozenset(
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "minLength", "maxLength", "multipleOf", "format"]
)  # fmt: skip
_FORMATS: Final = {
    "uuid": "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
    "email": r"[^@\s]+@[^@\s]+\.[^@\s]+",
    "ipv4": r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])",
}
_ISO_FORMATS: Final = (
    "yyyy-MM-dd",
    "yyyy-MM-ddTHH:mm:ssZ",
    "yyyy-MM-ddTHH:mm:ss",
    "yyyy-MM-dd'T'HH:mm:ss'Z'",
    "i32",
    "i64",
    "f32",
    "f64",
)


class ColumnRead(msgspec.Struct, frozen=True, kw_only=True):
    """A column, its quality checks still to be applied, and rules that its options need."""

    spec: ColumnSpec
    checks: list[Item]
    rules: tuple[RowRuleSpec, ...]


def columns_of(table: Item, where: str) -> list[ColumnRead]:
    """Return the columns of a table in order. Raises InvalidInput for a name that stands twice."""
    found: dict[str, ColumnRead] = {}
    for entry in items(table, "properties", where):
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"{where}: a property has no name")
        if name in found:
            raise InvalidInput(f"{where}: property {name!r} is declared twice")
        found[name] = _column(name, entry, f"{where}: property {name!r}")
    if not found:
        raise InvalidInput(f"{where} has no properties")
    return list(found.values())


def property_of(column: ColumnSpec) -> Item:
    """Return a column as a property that `columns_of` and its checks read back."""
    options: Item = {
        key: value
        for key, value in (
            ("minimum", column.minimum), ("maximum", column.maximum), ("pattern", column.pattern),
            ("minLength", column.min_length), ("maxLength", column.max_length),
        )
        if value is not None
    }  # fmt: skip
    entry: Item = {
        "name": column.name,
        "logicalType": _LOGICAL[column.dtype],
        "required": not column.nullable,
    }
    if column.unique:
        entry["unique"] = True
    if column.description:
        entry["description"] = column.description
    if options:
        entry["logicalTypeOptions"] = options
    if column.allowed is not None:
        arguments = {"validValues": list(column.allowed)}
        entry["quality"] = [
            {"type": "library", "metric": "invalidValues", "arguments": arguments, "mustBe": 0}
        ]
    own: list[tuple[str, object]] = [
        ("taut.personal", column.personal),
        ("taut.maxBadFraction", column.max_bad_fraction),
        ("taut.optional", None if column.required else True),
    ]
    if listed := [{"property": key, "value": value} for key, value in own if value is not None]:
        entry["customProperties"] = listed
    return entry


def _column(name: str, entry: Item, where: str) -> ColumnRead:
    only(entry, _PROPERTY, where)
    options = entry.get("logicalTypeOptions") or {}
    if not isinstance(options, dict):
        raise InvalidInput(f"{where}: logicalTypeOptions must be a mapping")
    only(options, _OPTIONS, f"{where}: logicalTypeOptions")
    logical = entry.get("logicalType")
    if logical == "date" and "H" in str(options.get("format") or ""):
        logical = "timestamp"  # v3.0 has no word for a time: its dates carry a format
    logical = word_of(logical, _TYPES, f"{where}: logicalType")
    own = custom(entry, where)
    for key in own:
        if key.startswith("taut.") and key not in ("taut.personal", "taut.optional", "taut.maxBadFraction"):
            raise InvalidInput(
                f"{where}: {key!r} is unknown: there is taut.personal, taut.optional, taut.maxBadFraction"
            )
    fields: dict[str, Any] = {
        "name": name,
        "dtype": _TYPES[logical],
        "nullable": not _flag(entry, "required", where),
        "unique": _flag(entry, "unique", where),
        "required": not own.get("taut.optional", False),
        "personal": own.get("taut.personal"),
        "max_bad_fraction": own.get("taut.maxBadFraction"),
        "description": str(entry.get("description") or ""),
        "minimum": plain(options.get("minimum")),
        "maximum": plain(options.get("maximum")),
        "pattern": options.get("pattern"),
        "min_length": options.get("minLength"),
        "max_length": options.get("maxLength"),
    }
    rules = _exclusive(name, options, fields) + _multiple(name, options)
    _format(options, fields, where)
    try:
        spec = msgspec.convert(fields, ColumnSpec)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{where}: {error}") from error
    return ColumnRead(spec=spec, checks=items(entry, "quality", where), rules=rules)


def _flag(entry: Item, key: str, where: str) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise InvalidInput(f"{where}: {key} is {value!r}: write true or false")
    return value


def _exclusive(name: str, options: Item, fields: dict[str, Any]) -> tuple[RowRuleSpec, ...]:
    """Read open bounds, which v3.0 writes as a flag beside the bound and v3.1 as the bound itself."""
    rules = []
    for word, bound, sign in (("exclusiveMinimum", "minimum", ">"), ("exclusiveMaximum", "maximum", "<")):
        value = options.get(word)
        if value is None or value is False:
            continue
        if value is True:
            value, fields[bound] = fields[bound], None
        if isinstance(value, int | float) and not isinstance(value, bool):
            holds = f"{quoted(name)} IS NULL OR {quoted(name)} {sign} {value}"
            rules.append(RowRuleSpec(name=f"{name} {sign} {value}", holds=holds))
        else:
            raise InvalidInput(f"property {name!r}: {word} needs a number")
    return tuple(rules)


def _multiple(name: str, options: Item) -> tuple[RowRuleSpec, ...]:
    step = options.get("multipleOf")
    if step is None:
        return ()
    if not isinstance(step, int) or isinstance(step, bool) or step <= 0:
        raise InvalidInput(f"property {name!r}: multipleOf is {step!r}: taut keeps whole positive steps")
    holds = f"{quoted(name)} IS NULL OR {quoted(name)} % {step} = 0"
    return (RowRuleSpec(name=f"{name} multiple of {step}", holds=holds),)


def _format(options: Item, fields: dict[str, Any], where: str) -> None:
    shape = options.get("format")
    if shape is None or shape in _ISO_FORMATS:
        return
    if shape not in _FORMATS or fields["dtype"] is not DType.STRING:
        raise InvalidInput(
            f"{where}: format {shape!r} is not kept by taut: dates are ISO 8601, texts may be {', '.join(_FORMATS)} "
            "or have a pattern"
        )
    if fields["pattern"] is None:
        fields["pattern"] = _FORMATS[shape]
