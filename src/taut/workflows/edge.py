"""Export to the edge: choose the version or its variant, say what to expect of it, and sign all of it as one bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.canonical import canonical_json, digest_bytes
from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.core.refs import VersionRef
from taut.core.schema import ModelSignature
from taut.lifecycle.edge import BundleFacts, Devices
from taut.lifecycle.registry import File, VersionInfo
from taut.serving.edge.bundle import (
    KEYS,
    MANIFEST,
    PAYLOAD_TYPE,
    STATEMENT,
    Contents,
    Expected,
    bundle_id,
    edge_signature,
    fingerprint,
)
from taut.serving.gateway.answers import class_name
from taut.trust.signing import sign_statement
from taut.workflows.rooms import Rooms

ORIGINAL: Final = "original"
_QUANTISED: Final = "int8-"
_LISTED_MAX: Final = 10_000


class EdgeExport(msgspec.Struct, frozen=True, kw_only=True):
    """What was made. key: PEM; fingerprints: of every key in the bundle. note: what else could have been exported."""

    data: bytes
    bundle: str
    version: str
    origin: str
    variant: str
    digest: str
    fingerprints: tuple[str, ...]
    keys: tuple[str, ...]
    features: tuple[str, ...]
    note: str


def export_edge(
    rooms: Rooms, devices: Devices, ref: VersionRef, *, variant: str | None, features: bool, runner: Mapping[str, bytes],
    assemble: Callable[[Mapping[str, bytes]], bytes], taut: str, actor: str,
) -> EdgeExport:  # fmt: skip
    """Make the bundle of a version. The same version, variant and runner give the same bytes.

    variant: None for the smallest quantised one that may serve, else the version itself. features: callers send what
    would be looked up. runner: the files that answer on a device; assemble: makes one file of all.
    Raises Denied for a version that may not serve, InvalidInput for one that is no ONNX model, or has features without `features`, NotFound
    for a variant that there is not, Corrupt when a byte of the model is not what was signed.
    """
    form = rooms.registry.signature(ref).form
    if form != "onnx":
        more = ", export one of its nodes" if form == "graph" else ""
        raise InvalidInput(f"{ref} is a {form} model: devices run single ONNX models{more}")
    chosen, note = choose(rooms, ref, variant)
    loaded = rooms.registry.load(chosen.ref, to_serve=True)
    looked_up = _looked_up(loaded.signature, chosen.ref, features=features)
    signature = edge_signature(loaded.signature)
    manifest = rooms.registry.signed_manifest(chosen.ref)
    keys = rooms.keys.public_keys(purpose="model")
    pems = tuple(key.pem for key in keys if key.key_id in (keys[0].key_id, loaded.signed_by))
    files = {**runner, loaded.signature.file: loaded.model, MANIFEST: manifest, KEYS: canonical_json(pems)}
    expected = expect(rooms, chosen, loaded.signature)
    contents = Contents(
        model=ref.name, version=str(chosen.ref), origin=str(ref), manifest=digest_bytes(manifest), taut=taut,
        files={name: File(digest=digest_bytes(data), size_bytes=len(data)) for name, data in files.items()},
        features=looked_up, expected=expected, ranges=ranges(rooms, chosen, signature),
    )  # fmt: skip
    payload = msgspec.to_builtins(contents)
    name = bundle_id(canonical_json(payload))
    statement = devices.statement(name)
    if statement is None:
        signed = sign_statement(
            rooms.keys, purpose="model", payload_type=PAYLOAD_TYPE, payload=payload
        ).to_json()
        data = assemble({**files, STATEMENT: signed})
        facts = BundleFacts(
            version=contents.version, origin=contents.origin, columns=tuple(c.name for c in signature.request),
            classes=tuple(map(class_name, signature.classes)), digest=digest_bytes(data), size_bytes=len(data),
            expected=None if expected is None else msgspec.to_builtins(expected),
        )  # fmt: skip
        statement = devices.keep(name, signed, facts, actor=actor)
    data = assemble({**files, STATEMENT: statement})
    made = chosen.candidate.variant
    return EdgeExport(
        data=data, bundle=name, version=contents.version, origin=contents.origin, digest=digest_bytes(data), note=note,
        variant=ORIGINAL if made is None else made.name, fingerprints=tuple(map(fingerprint, pems)), keys=pems,
        features=looked_up,
    )  # fmt: skip


def choose(rooms: Rooms, ref: VersionRef, variant: str | None) -> tuple[VersionInfo, str]:
    """Return the version that is to be exported for `ref`, and what else could have been, in words."""
    info = rooms.registry.show(ref)
    if info.candidate.variant is not None or variant == ORIGINAL:
        if variant not in (None, ORIGINAL) and (made := info.candidate.variant) and made.name != variant:
            raise Conflict(
                f"{ref} is itself the variant {made.name} of {made.origin}: export one of that version"
            )
        return info, ""
    found = [
        other
        for other in rooms.registry.list(model=ref.name, limit=_LISTED_MAX)
        if other.candidate.variant is not None and other.candidate.variant.origin == str(ref)
    ]
    if variant is not None:
        named = [
            one
            for one in found
            if one.candidate.variant is not None and one.candidate.variant.name == variant
        ]
        if not named:
            raise NotFound(f"{ref} has no variant {variant[:40]!r}: `taut model optimise {ref}` makes them")
        return named[0], ""
    small = [
        one
        for one in found
        if one.candidate.variant is not None and one.candidate.variant.name.startswith(_QUANTISED)
    ]
    ready = sorted((one for one in small if one.releasable), key=lambda one: (_bytes(one), one.ref.number))
    open_ = [one for one in small if not one.releasable and str(one.state) in ("candidate", "held")]
    note = "; ".join(f"{one.ref} is smaller and waits for approval" for one in open_ if not ready)
    return (ready[0] if ready else info), note


def _bytes(info: VersionInfo) -> int:
    return info.candidate.artifact.size_bytes


def _looked_up(signature: ModelSignature, ref: VersionRef, *, features: bool) -> tuple[str, ...]:
    """Return the features that callers must send. Raises InvalidInput where nobody said that they will."""
    found = tuple(item.column.name for item in signature.inputs if item.feature_set is not None)
    if found and not features:
        raise InvalidInput(
            f"{ref} looks up {', '.join(found[:10])} in the feature store, which is not there at the edge: export it with "
            "--features-in-request, and callers send them as columns of the request"
        )
    return found


def expect(rooms: Rooms, info: VersionInfo, signature: ModelSignature) -> Expected | None:
    """Return what the model answered on held-out rows when it was trained; None where that is no longer known."""
    try:
        sample = rooms.training.parity_sample(info.candidate.run)
    except NotFound:
        return None
    columns = [name for name in sample.columns if name.startswith("p") and name[1:].isdigit()]
    columns.sort(key=lambda name: int(name[1:]))
    answers: npt.NDArray[np.float64] = sample.select(columns).to_numpy()
    if not len(answers):
        return None
    if signature.output == "value":
        return Expected(
            rows=len(answers), mean=float(answers[:, 0].mean()), deviation=float(answers[:, 0].std())
        )
    if answers.shape[1] != len(signature.classes):
        return None
    winners: list[int] = list(np.argmax(answers, axis=1).astype(int).flat)
    shares = {
        class_name(label): winners.count(at) / len(winners) for at, label in enumerate(signature.classes)
    }
    return Expected(rows=len(winners), shares=shares)


def ranges(rooms: Rooms, info: VersionInfo, signature: ModelSignature) -> dict[str, tuple[float, float]]:
    """Return the range that each number of a request had in the held-out rows and in the data that was trained on.

    Taken from the statistics of the snapshots, which never look at personal columns. Texts have none.
    """
    found: dict[str, tuple[float, float]] = {}
    names = {column.name for column in signature.request if column.dtype.numeric}
    for snapshot in info.candidate.snapshots.values():
        try:
            statistics = rooms.data.snapshot(VersionRef.parse(snapshot)).statistics
        except NotFound:
            continue
        for name in names & set(statistics):
            low, high = statistics[name].minimum, statistics[name].maximum
            if isinstance(low, int | float) and isinstance(high, int | float):
                before = found.get(name, (float(low), float(high)))
                found[name] = min(before[0], float(low)), max(before[1], float(high))
    return dict(sorted(found.items()))
