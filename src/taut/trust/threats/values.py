"""A map of data flows as frozen values. Equal projects with equal settings have equal maps."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from taut.core.canonical import digest_json


class Zone(StrEnum):
    """Where something is; data that goes from one zone to another crosses a boundary of trust."""

    OUTSIDE = "outside"  # people, callers, sources, receivers
    BACKING = (
        "backing services"  # databases, stores, brokers and holders of keys that are not this machine's files
    )
    HOME = "the owner's processes and files"
    CONFINED = "confined processes"


class Kind(StrEnum):
    PARTY = "party"
    PROCESS = "process"
    STORE = "store"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What of an installation's configuration decides about flows: schemes and whether something is there, never values.

    records, blobs, bus, keys: schemes, such as `sqlite`. sealed: whether blobs are encrypted by taut itself. otlp, oidc,
    ledger_copy: where they go, by host or folder; empty where nowhere. tls, client_certificates: of the planes.
    """

    records: str = "sqlite"
    blobs: str = "file"
    bus: str = "records"
    keys: str = "file"
    sealed: bool = False
    tls: bool = False
    client_certificates: bool = False
    otlp: str = ""
    oidc: str = ""
    ledger_copy: bool = False
    sandbox: str = ""


class Element(msgspec.Struct, frozen=True, kw_only=True):
    """A party, a process or a store."""

    id: str
    name: str
    kind: Kind
    zone: Zone


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """Data that goes from one element to another.

    way: by what it goes. personal: declared personal fields among it, `dataset.column`. guard: what keeps it safe on the way.
    """

    source: str
    target: str
    what: str
    way: str
    personal: tuple[str, ...] = ()
    guard: str = ""

    @property
    def name(self) -> str:
        """What two maps are compared by."""
        return f"{self.source} → {self.target}: {self.what}"


class Map(msgspec.Struct, frozen=True, kw_only=True):
    project: str
    environment: str
    elements: tuple[Element, ...]
    flows: tuple[Flow, ...]

    @property
    def digest(self) -> str:
        return digest_json(self)

    def crosses(self, flow: Flow) -> bool:
        """Whether a flow leaves its zone of trust."""
        zones = {element.id: element.zone for element in self.elements}
        return zones[flow.source] is not zones[flow.target]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two maps, by the names of flows."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[
        str, ...
    ] = ()  # the same data by another way, with other personal fields, or guarded otherwise

    @property
    def empty(self) -> bool:
        return not (self.added or self.removed or self.changed)


def changes(old: Map | None, new: Map) -> Change:
    """Compare two maps; without an old one every flow is new."""
    before = {} if old is None else {flow.name: flow for flow in old.flows}
    after = {flow.name: flow for flow in new.flows}
    return Change(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(sorted(name for name in after.keys() & before.keys() if after[name] != before[name])),
    )
