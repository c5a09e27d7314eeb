"""What a batch is about and what became of it, as frozen values."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from taut.core.canonical import digest_json
from taut.core.refs import Kind, Ref, VersionRef
from taut.ports.tables import TableFile, TableManifest


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what a batch gives: equal values give equal rows.

    version: model@number. artifact: digest of its model. snapshot: dataset@number. features: set -> materialisation.
    """

    name: str
    version: str
    artifact: str
    snapshot: str
    features: dict[str, str] = {}

    @property
    def digest(self) -> str:
        return digest_json(self)


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that was scored: files of its answers and of its rejects, and how often each reason was given."""

    files: tuple[TableFile, ...] = ()
    rejects: tuple[TableFile, ...] = ()
    reasons: dict[str, int] = {}

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def rejected(self) -> int:
        return sum(file.rows for file in self.rejects)


class NewResult(msgspec.Struct, frozen=True, kw_only=True):
    """A result on its way in. keys: columns that stand beside the answers; the first of them, `entity`, name whom a
    row is about. work: under which its chunks were kept.

    manifest, rejects: their schemas; whoever commits it adds the chunks' files. max_age_s: how long after `as_of`
    it counts as fresh; None for ever. as_of: when its snapshot was made.
    """

    scored: Scored
    endpoint: str | None
    release: str | None
    manifest: TableManifest
    rejects: TableManifest
    reasons: dict[str, int]
    keys: tuple[str, ...]
    entity: tuple[str, ...]
    work: str
    as_of: datetime
    max_age_s: float | None


class ResultInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a result, whole and unchanging."""

    name: str
    number: int
    new: NewResult
    actor: str
    created_at: datetime

    @property
    def version(self) -> VersionRef:
        return VersionRef(self.name, self.number)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.RESULT, str(self.version))

    @property
    def rows(self) -> int:
        return self.new.manifest.rows

    @property
    def rejected(self) -> int:
        return self.new.rejects.rows

    def fresh_at(self, now: datetime) -> bool:
        """Whether the freshness that was promised still holds."""
        age_s = (now - self.new.as_of).total_seconds()
        return self.new.max_age_s is None or age_s <= self.new.max_age_s


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a result says about a key: its rows, and the reasons of those that were not scored."""

    rows: tuple[dict[str, Any], ...]
    rejects: tuple[dict[str, Any], ...]
