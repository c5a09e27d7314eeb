"""Whether a contract contradicts itself: every fault found at once, each named with its column."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.core.schema import DType
from taut.core.units import parse_duration
from taut.project.manifest import ColumnSpec, ContractSpec, DatasetSpec
from taut.project.words import nearest

if TYPE_CHECKING:
    import polars as pl

RESERVED: Final = ("_row_id", "_row")
_ORDERED: Final = (DType.INT, DType.FLOAT, DType.STRING, DType.DATE, DType.DATETIME)
_SUBQUERY: Final = re.compile(r"\bselect\b", re.IGNORECASE)
_WIDE_NODES: Final = frozenset(["Agg", "AnonymousAgg", "Over", "Window", "Rolling", "Sort", "SortBy", "Slice", "Filter", "Gather", "Explode", "SubPlan"])  # fmt: skip
_HIDDEN: Final = ("seal", "redact", "tokenise", "pseudonymise")


def check_contract(spec: ContractSpec) -> None:
    """Raises InvalidInput that lists every fault of a contract, each with its column or rule."""
    _refuse("contract", tuple(contract_faults(spec)))


def check_dataset(spec: DatasetSpec) -> None:
    """Raises InvalidInput that lists every fault of a dataset's contract and of what it names in it."""
    _refuse(f"dataset {spec.name!r}", tuple(dataset_faults(spec)))


def _refuse(what: str, faults: tuple[str, ...]) -> None:
    if faults:
        raise InvalidInput(f"{what} contradicts itself: " + "; ".join(faults))


def contract_faults(spec: ContractSpec) -> Iterator[str]:
    """Yield what is wrong with a contract, in words. Yields nothing when batches can be judged by it."""
    if not spec.columns:
        yield "no column is declared: name at least one"
    names = [column.name for column in spec.columns]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"column {name!r} is declared {names.count(name)} times: keep one"
    for column in spec.columns:
        for fault in _column_faults(column):
            yield f"column {column.name!r}: {fault}"
    yield from _key_faults(spec, names)
    yield from _rule_faults(spec, names)
    yield from _batch_faults(spec, names)


def dataset_faults(spec: DatasetSpec) -> Iterator[str]:
    """Yield what is wrong with a dataset: its contract, its key columns, its subject and what is sealed."""
    yield from contract_faults(spec.contract)
    columns = {column.name: column for column in spec.contract.columns}
    named = [("entity", name) for name in spec.entity]
    named += [("event_time", spec.event_time)] if spec.event_time is not None else []
    named += [("subject", spec.subject)] if spec.subject is not None else []
    for word, name in named:
        if name not in columns:
            yield f"{word} {name!r} is no column{nearest(name, columns)}"
    time = columns.get(spec.event_time or "")
    if time is not None and time.dtype not in (DType.DATE, DType.DATETIME):
        yield f"event_time {time.name!r} has type {time.dtype}: it must be date or datetime"
    subject = columns.get(spec.subject or "")
    if subject is not None and subject.nullable:
        yield f"column {subject.name!r} is the subject and may not be nullable: whose row would it be?"
    if subject is not None and subject.personal in ("seal", "redact"):
        yield (
            f"column {subject.name!r} is the subject and cannot be kept as {subject.personal!r}: "
            "use pseudonymise, tokenise or keep, so that a person's rows can be found"
        )
    for column in spec.contract.columns:
        if column.personal == "seal" and spec.subject is None:
            yield f"column {column.name!r} is to be sealed but the dataset names no subject: add subject=COLUMN"
        if (
            column.personal in _HIDDEN
            and column.name in (*spec.entity, spec.event_time)
            and (column.personal in ("seal", "redact") or column.name == spec.event_time)
        ):
            yield f"column {column.name!r} is a key and cannot be kept as {column.personal!r}: use pseudonymise"


