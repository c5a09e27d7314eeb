"""The registry: versions signed when they enter, judged by the model gate, approved by people, verified at every load."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from taut.core.canonical import digest_bytes
from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput, NotFound
from taut.core.evidence import Decision, Scalar, Verdict
from taut.core.refs import Kind, Ref, VersionRef, check_name
from taut.core.schema import ModelSignature
from taut.lifecycle.registry import store
from taut.lifecycle.registry.card import card_json, card_markdown
from taut.lifecycle.registry.decide import OPEN, People
from taut.lifecycle.registry.export import write_export
from taut.lifecycle.registry.gate import ModelCheck, gate_for, subject_of
from taut.lifecycle.registry.manifest import sign_manifest
from taut.lifecycle.registry.provenance import Json, read_provenance, sign_provenance
from taut.lifecycle.registry.values import (
    Candidate,
    Change,
    GateInputs,
    Loaded,
    ModelState,
    VersionInfo,
)
from taut.ports.blobs import Blobs
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids
from taut.trust.identity import Principal
from taut.trust.ledger import Entry, Ledger
from taut.trust.lineage import Lineage
from taut.trust.signing import SignedStatement
from taut.trust.signing.models import Manifest, read_manifest

_LIVE_MAX: Final = 10_000
_FILE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,63}")


class Registry:
    """Keeps model versions.

    Guarantees: a version's files, signature and origin are signed when it enters and never change; its state, each
    approval and each alias change only together with their ledger leaf; nothing is deleted. What `load` returns was
    verified byte for byte just then.
    """

    def __init__(
        self,
        *,
        records: Records,
        blobs: Blobs,
        keys: Keys,
        ledger: Ledger,
        lineage: Lineage,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._records = records
        self._blobs = blobs
        self._keys = keys
        self._ledger = ledger
        self._lineage = lineage
        self._clock = clock
        self._people = People(ledger, lineage, clock, ids)

    def register(self, candidate: Candidate) -> VersionInfo:
        """Enter a candidate under the next number of its model; the same run, or variant of it, again gives the same version.

        Raises InvalidInput for a name or file that is not allowed; NotFound when a file is not in Blobs.
        """
        check_name(candidate.model, what="model")
        if candidate.signature.file not in candidate.files:
            raise InvalidInput(
                f"run {candidate.run} left no {candidate.signature.file}: there is nothing to register"
            )
        for name, file in candidate.files.items():
            if not _FILE_NAME.fullmatch(name):
                raise InvalidInput(f"file name {name[:80]!r} is not allowed: use a-z, 0-9, -, _ and .")
            if self._blobs.size(file.digest) is None:
                raise NotFound(f"file {name} of run {candidate.run} is not stored: train again")
        return transact(self._records, lambda tx: self._register(tx, candidate))

    def _register(self, tx: Tx, candidate: Candidate) -> VersionInfo:
        known = store.of_run(tx, candidate.run, store.variant_of(candidate))
        if known is not None:
            return store.info(tx, known)
        ref = VersionRef(candidate.model, store.next_number(tx, candidate.model))
        statement = sign_manifest(self._keys, ref, candidate).to_json().decode()
        provenance = sign_provenance(self._keys, ref, candidate, _parents(tx, candidate)).to_json().decode()
        store.add(tx, ref, candidate, store.Signed(statement, provenance), at=self._clock.now())
        me = Ref(Kind.MODEL, str(ref))
        body: dict[str, Any] = {
            "run": candidate.run, "manifest": digest_bytes(statement.encode()),
            "provenance": digest_bytes(provenance.encode()),
            "model": candidate.artifact.digest, "metrics": candidate.metrics,
        }  # fmt: skip
        inputs, activity = [Ref(Kind.RUN, candidate.run)], "register"
        facts: dict[str, Scalar] = {
            "artifact": candidate.artifact.digest, "form": candidate.signature.form, "signed": True,
        }  # fmt: skip
        made = candidate.variant
        if candidate.nodes:
            inputs = [Ref(Kind.MODEL, version) for version in dict.fromkeys(candidate.nodes.values())]
            activity = "compose"
            facts |= {f"node {name}": version for name, version in candidate.nodes.items()}
            body["nodes"] = candidate.nodes
        if made is not None:
            inputs.append(Ref(Kind.MODEL, made.origin))
            activity, facts["variant"] = "optimise", made.name
            body |= {"variant": made.name, "origin": made.origin}
        self._ledger.append(tx, Entry("model.registered", str(me), candidate.author, body))
        self._lineage.record(tx, activity=activity, inputs=inputs, outputs=[me], facts=facts)
        return store.info(tx, ref)

    def judge(self, ref: VersionRef, inputs: GateInputs, *, actor: str) -> VersionInfo:
        """Measure a candidate and record the model gate's verdict: admitted, held for a person, or rejected.

        An admitted version that needs no approval is approved at once. Raises Conflict when it was decided already by
        a person, or is live or retired.
        """
        before = self.show(ref)
        if before.state not in (*OPEN, ModelState.REJECTED) or before.approvals:
            raise Conflict(
                f"{ref} is {before.state}: a version is judged before people decide, train a new one"
            )
        live, made = inputs.live, before.candidate.variant
        check = ModelCheck(
            before.candidate,
            lambda: self.load(ref),
            inputs,
            None if live is None or live == ref else lambda: self.load(live),
            None if made is None else lambda: self.load(VersionRef.parse(made.origin)),
        )
        evidence = check.evidence(subject_of(ref))
        verdict = gate_for(before.candidate, audited=inputs.audit is not None).judge(evidence)

        def record(tx: Tx) -> VersionInfo:
            now = store.info(tx, ref)
            if now.state is not before.state or now.approvals:
                raise Conflict(f"{ref} became {now.state} meanwhile: look again")
            store.judged(tx, ref, verdict, evidence)
            self._ledger.record_verdict(tx, verdict, actor=actor, evidence=evidence)
            state = _state_after(verdict, now.candidate.approvals)
            reason = "; ".join(verdict.reasons) or "all checks passed"
            store.set_state(tx, ref, state, at=self._clock.now(), actor=actor, reason=reason[:2000])
            return store.info(tx, ref)

        return transact(self._records, record)

    def approve(
        self, ref: VersionRef, principal: Principal, *, reason: str, single_user: bool = False
    ) -> VersionInfo:
        """Say yes to a version that the gate admitted or holds; it is approved when enough people did.

        single_user: whether the installation has one human user and no production environment; only then may the
        author approve, and the ledger says so.
        Raises Denied for somebody who may not; Conflict for a version that is not open, or a second word of one person.
        """
        return transact(
            self._records,
            lambda tx: self._people.approve(tx, ref, principal, reason, single_user=single_user),
        )

    def reject(self, ref: VersionRef, principal: Principal, *, reason: str) -> VersionInfo:
        """Say no, for ever: one word is enough, and the author may say it. Raises as `approve` does."""
        return transact(self._records, lambda tx: self._people.reject(tx, ref, principal, reason))

    def mark_answering(
        self, tx: Tx, model: str, versions: Collection[VersionRef], *, actor: str, reason: str = ""
    ) -> None:
        """Note which versions of a model answer now, at any endpoint; others that did before are approved again.

        For the release's transaction. Raises Conflict for a version that is not approved.
        """
        at = self._clock.now()
        for other in store.listed(tx, model=model, state=ModelState.LIVE, limit=_LIVE_MAX):
            if other.ref not in versions:
                store.set_state(tx, other.ref, ModelState.APPROVED, at=at, actor=actor, reason=reason)
        for ref in sorted(versions, key=lambda ref: ref.number):
            now = store.info(tx, ref)
            if not now.releasable:
                raise Conflict(f"{ref} is {now.state}: only an approved version can go live")
            if now.state is not ModelState.LIVE:
                store.set_state(tx, ref, ModelState.LIVE, at=at, actor=actor, reason=reason)

    def retire(self, ref: VersionRef, *, actor: str, reason: str) -> VersionInfo:
        """Take a version out of use for ever: it cannot be loaded to serve; its history stays.

        Raises Conflict while it, or a graph with it, is live.
        """

        def do(tx: Tx) -> VersionInfo:
            now = store.info(tx, ref)
            if now.state is ModelState.LIVE:
                raise Conflict(f"{ref} is live: release another version first")
            for graph in store.listed(tx, model=None, state=ModelState.LIVE, limit=_LIVE_MAX):
                if str(ref) in graph.candidate.nodes.values():
                    raise Conflict(
                        f"{ref} is a node of {graph.ref}, which is live: release another version first"
                    )
            if now.state is not ModelState.RETIRED:
                store.set_state(tx, ref, ModelState.RETIRED, at=self._clock.now(), actor=actor, reason=reason)
                entry = Entry("model.retired", subject_of(ref), actor, {}, {"reason": reason})
                self._ledger.append(tx, entry)
            return store.info(tx, ref)

        return transact(self._records, do)

    def show(self, ref: VersionRef) -> VersionInfo:
        """Return a version as it stands. Raises NotFound."""
        with self._records.read() as tx:
            return store.info(tx, ref)

    def list(
        self, *, model: str | None = None, state: ModelState | None = None, limit: int = 100
    ) -> tuple[VersionInfo, ...]:
        """Return versions, the newest first."""
        with self._records.read() as tx:
            return store.listed(tx, model=model, state=state, limit=limit)

    def history(self, ref: VersionRef) -> tuple[Change, ...]:
        """Return the states of a version, the oldest first."""
        with self._records.read() as tx:
            return store.history(tx, ref)

    def of_run(self, run: str, *, variant: str = "") -> VersionRef | None:
        """Return the version that a run, or a variant of what it made, was registered as."""
        with self._records.read() as tx:
            return store.of_run(tx, run, variant)

    def signature(self, ref: VersionRef) -> ModelSignature:
        """Return what a version takes and gives, verified. Raises as `load` does, but for the files."""
        return self._manifest(ref).signature

    def signed_manifest(self, ref: VersionRef) -> bytes:
        """Return a version's manifest as it was signed, to be carried elsewhere. Raises NotFound."""
        with self._records.read() as tx:
            return store.statement(tx, ref).encode()

    def _manifest(self, ref: VersionRef) -> Manifest:
        with self._records.read() as tx:
            text = store.statement(tx, ref)
        return read_manifest(text, self._keys.public_keys(purpose="model"), ref)

    def load(self, ref: VersionRef, *, to_serve: bool = False) -> Loaded:
        """Verify a version's manifest and every byte of its files, and return it with its model.

        to_serve: also refuse what is not approved or live, which a retired version never is again.
        Raises NotFound; Denied when no trusted key signed it, or it may not serve; Corrupt when a byte differs.
        """
        manifest = self._manifest(ref)
        model, parts = b"", {}
        for name, file in manifest.files.items():
            data = self._blobs.read(file.digest)
            if digest_bytes(data) != file.digest or len(data) != file.size_bytes:
                raise Corrupt(f"{name} of {ref} is not what was signed: restore it from a backup")
            if name == manifest.signature.file:
                model = data
            else:
                parts[name] = data
        if to_serve:
            self._check_serves(ref)
        return Loaded(
            ref=ref, files=manifest.files, signature=manifest.signature, manifest=manifest.payload, model=model,
            signed_by=manifest.signed_by, parts=parts,
        )  # fmt: skip

    def model_digest(self, ref: VersionRef) -> str:
        """Return the digest of the model of a version that may serve, as it was signed. Raises as `load` does, but
        for the files: whoever has the model's bytes elsewhere compares them."""
        manifest = self._manifest(ref)
        self._check_serves(ref)
        return manifest.files[manifest.signature.file].digest

    def _check_serves(self, ref: VersionRef) -> None:
        info = self.show(ref)
        if not info.releasable:
            raise Denied(f"{ref} is {info.state}: only an approved version may serve")
        for node, version in info.candidate.nodes.items():
            state = self.show(VersionRef.parse(version)).state
            if state not in (ModelState.APPROVED, ModelState.LIVE):
                raise Denied(f"{ref}: its node {node!r}, {version}, is {state}: compose the graph anew")

    @contextmanager
    def files(self, ref: VersionRef) -> Iterator[Mapping[str, Path]]:
        """Yield read-only local files of a version by name, verified; valid inside the block only."""
        manifest = self._manifest(ref)
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(self._blobs.local(file.digest))
                for name, file in manifest.files.items()
            }

    def verify(self, ref: VersionRef) -> dict[str, Any]:
        """Verify a version and return what was found, for people. Raises as `load` does."""
        loaded = self.load(ref)
        return {
            "version": str(ref), "ok": True, "signed_by": loaded.signed_by,
            "files": {name: file.digest for name, file in loaded.files.items()},
        }  # fmt: skip

    def provenance(self, ref: VersionRef) -> SignedStatement:
        """Return the signed statement of how a version was made, as it is stored: not believed yet. Raises NotFound."""
        with self._records.read() as tx:
            return SignedStatement.from_json(store.provenance(tx, ref))

    def verify_provenance(self, ref: VersionRef) -> Json:
        """Return how a version was made, believed: signed, of this very version, and what the ledger noted when it entered.

        Raises NotFound; Denied when no trusted key signed it; Corrupt when it is not what was signed, or says something
        else than the manifest or the ledger.
        """
        statement = self.provenance(ref)
        found = read_provenance(
            statement, self._keys.public_keys(purpose="provenance"), ref, self._manifest(ref)
        )
        digest = digest_bytes(statement.to_json())
        leaves = self._ledger.show(kind="model.registered", subject=subject_of(ref), limit=2)
        if [leaf.body.get("provenance") for leaf in leaves] != [digest]:
            raise Corrupt(
                f"the ledger noted another provenance when {ref} entered: it was replaced; restore it from a backup"
            )
        return found

    def card(self, ref: VersionRef) -> tuple[str, dict[str, Any]]:
        """Return the model card as Markdown and as JSON."""
        info = self.show(ref)
        return card_markdown(info), card_json(info)

    def export(self, ref: VersionRef, folder: Path) -> tuple[str, ...]:
        """Write a version's model, signed manifest and card into `folder`; `verify_export` checks them anywhere.

        Raises Conflict when the folder is not empty.
        """
        loaded = self.load(ref)
        with self._records.read() as tx:
            statement = store.statement(tx, ref)
        markdown, json_ = self.card(ref)
        files = {name: self._blobs.read(file.digest) for name, file in loaded.files.items()}
        return write_export(folder, files, statement=statement, card=markdown, card_json=json_)

    def set_alias(self, ref: VersionRef, alias: str, *, actor: str) -> None:
        """Let `model@alias` name a version from now on; what it named before stays in its history."""
        check_name(alias, what="alias")

        def do(tx: Tx) -> None:
            store.info(tx, ref)
            store.set_alias(tx, ref.name, alias, ref.number, at=self._clock.now(), actor=actor)
            self._ledger.append(tx, Entry("model.alias", subject_of(ref), actor, {"alias": alias}))

        transact(self._records, do)

    def drop_alias(self, model: str, alias: str, *, actor: str) -> None:
        """Take an alias away. Raises NotFound when it names nothing."""

        def do(tx: Tx) -> None:
            if alias not in store.aliases(tx, model):
                raise NotFound(f"{model} has no alias {alias!r}")
            store.set_alias(tx, model, alias, None, at=self._clock.now(), actor=actor)
            self._ledger.append(
                tx, Entry("model.alias", f"model:{model}", actor, {"alias": alias, "dropped": True})
            )

        transact(self._records, do)

    def alias_history(self, model: str, alias: str) -> tuple[Change, ...]:
        with self._records.read() as tx:
            return store.alias_history(tx, model, alias)

    def resolve(self, text: str, *, model: str | None = None) -> VersionRef:
        """Return the version that `model@number`, `model@alias` or, where `model` is given, either part alone names.

        Raises InvalidInput for what cannot name a version, NotFound for an alias that names none.
        """
        name, separator, last = text.rpartition("@")
        if last.isdigit():
            return VersionRef.parse(text, name=model)
        wanted = name if separator else model
        if not wanted:
            raise InvalidInput(f"{text!r} is no version: expected MODEL@NUMBER or MODEL@ALIAS")
        with self._records.read() as tx:
            number = store.aliases(tx, wanted).get(last)
        if number is None:
            raise NotFound(f"{wanted} has no version or alias {last!r}: `taut model list` shows them")
        return VersionRef(wanted, number)


def _parents(tx: Tx, candidate: Candidate) -> dict[str, str]:
    """Return the versions that a candidate was made from, with the digests of their artifacts."""
    versions = [*candidate.nodes.values(), *([candidate.variant.origin] if candidate.variant else [])]
    return {
        version: store.info(tx, VersionRef.parse(version)).candidate.artifact.digest
        for version in dict.fromkeys(versions)
    }


def _state_after(verdict: Verdict, approvals: int) -> ModelState:
    match verdict.decision:
        case Decision.REJECT:
            return ModelState.REJECTED
        case Decision.HOLD:
            return ModelState.HELD
        case Decision.ADMIT:
            return ModelState.APPROVED if approvals == 0 else ModelState.CANDIDATE
