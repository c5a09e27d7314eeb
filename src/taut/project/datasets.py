"""Declaring data: files, contracts and datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Final, TypedDict, Unpack, get_args

import msgspec

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.core.schema import DType
from taut.project import words
from taut.project.declare import declare
from taut.project.manifest import (
    Classification,
    ColumnSpec,
    ContractSpec,
    DatasetSpec,
    PersonalHandling,
    RowRuleSpec,
    SourceSpec,
)
from taut.project.words import worded

Bound = Scalar | date | datetime
_HANDLINGS: Final[tuple[str, ...]] = get_args(PersonalHandling)
_CLASSIFICATIONS: Final[tuple[str, ...]] = get_args(Classification)
_INT64: Final = 2**63 - 1


@worded("files")
def files(url: str, *, format: str = "auto", encoding: str = "utf-8", separator: str = ",") -> SourceSpec:
    """A source of files.

    url: a path, glob or URL; relative paths start at the project's folder. format: `auto` goes by the file's name
    (`.csv`, `.jsonl`, `.parquet`, each also compressed).
    """
    import codecs

    try:
        codecs.lookup(words.text(encoding, "files: encoding"))
    except LookupError as error:
        raise InvalidInput(
            f"files: encoding {encoding!r} is unknown: write for example utf-8 or latin-1"
        ) from error
    if len(words.text(separator, "files: separator")) != 1:
        raise InvalidInput(f"files: separator is {separator!r}: write one character")
    kind = words.one_of(format, ("auto", "csv", "jsonl", "parquet"), "files: format")
    return SourceSpec(
        url=words.text(url, "files: url"),
        format=kind,  # type: ignore[arg-type]  # one_of checked it against the same words
        encoding=encoding,
        separator=separator,
    )


class Promises(TypedDict, total=False):
    """What a column may promise besides its type; bounds are inclusive, `pattern` (RE2) must match the whole value.

    required: it must be in every file. personal: how a personal value is stored. max_bad_fraction: a batch in which
    more values break these promises is rejected whole.
    """

    nullable: bool
    minimum: Bound
    maximum: Bound
    allowed: Sequence[Scalar] | None
    pattern: str | None
    min_length: int | None
    max_length: int | None
    unique: bool
    required: bool
    personal: str | None
    max_bad_fraction: float | None
    description: str


@worded("column")
def column(name: str, dtype: str | DType, **promises: Unpack[Promises]) -> ColumnSpec:
    """One column: its name, its type (`bool int float string date datetime`) and what it promises."""
    what = f"column {words.text(name, 'column: name')!r}"
    unknown = [word for word in promises if word not in Promises.__annotations__]
    if unknown:
        raise InvalidInput(
            f"{what} has no argument {unknown[0]!r}{words.nearest(unknown[0], Promises.__annotations__)}"
        )
    personal = promises.get("personal")
    handling = None if personal is None else words.one_of(personal, _HANDLINGS, f"{what}: personal")
    allowed, shortest, longest = (
        promises.get("allowed"),
        promises.get("min_length"),
        promises.get("max_length"),
    )
    return ColumnSpec(
        name=name,
        dtype=DType(words.one_of(dtype, tuple(DType), f"{what}: dtype")),
        nullable=_flag(promises.get("nullable", False), f"{what}: nullable"),
        minimum=_bound(promises.get("minimum")),
        maximum=_bound(promises.get("maximum")),
        allowed=None if allowed is None else _values(allowed, f"{what}: allowed"),
        pattern=words.optional_text(promises.get("pattern"), f"{what}: pattern"),
        min_length=None
        if shortest is None
        else words.whole(shortest, f"{what}: min_length", low=0, high=_INT64),
        max_length=None
        if longest is None
        else words.whole(longest, f"{what}: max_length", low=0, high=_INT64),
        unique=_flag(promises.get("unique", False), f"{what}: unique"),
        required=_flag(promises.get("required", True), f"{what}: required"),
        personal=handling,  # type: ignore[arg-type]  # one_of checked it against the same words
        max_bad_fraction=words.optional_number(
            promises.get("max_bad_fraction"), f"{what}: max_bad_fraction", low=0, high=1
        ),
        description=promises.get("description", ""),
    )


@worded("rule")
def rule(
    name: str, holds: str, *, max_bad_fraction: float | None = None, description: str = ""
) -> RowRuleSpec:
    """A rule over one row: `holds` is an SQL expression over its columns; null counts as broken."""
    return RowRuleSpec(
        name=words.text(name, "rule: name"),
        holds=words.text(holds, f"rule {name!r}: holds"),
        max_bad_fraction=words.optional_number(
            max_bad_fraction, f"rule {name!r}: max_bad_fraction", low=0, high=1
        ),
        description=description,
    )


class Contract:
    """What a dataset promises, written here or in an Open Data Contract Standard file."""

    @worded("Contract")
    def __init__(
        self,
        columns: Sequence[ColumnSpec] | Mapping[str, str | DType],
        *,
        rules: Sequence[RowRuleSpec] = (),
        unique: Sequence[str | Sequence[str]] = (),
        extra_columns: str = "reject",
        null_values: Sequence[str] | None = None,
        max_bad_fraction: float = 0.05,
        min_rows: int = 1,
        freshness: tuple[str, str] | None = None,
        pii: str = "reject",
        version: str = "1",
        description: str = "",
    ) -> None:
        """columns: a list of `taut.column(...)`, or `{"name": "dtype"}`. unique: keys, each a column or several.

        max_bad_fraction: a batch with a larger part of bad rows is rejected whole. freshness: a time column and the
        greatest age of its newest value, for example `("scheduled_at", "48h")`. pii: what to do about structured
        personal data in a column that declares none: `reject`, `redact` or `keep`.
        """
        extra = words.one_of(extra_columns, ("reject", "drop"), "Contract: extra_columns")
        handling = words.one_of(pii, ("reject", "redact", "keep"), "Contract: pii")
        spec = ContractSpec(
            columns=_columns(columns),
            rules=words.instances(rules, RowRuleSpec, "Contract: rules", 'write taut.rule("name", "sql")'),
            unique=tuple(
                words.texts(key, "Contract: unique") for key in _sequence(unique, "Contract: unique")
            ),
            extra_columns=extra,  # type: ignore[arg-type]  # one_of checked it against the same words
            max_bad_fraction=words.number(max_bad_fraction, "Contract: max_bad_fraction", low=0, high=1),
            min_rows=words.whole(min_rows, "Contract: min_rows", low=0, high=_INT64),
            freshness_column=None if freshness is None else _pair(freshness)[0],
            max_age=None if freshness is None else words.duration(_pair(freshness)[1], "Contract: freshness"),
            pii=handling,  # type: ignore[arg-type]  # one_of checked it against the same words
            version=words.text(version, "Contract: version"),
            description=description,
        )
        if null_values is not None:
            spec = msgspec.structs.replace(spec, null_values=_texts_or_empty(null_values))
        self._spec: ContractSpec | None = spec
        self.path: str | None = None

    @classmethod
    def from_odcs(cls, path: str | Path) -> Contract:
        """A contract in an Open Data Contract Standard YAML file; read when the project loads, not here.

        path: relative to the project's folder.
        """
        contract = cls.__new__(cls)
        contract._spec = None
        contract.path = words.text(str(path), "Contract.from_odcs: path")
        return contract

    def spec(self, folder: Path) -> ContractSpec:
        """Return the contract as data; `folder` is where a relative path starts."""
        if self._spec is not None:
            return self._spec
        from taut.project.odcs import read_odcs  # reads YAML, which declarations must not cost

        assert self.path is not None
        return read_odcs(folder / self.path)


class Dataset:
    """A named source of records under a contract."""

    @worded("Dataset")
    def __init__(
        self,
        name: str,
        *,
        source: SourceSpec,
        contract: Contract,
        entity: str | Sequence[str] = (),
        event_time: str | None = None,
        subject: str | None = None,
        personal: Sequence[str] | Mapping[str, str] = (),
        classification: str | None = None,
        owner: str = "",
        purpose: str | Sequence[str] = (),
        description: str = "",
    ) -> None:
        """entity: the columns that name what a row is about. event_time: the column that says when it was true.

        subject: the column that names the person whom a row is about. personal: columns with personal data, sealed
        under a key per subject at ingest; a mapping names another handling (`redact`, `tokenise`, `pseudonymise`,
        `keep`). classification (`public`, `internal`, `confidential`, `restricted`), owner and purpose are for policies:
        they may ask for them of the dataset, and of the models and endpoints that are made from it.
        """
        self.name = words.name(name, "dataset")
        what = f"Dataset {name!r}"
        self.source = _source(source, what)
        if not isinstance(contract, Contract):
            raise InvalidInput(f"{what}: contract is {type(contract).__name__}: write taut.Contract(...)")
        self.contract = contract
        self.entity = words.texts(entity, f"{what}: entity")
        self.event_time = words.optional_text(event_time, f"{what}: event_time")
        self.subject = words.optional_text(subject, f"{what}: subject")
        self.personal = _personal(personal, f"{what}: personal")
        self.classification = (
            None
            if classification is None
            else words.one_of(classification, _CLASSIFICATIONS, f"{what}: classification")
        )
        self.owner = words.text(owner, f"{what}: owner") if owner else ""
        self.purpose = words.texts(purpose, f"{what}: purpose")
        self.description = description
        self.place = declare("dataset", self.name, self)

    def __repr__(self) -> str:
        return f"taut.Dataset({self.name!r})"

    def spec(self, folder: Path) -> DatasetSpec:
        """Return the dataset as data, personal columns marked. Raises InvalidInput for columns that do not exist."""
        contract = self.contract.spec(folder)
        names = [column.name for column in contract.columns]
        for column in self.personal:
            if column not in names:
                raise InvalidInput(f"personal names a column {column!r}{words.nearest(column, names)}")
        columns = tuple(
            msgspec.structs.replace(column, personal=self.personal.get(column.name, column.personal))
            for column in contract.columns
        )
        return DatasetSpec(
            name=self.name,
            source=self.source,
            contract=msgspec.structs.replace(contract, columns=columns),
            entity=self.entity,
            event_time=self.event_time,
            subject=self.subject,
            classification=self.classification,  # type: ignore[arg-type]  # one_of checked it against the same words
            owner=self.owner,
            purpose=self.purpose,
            description=self.description,
        )


def _columns(value: object) -> tuple[ColumnSpec, ...]:
    if isinstance(value, Mapping):
        return tuple(column(name, dtype) for name, dtype in value.items())
    hint = 'write taut.column("name", "dtype")'
    columns: tuple[ColumnSpec, ...] = words.instances(value, ColumnSpec, "Contract: columns", hint)
    names = [item.name for item in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not columns:
        raise InvalidInput(f"Contract: columns names {', '.join(twice) or 'nothing'}: name each column once")
    return columns


def _source(value: object, what: str) -> SourceSpec:
    if isinstance(value, str):
        raise InvalidInput(f"{what}: source is a text: write source=taut.files({value!r})")
    if not isinstance(value, SourceSpec):
        raise InvalidInput(f'{what}: source is {type(value).__name__}: write taut.files("data/*.csv")')
    return value


def _personal(value: object, what: str) -> dict[str, PersonalHandling]:
    if isinstance(value, Mapping):
        return {
            words.text(name, what): words.one_of(how, _HANDLINGS, what)  # type: ignore[misc]  # checked here
            for name, how in value.items()
        }
    return dict.fromkeys(words.texts(value, what), "seal")


def _bound(value: Bound) -> Scalar:
    return value.isoformat() if isinstance(value, date) else value


def _values(value: object, what: str) -> tuple[Scalar, ...]:
    values = _sequence(value, what)
    if not values or not all(isinstance(item, str | int | float | bool) for item in values):
        raise InvalidInput(f"{what} is {value!r}: write a list of texts or numbers")
    return tuple(values)  # type: ignore[arg-type]  # checked just above


def _sequence(value: object, what: str) -> tuple[object, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset | range):
        raise InvalidInput(f"{what} is {value!r}: write a list")
    return tuple(sorted(value) if isinstance(value, set | frozenset) else value)


def _texts_or_empty(value: object) -> tuple[str, ...]:
    values = _sequence(value, "Contract: null_values")
    if not all(isinstance(item, str) for item in values):
        raise InvalidInput(f"Contract: null_values is {value!r}: write a list of texts")
    return tuple(str(item) for item in values)


def _pair(value: object) -> tuple[str, str]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InvalidInput(
            f'Contract: freshness is {value!r}: write (column, age), for example ("at", "48h")'
        )
    return words.text(value[0], "Contract: freshness"), words.text(value[1], "Contract: freshness")


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{what} is {value!r}: write True or False")
    return value