def scalar_of(value: Scalar, dtype: DType) -> bool | int | float | str | date | datetime | None:
    """Return a bound or an allowed value as a value of the column's type.

    Dates and times are ISO 8601 text; a time without an offset is UTC. Raises InvalidInput on anything else.
    """
    match dtype, value:
        case (_, None) | (DType.STRING, str()) | (DType.BOOL, bool()):
            return value
        case (DType.INT | DType.FLOAT, bool()):
            pass
        case (DType.INT, int()):
            return value
        case (DType.INT, float()) if value.is_integer():
            return int(value)
        case (DType.FLOAT, int() | float()) if value == value:
            return float(value)
        case (DType.DATE, str()):
            try:
                return date.fromisoformat(value)
            except ValueError:
                pass
        case (DType.DATETIME, str()):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                pass
            else:
                return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    raise InvalidInput(f"{value!r} is no {dtype}")


def _column_faults(column: ColumnSpec) -> Iterator[str]:
    if not column.name or column.name in RESERVED or any(c < " " for c in column.name):
        yield "this name is taken or cannot be written: choose another"
    readable = True
    for word, value in (("minimum", column.minimum), ("maximum", column.maximum)):
        if value is None:
            continue
        if column.dtype not in _ORDERED:
            yield f"{word} has no meaning for {column.dtype}"
            readable = False
            continue
        try:
            scalar_of(value, column.dtype)
        except InvalidInput as error:
            yield f"{word} {error}"
            readable = False
    if readable:
        yield from _bound_faults(column)
    yield from _text_faults(column)
    yield from _share_fault(column.max_bad_fraction)
    if not column.required and not column.nullable:
        yield "it may be absent from a file but not be null: make it nullable, or required"
    if column.unique and column.personal in ("seal", "redact"):
        yield f"it cannot be unique and kept as {column.personal!r}: use pseudonymise, which keeps equality"


def _bound_faults(column: ColumnSpec) -> Iterator[str]:
    low, high = scalar_of(column.minimum, column.dtype), scalar_of(column.maximum, column.dtype)
    if low is not None and high is not None and low > high:  # type: ignore[operator]  # both are of the column's type
        yield f"minimum {column.minimum} is above maximum {column.maximum}: no value can hold"
    if column.allowed is None:
        return
    if not column.allowed:
        yield "allowed is empty: no value can hold; leave it out to allow all"
    for value in column.allowed:
        try:
            cell = scalar_of(value, column.dtype)
        except InvalidInput as error:
            yield f"allowed value {error}"
            continue
        if cell is None:
            yield "allowed lists null: say nullable instead"
        elif (low is not None and cell < low) or (high is not None and cell > high):  # type: ignore[operator]  # as above
            yield f"allowed value {value!r} is outside minimum {column.minimum} and maximum {column.maximum}"
        elif isinstance(value, str) and column.dtype is DType.STRING:
            yield from _allowed_text_faults(column, value)


def _allowed_text_faults(column: ColumnSpec, value: str) -> Iterator[str]:
    if column.min_length is not None and len(value) < column.min_length:
        yield f"allowed value {value!r} is shorter than min_length {column.min_length}"
    if column.max_length is not None and len(value) > column.max_length:
        yield f"allowed value {value!r} is longer than max_length {column.max_length}"
    if column.pattern is not None and pattern_fault(column.pattern) is None:
        import re2

        if re2.fullmatch(column.pattern, value) is None:
            yield f"allowed value {value!r} does not match pattern {column.pattern!r}"


def _text_faults(column: ColumnSpec) -> Iterator[str]:
    textual = (
        ("pattern", column.pattern),
        ("min_length", column.min_length),
        ("max_length", column.max_length),
    )
    for word, value in textual:
        if value is not None and column.dtype is not DType.STRING:
            yield f"{word} has no meaning for {column.dtype}: only for string"
    if column.pattern is not None and (fault := pattern_fault(column.pattern)):
        yield f"pattern {column.pattern!r} cannot be used: {fault}"
    if (
        column.min_length is not None
        and column.max_length is not None
        and column.min_length > column.max_length
    ):
        yield f"min_length {column.min_length} is above max_length {column.max_length}: no value can hold"
    for word, length in (("min_length", column.min_length), ("max_length", column.max_length)):
        if length is not None and length < 0:
            yield f"{word} is {length}: it cannot be negative"


