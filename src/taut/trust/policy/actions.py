"""The actions of the product and what each built-in role may do; the built-in policies are written from these."""

from __future__ import annotations

from typing import Final

OWN: Final = "account.self"
"""The one action that every role may take, since it is about the caller alone."""

ACTIONS: Final[dict[str, str]] = {
    "data.ingest": "bring records into a dataset",
    "data.read": "read rows of snapshots and of quarantine",
    "data.list": "see datasets, snapshots and their statistics, not their rows",
    "data.repair": "repair and replay quarantined records",
    "data.rollback": "make an earlier snapshot the current one",
    "data.unseal": "read sealed personal fields",
    "subject.erase": "erase a data subject",
    "subject.export": "export all data of a data subject",
    "features.build": "compute a feature set",
    "features.materialize": "write a feature set online",
    "features.read": "read feature sets and online values",
    "train": "start a training run",
    "run.read": "see runs, their parameters and metrics",
    "run.write": "log to runs from a tracking client",
    "run.reproduce": "run a training run again",
    "model.read": "see model versions and their cards",
    "model.verify": "verify a model's signature and digests",
    "model.approve": "approve a model version",
    "model.reject": "reject a model version",
    "model.optimise": "try smaller and faster forms of a model version",
    "model.export": "export a model version",
    "model.import": "import a model version",
    "edge.report": "report what a device at the edge counted",
    "edge.read": "see devices at the edge and what they reported",
    "release.read": "see releases and their history",
    "release.start": "start a release",
    "release.unfreeze": "start a release although releases are frozen",
    "release.pause": "pause a release",
    "release.resume": "resume a release",
    "release.promote": "promote a release past its steps",
    "release.abort": "abort a release",
    "release.rollback": "return an endpoint to an earlier release",
    "batch.score": "score a dataset with a model version",
    "batch.read": "see batch results and their rows",
    "predict": "ask an endpoint for predictions",
    "stream.run": "score a topic to a topic, and replay what was put aside",
    "stream.read": "see what waits on a stream's topics and what it put aside",
    "feedback": "send outcomes and labels",
    "explain": "walk from an answer back to its origins",
    "log.read": "read the prediction log",
    "ledger.read": "see entries and proofs of the ledger",
    "ledger.verify": "verify the ledger",
    "ledger.checkpoint": "sign a checkpoint of the ledger",
    "plan.read": "see what a project file would change",
    "plan.apply": "apply a project file",
    OWN: "sign in and out, and change one's own password and second factors",
    "user.admin": "add, change and disable principals",
    "key.admin": "make and revoke API keys",
    "keys.read": "see the installation's own keys and their ages",
    "keys.rotate": "rotate the installation's own keys",
    "token.create": "issue tokens",
    "token.revoke": "revoke tokens",
    "policy.read": "see the policies",
    "policy.review": "see who may do what, and who does",
    "policy.admin": "change the policies",
    "security.read": "see how security stands: notices, figures, the threat model, known vulnerabilities",
    "security.review": "record that the threat model was reviewed",
    "secret.admin": "put and delete secrets",
    "fleet.read": "see the fleet",
    "fleet.scale": "scale pools of the fleet",
    "fleet.revoke": "revoke replicas of the fleet",
    "machine.invite": "let further machines join",
    "fleet.join": "serve as a further machine: follow what is served, fetch its models, hand records over",
    "alert.read": "see alerts, and who is contained",
    "alert.dismiss": "say that what an alert is about is right, which takes it for usual",
    "incident.read": "see incidents, their timelines and reports",
    "incident.open": "open an incident",
    "incident.note": "write into the timeline of an incident",
    "incident.assign": "say who answers for an incident",
    "incident.grade": "say how grave an incident is",
    "incident.mitigate": "say that an incident hurts no longer",
    "incident.resolve": "say that an incident is over",
    "incident.tell": "page people and send notices about an incident",
    "drill.run": "plant a declared fault in an endpoint that is not in production, and see whether it is noticed",
    "contain.begin": "hold a principal back: throttle, ask anew who it is, quarantine, revoke",
    "contain.lift": "end a containment",
    "status.read": "see status, health and metrics",
    "break.glass": "act in an emergency under the built-in policies alone, and end it",
}

ADMIN_ONLY: Final = (
    "user.admin", "key.admin", "token.create", "token.revoke", "policy.admin", "secret.admin", "break.glass",
    "machine.invite",
)  # fmt: skip
"""What no policy of a project gives to anybody else: whoever has one of these could give himself all the others."""

DISCLOSING: Final = (
    "data.read", "data.unseal", "batch.read", "log.read", "subject.export", "model.export",
)  # fmt: skip
"""What hands out rows, or a model that was made from them: each time is a leaf of the ledger."""

_SEE: Final = (
    "data.list", "run.read", "model.read", "model.verify", "edge.read", "release.read", "plan.read", "policy.read", "keys.read", "fleet.read",
    "status.read", "alert.read", "incident.read", "explain",
)  # fmt: skip

_ROLES: Final[dict[str, tuple[str, ...]]] = {
    "admin": tuple(ACTIONS),
    "operator": (
        *_SEE, "security.read", "data.rollback", "features.materialize", "features.read", "release.start", "release.pause",
        "release.resume", "release.promote", "release.abort", "release.rollback", "ledger.read", "ledger.verify",
        "ledger.checkpoint", "plan.apply", "fleet.scale", "fleet.revoke", "alert.dismiss",
        "contain.lift", "incident.open", "incident.note", "incident.assign", "incident.grade", "incident.mitigate", "incident.resolve", "drill.run", "predict", "stream.run", "stream.read", "batch.score",
        "batch.read",
    ),
    "builder": (
        *_SEE, "data.ingest", "data.read", "data.repair", "data.rollback", "features.build", "features.materialize",
        "features.read", "train", "run.write", "run.reproduce", "model.optimise", "model.export", "model.import",
        "plan.apply", "predict", "feedback", "ledger.read", "incident.open", "incident.note", "stream.run", "stream.read", "batch.score", "batch.read",
    ),
    "approver": (*_SEE, "model.approve", "model.reject", "features.read", "ledger.read", "ledger.verify"),
    "predictor": ("predict", "feedback"),
    "device": ("predict", "edge.report"),
    "responder": ("alert.read", "incident.read", "incident.tell", "release.rollback", "contain.begin"),
    "machine": ("fleet.join",),
    "auditor": (*_SEE, "security.read", "security.review", "policy.review", "log.read", "ledger.read", "ledger.verify"),
}  # fmt: skip

ROLE_ACTIONS: Final[dict[str, tuple[str, ...]]] = {
    role: actions if OWN in actions else (*actions, OWN) for role, actions in _ROLES.items()
}
"""What each role may do. Everybody may look after his own account."""
