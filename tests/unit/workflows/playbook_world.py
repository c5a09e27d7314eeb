"""Control with an endpoint that was released twice, its alerts, incidents and playbooks; nobody outside is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from taut.bootstrap.platform import Platform
from taut.bootstrap.schema import all_metadata
from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt
from taut.core.refs import VersionRef
from taut.lifecycle.plans import Applied, Surroundings
from taut.lifecycle.release.canary import CanaryPlan
from taut.lifecycle.release.experiment import ExperimentPlan
from taut.lifecycle.release.shadow import ShadowPlan
from taut.project.archive import write_archive
from taut.project.manifest import Manifest, ReceiverSpec
from taut.project.responses import PlaybookSpec, PlayStepSpec
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SequenceIds
from taut.trust.findings import Sighting
from taut.trust.identity import Principal

OPS = ReceiverSpec(name="ops", kind="webhook", url="https://hooks.example.org/x", secret="alerts/ops", severity="critical", kinds=("nothing",))  # fmt: skip
DRIFT = Sighting(
    kind="model.drift", group="late@2", resource="endpoint:late", score=0.4, severity="critical", summary="late drifts"
)  # fmt: skip
SHARE = Sighting(kind="share", principal="app", resource="endpoint:any", score=20.0, severity="critical")
PAGE = PlayStepSpec(do="page", receiver="ops")
ROLLBACK = PlayStepSpec(do="rollback")
CONTAIN = PlayStepSpec(do="contain", action="throttle", per_s=5.0)


def book(*steps: PlayStepSpec, **more: Any) -> PlaybookSpec:
    return PlaybookSpec(
        **{"name": "quality", "principal": "bot", "kinds": ("model",), "steps": steps, **more}
    )


class Registry:
    """Versions that may be served, but for those that are named."""

    def __init__(self) -> None:
        self.damaged: set[str] = set()

    def load(self, version: VersionRef, *, to_serve: bool) -> None:
        assert to_serve
        if str(version) in self.damaged:
            raise Corrupt(f"{version} is not what was signed")

    def signature(self, version: VersionRef) -> SimpleNamespace:
        return SimpleNamespace(lookups=())

    def mark_answering(self, *_: Any, **__: Any) -> None:
        pass


class World:
    """Control with two releases of `late`, and its stories run when a test says so."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.clock, self.registry = platform, ManualClock(), Registry()
        platform.clock, platform.ids = self.clock, SequenceIds()
        platform.records = memory_records(*all_metadata())
        platform.registry = self.registry  # type: ignore[assignment]  # of it rollbacks ask no more
        for name, role in (("bot", "responder"), ("app", "predictor")):
            platform.identity.create_principal(name, kind="service", roles=[role], actor="owner")
        self.first, self.second = self.release(1), self.release(2)

    def release(self, number: int, *, beside: str = "") -> str:
        """Release a version, live at once or, beside the live one, as a canary, a shadow or an experiment."""
        releases = self.platform.releases
        with self.platform.records.begin() as tx:
            id_ = releases.start(tx, endpoint="late", version=VersionRef("late", number), strategy=beside or "direct", actor="ada", reason="")  # fmt: skip
            match beside:
                case "canary":
                    releases.canaries.begin(tx, id_, CanaryPlan(steps=(0.1,), guardrails=("errors",)), actor="ada")  # fmt: skip
                case "shadow":
                    releases.shadows.begin(tx, id_, ShadowPlan(), actor="ada")
                case "experiment":
                    arms = ("late@2", f"late@{number}")
                    plan = ExperimentPlan(kind="ab", arms=arms, weights=(0.5, 0.5), metric="right")
                    releases.experiments.begin(tx, id_, plan, actor="ada")
                case _:
                    releases.promote(tx, id_, actor="ada")
        return id_

    def rolled_back(self) -> str:
        """Return to what the live release replaced, as a person does."""
        with self.platform.records.begin() as tx:
            return self.platform.releases.roll_back(tx, endpoint="late", to=None, actor="ada", reason="")[0].release  # fmt: skip

    def apply(self, *books: PlaybookSpec, receivers: tuple[ReceiverSpec, ...] = (OPS,)) -> Applied:
        bundle = write_archive({"project.py": b"x = 1\n"})
        manifest = Manifest(receivers=receivers, playbooks=books, bundle=digest_bytes(bundle))
        services = tuple(Principal(id=one.id, kind=one.kind, roles=one.roles) for one in self.platform.identity.principals())  # fmt: skip
        return self.platform.plans.apply(manifest, bundle, actor="ada", surroundings=Surroundings(services=services))  # fmt: skip

    def see(self, *seen: Sighting) -> None:
        """Let a watch report, and playbooks be carried out."""
        self.platform.watches.findings.report(seen)
        self.work()

    def work(self) -> None:
        self.platform.stories.work(until_idle=True)  # nobody is told: the secret that signs is not there

    def live(self) -> str:
        with self.platform.records.read() as tx:
            (route,) = self.platform.releases.routes(tx)
        return str(route.version)

    def acts(self) -> list[tuple[str, str]]:
        leaves = self.platform.ledger.show(kind="playbook.", limit=100)
        found = sorted(leaves, key=lambda leaf: leaf.id)
        return [(leaf.kind.removeprefix("playbook."), leaf.body["act"]) for leaf in found]

    def said(self) -> str:
        leaves = self.platform.ledger.show(kind="playbook.", details=True)
        return str(max(leaves, key=lambda leaf: leaf.id).details["said"])
