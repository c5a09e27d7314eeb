"""Small words of the Open Data Contract Standard: lists, custom properties, ages."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Any, Final

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project.words import nearest

Item = dict[str, Any]
"""A mapping as YAML gave it."""

FREE_SPEC: Final = {
    "taut.extraColumns": "extra_columns",
    "taut.nullValues": "null_values",
    "taut.maxBadFraction": "max_bad_fraction",
    "taut.minRows": "min_rows",
    "taut.pii": "pii",
}
_UNITS: Final = {
    "d": "d", "day": "d", "days": "d", "h": "h", "hr": "h", "hour": "h", "hours": "h", "m": "m", "min": "m",
    "minute": "m", "minutes": "m", "s": "s", "second": "s", "seconds": "s", "w": "w", "week": "w", "weeks": "w",
    "ms": "ms",
}  # fmt: skip


def items(holder: Item, key: str, where: str) -> list[Item]:
    """Return a list of mappings, empty where there is none. Raises InvalidInput for anything else."""
    found = holder.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidInput(f"{where}: {key} must be a list of mappings")
    return found


def word_of(value: object, words: Collection[str], what: str) -> str:
    """Return one of `words`. Raises InvalidInput, with the nearest, for another word or for no word at all."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what} must be a word: there is {', '.join(sorted(words))}")
    if value not in words:
        raise InvalidInput(f"{what} is {value!r}{nearest(value, words)}")
    return value


def only(entry: Item, words: Collection[str], where: str) -> None:
    """Refuse a key that the standard does not know, with the nearest that it does."""
    for key in entry:
        if key not in words:
            raise InvalidInput(f"{where}: {key!r} is unknown{nearest(str(key), words)}")


def custom(holder: Item, where: str) -> Item:
    """Return custom properties by name. Raises InvalidInput for one that stands twice."""
    found: Item = {}
    for entry in items(holder, "customProperties", where):
        key = entry.get("property")
        if not isinstance(key, str) or "value" not in entry:
            raise InvalidInput(f"{where}: each of customProperties needs property and value")
        if key in found:
            raise InvalidInput(f"{where}: customProperties has {key!r} twice")
        found[key] = plain(entry["value"])
    return found


def plain(value: Any) -> Any:
    """Return what YAML made of a value as JSON would have it: dates and times as ISO 8601 text."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def quoted(name: str) -> str:
    """Return a column's name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def age_of(value: object, unit: object) -> str:
    """Return a service level's value and unit as a duration such as `48h`."""
    short = _UNITS.get(str(unit).lower())
    if short is None:
        raise InvalidInput(f"unit {unit!r} is unknown: write one of {', '.join(sorted(_UNITS))}")
    text = f"{value}{short}"
    parse_duration(text)
    return text


def sla_of(age: str) -> tuple[int | float, str]:
    """Return a duration such as `48h` as a value and a unit that `age_of` puts together again."""
    parse_duration(age)
    number = age.strip().rstrip("abcdefghijklmnopqrstuvwxyz").strip()
    unit = age.strip()[len(number) :].strip()
    return (float(number) if "." in number else int(number)), unit
