"""What a story may use: the rooms, as bootstrap furnishes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from taut.core.refs import VersionRef

if TYPE_CHECKING:  # the rooms are imported by whoever furnishes them, on first use
    from taut.lifecycle.batch import Results
    from taut.lifecycle.data import Data
    from taut.lifecycle.features import FeatureStore
    from taut.lifecycle.objectives import Standing
    from taut.lifecycle.plans import Plans
    from taut.lifecycle.registry import Registry
    from taut.lifecycle.release import Releases
    from taut.lifecycle.training import Training
    from taut.ports.blobs import Blobs
    from taut.ports.jobs import Jobs
    from taut.ports.keys import Keys
    from taut.ports.records import Records
    from taut.ports.tables import Tables
    from taut.ports.world import Clock, Ids
    from taut.serving.predictions import PredictionReader
    from taut.trust.containment import Contained, Containments
    from taut.trust.deliveries import Deliveries, Outcome
    from taut.trust.findings import Findings
    from taut.trust.identity import Identity
    from taut.trust.incidents import Drills, Incidents
    from taut.trust.ledger import Ledger
    from taut.trust.lineage import Lineage
    from taut.trust.supply import Advisories
    from taut.workflows.rights import Rights


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a serving snapshot. refused: gateway -> why it serves on from the one before."""

    epoch: int
    applied: tuple[str, ...] = ()
    refused: dict[str, str] = {}
    silent: tuple[str, ...] = ()


class Alarming(Protocol):
    """Who is held back, and who is told of what."""

    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def containments(self) -> Containments: ...
    @property
    def incidents(self) -> Incidents: ...
    @property
    def drills(self) -> Drills: ...
    def attempt(self, delivery: str) -> Outcome:
        """Tell of a delivery once."""
        ...

    def refusal(self, principal: str, action: str, resource: str) -> str:
        """Return why a service principal may not do something now; an empty text where he may."""
        ...

    def contained(self) -> tuple[Contained, ...]:
        """Return what holds now, as gateways are told."""
        ...


class Publish(Protocol):
    def __call__(self) -> Published:
        """Sign what is to be served now, push it to every connected gateway and say what became of it.

        Where no gateway is connected the snapshot lies on disk for the next one.
        """
        ...


class Watching(Protocol):
    """What looks on while others work: who is suspected, and which packages are known to be vulnerable."""

    @property
    def findings(self) -> Findings: ...
    @property
    def advisories(self) -> Advisories | None:
        """Return the mirrored advisories; None where the operator mirrors none."""
        ...

    def suspects(self) -> tuple[tuple[str, str], ...]:
        """Return (resource, principal) of each open finding of abuse, in order."""
        ...

    def standings(self, rooms: Rooms) -> tuple[Standing, ...]:
        """Count what happened by now, and return how each objective of each endpoint stands."""
        ...


class Rooms(Protocol):
    """The installation as stories see it."""

    @property
    def records(self) -> Records: ...
    @property
    def blobs(self) -> Blobs: ...
    @property
    def tables(self) -> Tables: ...
    @property
    def jobs(self) -> Jobs: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> Ids: ...
    @property
    def data(self) -> Data: ...
    @property
    def features(self) -> FeatureStore: ...
    @property
    def training(self) -> Training: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def releases(self) -> Releases: ...
    @property
    def results(self) -> Results: ...
    @property
    def plans(self) -> Plans: ...
    @property
    def identity(self) -> Identity: ...
    @property
    def policy(self) -> Rights: ...
    @property
    def exposed(self) -> bool:
        """Return whether other machines reach the planes."""
        ...

    @property
    def ledger(self) -> Ledger: ...
    @property
    def lineage(self) -> Lineage: ...
    @property
    def predictions(self) -> PredictionReader: ...
    @property
    def alarms(self) -> Alarming: ...
    @property
    def watches(self) -> Watching: ...
    @property
    def publish(self) -> Publish: ...
    def place_model(self, version: VersionRef) -> tuple[str, str]:
        """Verify a version's model and put it where gateways read it; return its digest and its path."""
        ...

    @property
    def scratch(self) -> Path:
        """Folder for files of work under way; what a process that was killed left there goes with the next start."""
        ...

    @property
    def environment_lock(self) -> str:
        """Digest of every installed distribution and its version: the environment that jobs run in."""
        ...
