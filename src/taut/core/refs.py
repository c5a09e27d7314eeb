"""References: names of things, never the things themselves."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec

from taut.core.errors import InvalidInput

_NAME: Final = re.compile(r"[a-z][a-z0-9_\-]{0,62}")
_NUMBER_MAX: Final = 2**31 - 1  # what an integer of every database holds


class Kind(StrEnum):
    """What a reference names; the nodes of the lineage graph are of these kinds."""

    SOURCE = "source"  # source:FILE_DIGEST#NAME, one file or object as it was read
    BATCH = "batch"  # one ingest of one dataset, admitted or not
    QUARANTINE = "quarantine"  # the records of a batch that were set aside
    SNAPSHOT = "snapshot"  # dataset@number
    FEATURES = "features"  # one materialisation of a feature set
    BUNDLE = "bundle"  # the builder's code, by digest
    RUN = "run"  # one training run
    MODEL = "model"  # model@number
    APPROVAL = "approval"
    RELEASE = "release"
    RESULT = "result"  # name@number, a dataset's rows as a model version scored them
    REQUEST = "request"
    POLICY = "policy"
    PLAN = "plan"


class Ref(msgspec.Struct, frozen=True, order=True):
    """A typed name, written `kind:id`."""

    kind: Kind
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        kind, separator, id_ = text.partition(":")
        if not separator or not id_ or kind not in Kind.__members__.values():
            raise InvalidInput(f"{text!r} is no reference: expected KIND:ID with a kind of {', '.join(Kind)}")
        return cls(Kind(kind), id_)


class VersionRef(msgspec.Struct, frozen=True, order=True):
    """A numbered version of a named thing, written `name@number`: snapshots of datasets, versions of models."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"

    @classmethod
    def parse(cls, text: str, *, name: str | None = None) -> VersionRef:
        """Parse `name@number`; where `name` is given, the bare number is accepted too."""
        left, separator, right = text.rpartition("@")
        if not separator and name is not None:
            left, right = name, text
        # the length first: Python refuses to read thousands of digits
        if not (left and right.isascii() and right.isdigit() and len(right) < 20) or not (
            0 < int(right) <= _NUMBER_MAX
        ):
            raise InvalidInput(f"{text[:80]!r} is no version: expected NAME@NUMBER, for example delay@3")
        return cls(check_name(left), int(right))


def check_name(text: str, *, what: str = "name") -> str:
    """Return `text` when it may name a dataset, feature set, model or endpoint.

    Raises InvalidInput otherwise: names become parts of paths, URLs and policies.
    """
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{what} {text[:80]!r} is not allowed: use 1 to 63 of a-z, 0-9, - and _, beginning with a letter"
        )
    return text
