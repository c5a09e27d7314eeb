"""What the ML Test Score looks at: the version with its evidence, what is declared around it, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from taut.core.evidence import Check, Outcome
from taut.core.refs import VersionRef
from taut.lifecycle.monitoring import Figures
from taut.lifecycle.registry import VersionInfo
from taut.lifecycle.release import ReleaseInfo
from taut.project.manifest import DatasetSpec, EndpointSpec, FeaturesSpec, ModelSpec
from taut.project.responses import DrillSpec
from taut.workflows.rooms import Rooms

_RUNS: Final = 1000


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One version and its surroundings.

    spec: as the project declares the model now, None where it does not. endpoints: that serve the model. releases: of these, the
    newest first. settings: with how many different parameters and seeds the model was trained. figures: of the version where it
    answered lately. drills: of these endpoints that passed when they were run last.
    """

    info: VersionInfo
    spec: ModelSpec | None = None
    datasets: tuple[DatasetSpec, ...] = ()
    features: tuple[FeaturesSpec, ...] = ()
    endpoints: tuple[EndpointSpec, ...] = ()
    releases: tuple[ReleaseInfo, ...] = ()
    settings: int = 0
    figures: Figures | None = None
    drills: tuple[DrillSpec, ...] = ()

    def check(self, name: str) -> Check | None:
        """Return a check of the gate that passed, by name."""
        checks = () if self.info.evidence is None else self.info.evidence.checks
        return next((one for one in checks if one.name == name and one.outcome is Outcome.PASSED), None)

    def declared(self, kind: str) -> Check | None:
        """Return a declared rule's check that passed and saw something: that nothing is live yet proves nothing."""
        names = [rule.name for rule in self.info.candidate.rules if rule.kind == kind]
        found = (self.check(name) for name in names)
        return next((one for one in found if one is not None and one.observed is not None), None)


def seen_of(rooms: Rooms, ref: VersionRef, figures: Sequence[tuple[str, Figures]]) -> Seen:
    """Gather what there is about a version. figures: by version, of what answered lately. Raises NotFound."""
    info = rooms.registry.show(ref)
    manifest = rooms.plans.current()
    model = info.candidate.model
    spec = None if manifest is None else next((one for one in manifest.models if one.name == model), None)
    datasets = () if manifest is None else manifest.datasets
    endpoints = () if manifest is None else tuple(one for one in manifest.endpoints if one.model == model)
    runs = rooms.training.list(model=model, limit=_RUNS)
    return Seen(
        info=info, spec=spec, endpoints=endpoints,
        datasets=tuple(one for one in datasets if one.name in info.candidate.snapshots),
        features=() if manifest is None or spec is None else tuple(one for one in manifest.features if one.name in spec.features),
        releases=tuple(one for endpoint in endpoints for one in rooms.releases.history(endpoint.name)),
        settings=len({str(sorted(run.params.items())) for run in runs}),
        drills=() if manifest is None else passed_drills(rooms, manifest.drills, {one.name for one in endpoints}),
        figures=next((found for version, found in figures if version == str(ref)), None),
    )  # fmt: skip


def passed_drills(rooms: Rooms, drills: Sequence[DrillSpec], endpoints: set[str]) -> tuple[DrillSpec, ...]:
    """Return the drills of some endpoints whose last verdict admits."""
    mine = [one for one in drills if one.endpoint in endpoints]
    last = {
        one.name: rooms.ledger.show(kind="verdict.drill", subject=f"drill:{one.name}", limit=1)
        for one in mine
    }
    return tuple(one for one in mine if any(leaf.body["decision"] == "admit" for leaf in last[one.name]))
