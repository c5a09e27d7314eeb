"""A contract as Polars expressions: which records hold, and for those that do not, which rules they break."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final, Literal

import msgspec
import polars as pl

from taut.core.evidence import Scalar
from taut.core.frames import TO_POLARS
from taut.core.schema import DType
from taut.lifecycle.data.patterns import full_match
from taut.project.contract import check_contract, scalar_of
from taut.project.manifest import ColumnSpec, ContractSpec

_OK: Final = "\x00ok"
_FEW: Final = 8
_LARGE: Final = 50_000


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule over one row. `holds` is true, false, or null where the column's value is null (which holds)."""

    name: str  # `column:rule`, or `_row:name`
    columns: tuple[str, ...]
    holds: pl.Expr


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A frame, split. `holds` is a mask over the rows; `broken` has, for the others in order, a mask per broken rule."""

    holds: pl.Series
    broken: pl.DataFrame  # a Boolean column per rule that some row breaks; one row per bad record

    @property
    def bad(self) -> int:
        return self.broken.height

    @property
    def counts(self) -> dict[str, int]:
        """Broken rule -> number of records that break it."""
        return {name: int(self.broken[name].sum()) for name in self.broken.columns}

    def reasons(self) -> list[tuple[str, ...]]:
        """Return, for each bad record in order, the names of the rules that it breaks."""
        found: list[tuple[str, ...]] = [()] * self.bad
        for name in self.broken.columns:
            for row in self.broken[name].arg_true().to_list():
                found[row] = (*found[row], name)
        return found

    def split(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows of a frame that hold, and those that do not, each in order."""
        if not self.bad:
            return frame, frame.clear()
        return frame.filter(self.holds), frame[(~self.holds).arg_true()]


class CompiledContract:
    """A contract that contradicts itself nowhere, ready to check frames of its own types.

    Rules look at one row each. Uniqueness is kept by `SeenKeys`, since it needs every other row.
    """

    def __init__(self, spec: ContractSpec) -> None:
        """Raises InvalidInput where the contract contradicts itself, naming the column."""
        check_contract(spec)
        self.spec = spec
        self.rules: tuple[Rule, ...] = tuple(
            rule for column in spec.columns for rule in _column_rules(column)
        ) + tuple(
            Rule(
                name=f"_row:{rule.name}",
                columns=tuple(pl.sql_expr(rule.holds).meta.root_names()),
                holds=pl.sql_expr(rule.holds).cast(pl.Boolean).fill_null(False),
            )
            for rule in spec.rules
        )
        self._all_hold = (
            pl.all_horizontal([rule.holds.fill_null(True) for rule in self.rules])
            if self.rules
            else pl.lit(True)
        )

    def check(self, typed: pl.DataFrame, *, broken_types: dict[str, pl.Series] | None = None) -> Checked:
        """Check typed rows in one pass; the rules are looked at one by one only for rows that break some.

        typed: the contract's columns in the contract's types; broken_types: masks of values that would not become
        their type (null in `typed`), reported as `column:type` instead of `column:null`.
        """
        types = broken_types or {}
        # large frames in pieces on every core (twice as fast on two); the order of rows is kept
        engine: Literal["streaming", "in-memory"] = "streaming" if typed.height > _LARGE else "in-memory"
        holds = typed.lazy().select(self._all_hold.alias(_OK)).collect(engine=engine)[_OK]
        if holds.len() != typed.height:  # no rule at all is a literal of one row
            holds = pl.repeat(True, typed.height, eager=True)
        for mask in types.values():
            holds = holds & ~mask
        if holds.all():
            return Checked(holds=holds, broken=pl.DataFrame())
        where = (~holds).arg_true()
        return Checked(
            holds=holds, broken=self._reasons(typed[where], {n: m.gather(where) for n, m in types.items()})
        )

    def _reasons(self, bad: pl.DataFrame, types: dict[str, pl.Series]) -> pl.DataFrame:
        masks = bad.select((~rule.holds).fill_null(False).alias(rule.name) for rule in self.rules)
        for name, mask in types.items():
            null = f"{name}:null"
            if null in masks.columns:
                masks = masks.with_columns((masks[null] & ~mask).alias(null))
            masks = masks.with_columns(mask.alias(f"{name}:type"))
        return masks.select(column for column in masks.columns if masks[column].any())


def _column_rules(spec: ColumnSpec) -> list[Rule]:
    column = pl.col(spec.name)
    rules: list[tuple[str, pl.Expr]] = []
    if not spec.nullable:
        rules.append(("null", column.is_not_null()))
    if spec.dtype is DType.FLOAT:
        rules.append(("finite", column.is_finite()))
    if spec.minimum is not None:
        rules.append(("minimum", _or_nan(column >= _literal(spec.minimum, spec.dtype), spec)))
    if spec.maximum is not None:
        rules.append(("maximum", _or_nan(column <= _literal(spec.maximum, spec.dtype), spec)))
    if spec.allowed is not None:
        rules.append(("allowed", _one_of(column, spec.allowed, spec.dtype)))
    if spec.pattern is not None:
        rules.append(("pattern", full_match(column, spec.pattern)))
    if spec.min_length is not None:
        rules.append(("min_length", column.str.len_chars() >= spec.min_length))
    if spec.max_length is not None:
        rules.append(("max_length", column.str.len_chars() <= spec.max_length))
    return [Rule(name=f"{spec.name}:{name}", columns=(spec.name,), holds=holds) for name, holds in rules]


def _one_of(column: pl.Expr, allowed: tuple[Scalar, ...], dtype: DType) -> pl.Expr:
    values = [scalar_of(value, dtype) for value in allowed]
    if dtype is DType.STRING and len(values) <= _FEW:
        return pl.any_horizontal(
            column == pl.lit(value) for value in values
        )  # hashing texts takes twice as long
    return column.is_in(pl.Series(values, dtype=TO_POLARS[dtype]).implode())


def _or_nan(holds: pl.Expr, spec: ColumnSpec) -> pl.Expr:
    """NaN breaks `finite`, and no bound besides."""
    return holds | pl.col(spec.name).is_nan() if spec.dtype is DType.FLOAT else holds


def _literal(value: Scalar, dtype: DType) -> pl.Expr:
    return pl.lit(scalar_of(value, dtype), dtype=TO_POLARS[dtype])


def as_json(value: Any) -> Scalar:
    """Return a cell as a JSON scalar: times as ISO 8601 text, numbers that JSON has not as their names."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
