"""Operations on model versions: what there is, what people decide, what can be proved of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from taut.core.errors import Denied, InvalidInput
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)


class ModelList(Request, frozen=True):
    model: str | None = None
    limit: int = 50


class ModelVersion(Request, frozen=True):
    """version: `model@number` or `model@alias`."""

    version: str


class ModelProvenance(Request, frozen=True):
    """verify: say what holds instead of the statement as it is stored."""

    version: str
    verify: bool = False


class ModelRetire(Request, frozen=True):
    """reason: for the card and the ledger."""

    version: str
    reason: str = ""


class ModelExport(Request, frozen=True):
    """folder: on the installation's own machine, empty or not there yet."""

    version: str
    folder: str


class ModelAlias(Request, frozen=True):
    version: str
    alias: str


def _list(platform: Platform, _caller: Caller, request: ModelList, _progress: Progress) -> Json:
    if not 1 <= request.limit <= 10_000:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to 10000")
    found = platform.registry.list(model=request.model, limit=request.limit)
    return {"versions": [_summary(info) for info in found]}


def _summary(info: Any) -> Json:
    said = [approval.principal for approval in info.approvals if approval.approved]
    return {
        "version": str(info.ref),
        "state": str(info.state),
        "run": info.candidate.run,
        "variant": None if info.candidate.variant is None else info.candidate.variant.name,
        "origin": None if info.candidate.variant is None else info.candidate.variant.origin,
        "metrics": dict(info.candidate.metrics),
        "author": info.candidate.author,
        "approvals": said,
        "approvals_needed": info.approvals_needed,
        "aliases": list(info.aliases),
        "created_at": to_json(info.created_at),
    }


def _show(platform: Platform, _caller: Caller, request: ModelVersion, _progress: Progress) -> Json:
    ref = platform.registry.resolve(request.version)
    markdown, card = platform.registry.card(ref)
    info = platform.registry.show(ref)
    verdict = info.verdict
    return {
        **_summary(info),
        "verdict": None if verdict is None else str(verdict.decision),
        "reasons": [] if verdict is None else list(verdict.reasons),
        "history": to_json(platform.registry.history(ref)),
        "card": card,
        "card_markdown": markdown,
    }


def _score(platform: Platform, _caller: Caller, request: ModelVersion, progress: Progress) -> Json:
    from taut.workflows.testscore import score_of, seen_of

    ref = platform.registry.resolve(request.version)
    monitor = platform.watches.monitor(platform)
    if platform.publisher is None:
        progress("reading the prediction log", None)
        monitor.look()
        monitor.close()
    figures = [(place[1], found) for place, found in monitor.said.items()]
    return {"version": str(ref), **to_json(score_of(seen_of(platform, ref, figures)))}


def _verify(platform: Platform, _caller: Caller, request: ModelVersion, _progress: Progress) -> Json:
    found: Json = platform.registry.verify(platform.registry.resolve(request.version))
    return found


def _export(platform: Platform, caller: Caller, request: ModelExport, _progress: Progress) -> Json:
    if not caller.local:
        raise Denied("export writes on the installation's own machine: run `taut model export` there")
    folder = Path(request.folder)
    if not folder.is_absolute():
        raise InvalidInput(f"folder {request.folder!r} is relative: write an absolute path")
    ref = platform.registry.resolve(request.version)
    return {"version": str(ref), "folder": str(folder), "files": list(platform.registry.export(ref, folder))}


def _sbom(platform: Platform, _caller: Caller, request: ModelVersion, _progress: Progress) -> Json:
    from taut.workflows.supply import model_bill

    return model_bill(platform, platform.registry.resolve(request.version))


def _provenance(platform: Platform, _caller: Caller, request: ModelProvenance, _progress: Progress) -> Json:
    from taut.trust.signing import as_dsse

    ref = platform.registry.resolve(request.version)
    statement = platform.registry.provenance(ref)
    if not request.verify:
        return as_dsse(statement)
    found = platform.registry.verify_provenance(ref)
    signer = statement.signatures[0].keyid
    keys = {key.key_id: key.pem for key in platform.keys.public_keys(purpose="provenance")}
    return {
        "version": str(ref),
        "ok": True,
        "signed_by": signer,
        "public_key": keys[signer],
        "statement": found,
    }


def _retire(platform: Platform, caller: Caller, request: ModelRetire, _progress: Progress) -> Json:
    ref = platform.registry.resolve(request.version)
    return _summary(platform.registry.retire(ref, actor=caller.principal.id, reason=request.reason))


def _alias(platform: Platform, caller: Caller, request: ModelAlias, _progress: Progress) -> Json:
    ref = platform.registry.resolve(request.version)
    platform.registry.set_alias(ref, request.alias, actor=caller.principal.id)
    return _summary(platform.registry.show(ref))


def _model(request: Any) -> str:
    return f"model:{request.version}"


OPERATIONS: Final = (
    Operation(name="model.list", action="model.read", request=ModelList, handle=_list, resource=lambda request: f"model:{request.model or 'any'}", reads=True, summary="List model versions"),
    Operation(name="model.show", action="model.read", request=ModelVersion, handle=_show, resource=_model, reads=True, summary="Show a version with its card"),
    Operation(name="model.score", action="model.read", request=ModelVersion, handle=_score, resource=_model, reads=True, summary="Score a version by the ML Test Score, from evidence"),
    Operation(name="model.verify", action="model.verify", request=ModelVersion, handle=_verify, resource=_model, reads=True, summary="Verify a version's signature and digests"),
    Operation(name="model.sbom", action="model.read", request=ModelVersion, handle=_sbom, resource=_model, reads=True, summary="Write a version's bill of materials"),
    Operation(name="model.provenance", action="model.verify", request=ModelProvenance, handle=_provenance, resource=_model, reads=True, summary="Show the signed statement of how a version was made, or verify it"),
    Operation(name="model.export", action="model.export", request=ModelExport, handle=_export, resource=_model, summary="Write a version to a folder, to be verified anywhere"),
    Operation(name="model.retire", action="model.reject", request=ModelRetire, handle=_retire, resource=_model, summary="Take a version out of use for ever"),
    Operation(name="model.alias", action="release.promote", request=ModelAlias, handle=_alias, resource=_model, fresh=True, summary="Let a name stand for a version"),
)  # fmt: skip