def pattern_fault(pattern: str) -> str | None:
    """Say why RE2 cannot use a pattern; None when it can."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        return f"{said.decode() if isinstance(said, bytes) else said} (RE2 has no look-around or back-references)"
    return None


def _share_fault(share: float | None) -> Iterator[str]:
    if share is not None and not 0 <= share <= 1:
        yield f"max_bad_fraction is {share}: it must be from 0 to 1"


def _key_faults(spec: ContractSpec, names: list[str]) -> Iterator[str]:
    columns = {column.name: column for column in spec.columns}
    for key in spec.unique:
        if not key:
            yield "unique has a key without columns"
        for name in key:
            if name not in columns:
                yield f"unique key names {name!r}, which is no column{nearest(name, names)}"
            elif columns[name].personal in ("seal", "redact"):
                yield (
                    f"column {name!r} is part of a unique key and cannot be kept as "
                    f"{columns[name].personal!r}: use pseudonymise, which keeps equality"
                )


def _rule_faults(spec: ContractSpec, names: list[str]) -> Iterator[str]:
    seen: set[str] = set()
    for rule in spec.rules:
        if rule.name in seen:
            yield f"rule {rule.name!r} is declared twice: give each its own name"
        seen.add(rule.name)
        for fault in _share_fault(rule.max_bad_fraction):
            yield f"rule {rule.name!r}: {fault}"
        for fault in _expression_faults(rule.holds, spec, names):
            yield f"rule {rule.name!r}: {fault}"


def _expression_faults(holds: str, spec: ContractSpec, names: list[str]) -> Iterator[str]:
    import polars as pl  # half a second that only contracts with rules cost

    from taut.core.frames import TO_POLARS

    if _SUBQUERY.search(holds):
        yield f"{holds!r} has a query in it: a rule looks at one row"
        return
    try:
        expression = pl.sql_expr(holds)
        roots = expression.meta.root_names()
    except (pl.exceptions.PolarsError, ValueError) as error:
        yield f"{holds!r} is no SQL expression: {error}"
        return
    unknown = sorted({name for name in roots if name not in names})
    for name in unknown:
        yield f"{holds!r} names {name!r}, which is no column{nearest(name, names)}"
    if unknown:
        return
    if not roots:
        yield f"{holds!r} names no column: it says nothing about a row"
        return
    if _looks_further(expression):
        yield f"{holds!r} looks at other rows: a rule looks at one row"
        return
    empty = pl.DataFrame(schema={column.name: TO_POLARS[column.dtype] for column in spec.columns})
    try:
        result = empty.select(expression)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        yield f"{holds!r} does not fit the columns' types: {str(error).splitlines()[0]}"
        return
    if result.width != 1 or result.dtypes[0] not in (pl.Boolean, pl.Null):
        yield f"{holds!r} gives {result.dtypes[0] if result.width else 'nothing'}: a rule must be true or false"


def _looks_further(expression: pl.Expr) -> bool:
    """Say whether an expression's value for a row depends on other rows.

    Polars' own `is_row_separable` says true of `n > AVG(n)` (2.1), so the tree is looked at.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # this form of the tree may change: then the tests of this function fail
        tree = json.loads(expression.meta.serialize(format="json"))
    return _has_node(tree)


def _has_node(node: object) -> bool:
    if isinstance(node, dict):
        return any(
            key in _WIDE_NODES or (key != "Literal" and _has_node(value)) for key, value in node.items()
        )
    if isinstance(node, list):
        return any(_has_node(item) for item in node)
    return node == "Len"


def _batch_faults(spec: ContractSpec, names: list[str]) -> Iterator[str]:
    yield from _share_fault(spec.max_bad_fraction)
    if spec.min_rows < 0:
        yield f"min_rows is {spec.min_rows}: it cannot be negative"
    if (spec.freshness_column is None) != (spec.max_age is None):
        yield "freshness needs both freshness_column and max_age"
    if spec.max_age is not None:
        try:
            parse_duration(spec.max_age)
        except InvalidInput as error:
            yield f"max_age: {error}"
    if spec.freshness_column is None:
        return
    for column in spec.columns:
        if column.name == spec.freshness_column:
            if column.dtype not in (DType.DATE, DType.DATETIME):
                yield f"column {column.name!r}: freshness needs date or datetime, not {column.dtype}"
            return
    yield f"freshness_column {spec.freshness_column!r} is no column{nearest(spec.freshness_column, names)}"
