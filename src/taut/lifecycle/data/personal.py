"""What happens to personal values of a dataset: of rows that are kept, and of records that are set aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from taut.core.canonical import canonical_json
from taut.core.errors import TautError
from taut.core.evidence import Scalar
from taut.core.schema import Column, DType, Schema
from taut.ports.records import Records, Tx, transact
from taut.project.manifest import ColumnSpec, DatasetSpec, PersonalHandling
from taut.trust.sealing import Sealer

_APART: Final = "_quarantine"
_OWNER: Final = "_owner"
_PERSONS_AT_ONCE: Final = 5_000
_KNOWN_MAX: Final = 200_000
_MASKED: Final = ("seal", "tokenise", "pseudonymise")


def handling_of(spec: DatasetSpec) -> dict[str, PersonalHandling]:
    """Return how each personal column is stored. The subject column is pseudonymised unless the contract says more.

    A pseudonym keeps what a subject column is for (equal people have equal pseudonyms, within the dataset) and
    stops naming the person; `keep` stores it as it is.
    """
    found: dict[str, PersonalHandling] = {
        column.name: column.personal for column in spec.contract.columns if column.personal is not None
    }
    if spec.subject is not None:
        found.setdefault(spec.subject, "pseudonymise")
    return {name: word for name, word in found.items() if word != "keep"}


def stored_schema(spec: DatasetSpec) -> Schema:
    """Return the schema of the stored rows: masked columns are text, redacted ones may be null."""
    handling = handling_of(spec)
    return Schema(tuple(_stored(column, handling.get(column.name)) for column in spec.contract.columns))


def _stored(column: ColumnSpec, word: PersonalHandling | None) -> Column:
    if word in _MASKED:
        return Column(column.name, DType.STRING, column.nullable)
    if word == "redact":
        return Column(column.name, column.dtype, column.nullable or column.dtype is not DType.STRING)
    return Column(column.name, column.dtype, column.nullable)


class Protector:
    """Masks rows as the contract says, holding a write transaction only while keys of new persons are made.

    Masking is slow beside everything else (microseconds a value), and a write transaction stops every other writer
    of an embedded installation.
    """

    def __init__(self, records: Records, sealer: Sealer, spec: DatasetSpec) -> None:
        self._records = records
        self._sealer = sealer
        self._spec = spec
        self._handling = handling_of(spec)
        self._started = False
        self._known: set[str] = set()  # persons who surely have keys, as text

    def protect(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return rows with their personal columns as they are stored."""
        if not self._handling or not frame.height:
            return frame
        if not self._started:  # makes the dataset's own keys
            transact(self._records, lambda tx: self._mask(tx, frame.head(1)))
            self._started = True
        if "seal" in self._handling.values():
            self._make_keys(frame)
        try:
            with self._records.read() as tx:
                return self._mask(tx, frame)
        except (
            TautError
        ):  # a person was forgotten meanwhile, so that a key had to be made: it may be, in a write
            return transact(self._records, lambda tx: self._mask(tx, frame))

    def _mask(self, tx: Tx, frame: pl.DataFrame) -> pl.DataFrame:
        return self._sealer.protect(
            tx, dataset=self._spec.name, frame=frame, handling=self._handling, subject=self._spec.subject
        )

    def _make_keys(self, frame: pl.DataFrame) -> None:
        assert self._spec.subject is not None, "check_dataset refuses to seal without a subject"
        people = frame[self._spec.subject].drop_nulls().unique().cast(pl.String).to_list()
        new = [person for person in people if person not in self._known]
        for start in range(0, len(new), _PERSONS_AT_ONCE):
            persons = pl.DataFrame(
                {_OWNER: new[start : start + _PERSONS_AT_ONCE]}, schema={_OWNER: pl.String}
            )
            some = persons.with_columns(pl.lit(None, dtype=pl.String).alias(_APART))
            transact(self._records, lambda tx, some=some: self._seal_nothing(tx, some))  # type: ignore[misc]  # a default that binds
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()
        self._known.update(new)

    def _seal_nothing(self, tx: Tx, persons: pl.DataFrame) -> None:
        self._sealer.seal(tx, dataset=self._spec.name, frame=persons, subject=_OWNER, columns=[_APART])


class SetAside:
    """Splits records that were set aside into what may lie open and what is sealed.

    The sealed part belongs to the record's person where the subject could be read, so that forgetting the person
    forgets it; otherwise to the batch, whose key `forget_batch` destroys.
    """

    def __init__(self, sealer: Sealer, spec: DatasetSpec, batch: str) -> None:
        self._sealer = sealer
        self._dataset = spec.name
        self._batch_owner = batch_owner(batch)
        self.personal = frozenset(handling_of(spec))

    def split(
        self,
        tx: Tx,
        records: Sequence[dict[str, Scalar]],
        owners: Sequence[str | None],
        *,
        whole: Sequence[bool],
    ) -> tuple[list[dict[str, Scalar]], list[str | None]]:
        """Return (open parts, sealed parts) of records.

        owners: the subject of each, where it is known. whole: seal everything of this record.
        """
        opened: list[dict[str, Scalar]] = []
        apart: list[str | None] = []
        for record, all_of_it in zip(records, whole, strict=True):
            hidden = {k: v for k, v in record.items() if (all_of_it or k in self.personal) and v is not None}
            opened.append({k: v for k, v in record.items() if k not in hidden})
            apart.append(canonical_json(hidden).decode() if hidden else None)
        if not any(apart):
            return opened, [None] * len(opened)
        frame = pl.DataFrame(
            {_OWNER: [owner or self._batch_owner for owner in owners], _APART: apart},
            schema={_OWNER: pl.String, _APART: pl.String},
        )
        sealed = self._sealer.seal(tx, dataset=self._dataset, frame=frame, subject=_OWNER, columns=[_APART])
        return opened, sealed[_APART].to_list()


def unseal_records(
    sealer: Sealer, dataset: str, sealed: Sequence[str | None], *, tx: Tx | None = None
) -> list[str | None]:
    """Return the JSON of sealed parts; null where the person, or the batch, was forgotten."""
    frame = pl.DataFrame({_APART: list(sealed)}, schema={_APART: pl.String})
    opened = sealer.unseal(frame, dataset=dataset, columns=[_APART], dtypes={_APART: DType.STRING}, tx=tx)
    return opened.frame[_APART].to_list()


def batch_owner(batch: str) -> str:
    """Return the name under which a batch's own key is kept among those of persons."""
    return f"quarantine:{batch}"
