"""Quality checks of an Open Data Contract Standard file as columns' rules, row rules and keys, both ways."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput
from taut.project.manifest import ContractSpec, RowRuleSpec
from taut.project.odcs_columns import ColumnRead
from taut.project.odcs_words import Item, only, plain, word_of

_CHECK: Final = frozenset(
    [
        "id", "name", "type", "metric", "rule", "description", "dimension", "severity", "businessImpact", "unit",
        "arguments", "validValues", "engine", "implementation", "query", "mustBe", "mustNotBe", "mustBeGreaterThan",
        "mustBeGreaterOrEqualTo", "mustBeLessThan", "mustBeLessOrEqualTo", "mustBeBetween", "mustNotBeBetween",
        "schedule", "scheduler", "tags", "customProperties", "authoritativeDefinitions", "method",
    ]
)  # fmt: skip
_METRICS: Final = {
    "nullValues": "null", "missingValues": "null", "nullCheck": "null", "invalidValues": "invalid",
    "validValues": "invalid", "duplicateValues": "duplicate", "duplicateCount": "duplicate", "rowCount": "rows",
}  # fmt: skip


class Reading:
    """A contract while its checks are applied to it."""

    def __init__(self, columns: list[ColumnRead]) -> None:
        self.columns = {column.spec.name: column.spec for column in columns}
        self.rules: list[RowRuleSpec] = [rule for column in columns for rule in column.rules]
        self.keys: list[tuple[str, ...]] = []
        self.min_rows: int | None = None
        for column in columns:
            for check in column.checks:
                self.apply(check, column=column.spec.name, where=f"property {column.spec.name!r}")

    def change(self, name: str, **fields: Any) -> None:
        self.columns[name] = msgspec.structs.replace(self.columns[name], **fields)

    def apply(self, check: Item, *, column: str | None, where: str) -> None:
        """Apply one check. Raises InvalidInput for one that taut cannot keep: it would be skipped in silence."""
        name = str(
            check.get("name") or check.get("metric") or check.get("rule") or check.get("type") or "check"
        )
        where = f"{where}: quality {name!r}"
        only(check, _CHECK, where)
        match check.get("type", "library"):
            case "text":
                return  # for people
            case "library":
                self._library(check, column, where)
            case "custom" if check.get("engine") == "taut":
                self._rule(check, where)
            case "sql":
                raise InvalidInput(
                    f"{where} is a query over the table, and taut looks at records one by one: write type: custom, "
                    "engine: taut, implementation: an SQL expression that holds for each row"
                )
            case other:
                raise InvalidInput(
                    f"{where} is of type {other!r} {check.get('engine') or ''}: taut cannot run it"
                )

    def _library(self, check: Item, column: str | None, where: str) -> None:
        kind = _METRICS[word_of(check.get("metric") or check.get("rule"), _METRICS, f"{where}: metric")]
        arguments = check.get("arguments") or {}
        if not isinstance(arguments, dict):
            raise InvalidInput(f"{where}: arguments must be a mapping")
        if kind == "rows":
            self.min_rows = _least_rows(check, where)
            return
        if kind == "duplicate" and column is None:
            _none_allowed(check, where)
            names = arguments.get("properties") or check.get("properties") or ()
            self.keys.append(tuple(str(name) for name in names))
            return
        if column is None:
            raise InvalidInput(f"{where} must stand at a property, or it does not say which column it means")
        if kind == "duplicate":
            _none_allowed(check, where)
            self.change(column, unique=True)
            return
        share = _share(check, where)
        fields: dict[str, Any] = {} if share == 0 else {"max_bad_fraction": share}
        if kind == "null":
            fields["nullable"] = False
        else:
            values = arguments.get("validValues", check.get("validValues"))
            if values is not None:
                fields["allowed"] = tuple(plain(value) for value in values)
            if "pattern" in arguments:
                fields["pattern"] = str(arguments["pattern"])
            if len(arguments) + ("validValues" in check) == 0:
                raise InvalidInput(
                    f"{where} does not say what is valid: give arguments validValues or pattern"
                )
        self.change(column, **fields)

    def _rule(self, check: Item, where: str) -> None:
        holds, name = check.get("implementation"), check.get("name")
        if not isinstance(holds, str) or not isinstance(name, str):
            raise InvalidInput(f"{where}: engine taut needs a name and an implementation, an SQL expression")
        limited = any(key.startswith("must") for key in check)
        self.rules.append(
            RowRuleSpec(
                name=name,
                holds=holds,
                max_bad_fraction=_share(check, where) if limited else None,
                description=str(check.get("description") or ""),
            )
        )


def quality_of(spec: ContractSpec) -> list[Item]:
    """Return a contract's keys and row rules as checks of a table."""
    checks: list[Item] = [
        {"type": "library", "metric": "duplicateValues", "arguments": {"properties": list(key)}, "mustBe": 0}
        for key in spec.unique
    ]
    for rule in spec.rules:
        check: Item = {"type": "custom", "engine": "taut", "name": rule.name, "implementation": rule.holds}
        if rule.description:
            check["description"] = rule.description
        if rule.max_bad_fraction is not None:
            check |= {"mustBeLessOrEqualTo": rule.max_bad_fraction * 100, "unit": "percent"}
            if check["mustBeLessOrEqualTo"] / 100 != rule.max_bad_fraction:  # percent cannot say it exactly
                check["mustBeLessOrEqualTo"] = rule.max_bad_fraction
                check["unit"] = "fraction"
        checks.append(check)
    return checks


def _limits(check: Item) -> Item:
    return {key: value for key, value in check.items() if key.startswith(("mustBe", "mustNot"))}


def _none_allowed(check: Item, where: str) -> None:
    if _limits(check) not in ({"mustBe": 0}, {"mustBeLessOrEqualTo": 0}, {"mustBeLessThan": 1}, {}):
        raise InvalidInput(f"{where}: taut quarantines every duplicate: write mustBe: 0")


def _share(check: Item, where: str) -> float:
    """Return the part of rows that a check lets break. Raises InvalidInput for a count, which no batch size fits."""
    limits = _limits(check)
    if limits in ({"mustBe": 0}, {}):
        return 0.0
    scale = {"percent": 100.0, "fraction": 1.0}.get(str(check.get("unit")))
    for key in ("mustBeLessThan", "mustBeLessOrEqualTo"):
        value = limits.get(key)
        if len(limits) == 1 and scale and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value) / scale
    raise InvalidInput(f"{where}: taut keeps mustBe: 0, or mustBeLessThan with unit: percent")


def _least_rows(check: Item, where: str) -> int:
    limits = _limits(check)
    for key, more in (("mustBeGreaterThan", 1), ("mustBeGreaterOrEqualTo", 0)):
        value = limits.get(key)
        if len(limits) == 1 and isinstance(value, int) and not isinstance(value, bool):
            return value + more
    raise InvalidInput(f"{where}: taut keeps rowCount with mustBeGreaterThan or mustBeGreaterOrEqualTo")
