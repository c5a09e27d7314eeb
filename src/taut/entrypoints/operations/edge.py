"""Operations of the edge: make a bundle, verify one, take a device's report, look at the devices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from taut.core.edge import Counts, Report
from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput, NotFound, Unavailable
from taut.core.refs import VersionRef
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)

_DRIFT_ROWS: Final = 100
"""Fewer answers say nothing of their distribution."""


class EdgeExport(Request, frozen=True):
    """file: on the installation's own machine, not there yet. variant: null for the smallest quantised one that may serve,
    `original` for none. features_in_request: callers send what would be looked up."""

    version: str
    file: str
    variant: str | None = None
    features_in_request: bool = False


class EdgeVerify(Request, frozen=True):
    """file: a bundle on the installation's own machine."""

    version: str
    file: str


class EdgeReport(Request, frozen=True):
    """report: a `taut.core.edge.Report`."""

    report: Json


class EdgeList(Request, frozen=True):
    version: str | None = None
    limit: int = 100


def _export(platform: Platform, caller: Caller, request: EdgeExport, progress: Progress) -> Json:
    from taut import __version__
    from taut.entrypoints.edge.package import assemble, runner_files
    from taut.workflows.edge import export_edge

    path = _local(caller, request.file)
    if path.exists():
        raise Conflict(f"{path} is there already: name a file that is not")
    progress("putting the bundle together", None)
    made = export_edge(
        platform, _devices(platform), platform.registry.resolve(request.version), variant=request.variant,
        features=request.features_in_request, runner=runner_files(), assemble=assemble, taut=__version__,
        actor=caller.principal.id,
    )  # fmt: skip
    _write(path, made.data)
    return {
        "version": made.version, "origin": made.origin, "variant": made.variant, "file": str(path), "bundle": made.bundle,
        "size_bytes": len(made.data), "digest": made.digest, "fingerprints": list(made.fingerprints),
        "public_keys": list(made.keys), "features_in_request": list(made.features), "note": made.note,
    }  # fmt: skip


def _verify(platform: Platform, caller: Caller, request: EdgeVerify, _progress: Progress) -> Json:
    """Read a bundle by code that is not in it, and compare it with what was handed out."""
    from taut.entrypoints.edge.launch import Unsigned, read
    from taut.serving.edge.bundle import fingerprint, verify_bundle

    path = _local(caller, request.file)
    if not path.is_file():
        raise NotFound(f"no file {path}: check the path")
    try:
        files = read(str(path))
    except Unsigned as error:
        raise Corrupt(str(error)) from error
    ref = platform.registry.resolve(request.version)
    keys = platform.keys.public_keys(purpose="model")
    bundle = verify_bundle(files, fingerprints=tuple(fingerprint(key.pem) for key in keys))
    if str(ref) not in (bundle.contents.version, bundle.contents.origin):
        raise Conflict(f"{path} is a bundle of {bundle.contents.version}, not of {ref}")
    return {
        "ok": True, "version": bundle.contents.version, "origin": bundle.contents.origin, "bundle": bundle.id,
        "files": len(files), "fingerprints": list(bundle.fingerprints),
        "exported_here": _devices(platform).statement(bundle.id) is not None,
    }  # fmt: skip


def _report(platform: Platform, caller: Caller, request: EdgeReport, _progress: Progress) -> Json:
    try:
        report = msgspec.convert(request.report, Report, str_keys=True)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"this is no report of a device: {error}") from error
    devices = _devices(platform)
    sequence = devices.report(report, principal=caller.principal.id)
    version = devices.facts(report.bundle).version
    return {"sequence": sequence, "state": str(platform.registry.show(VersionRef.parse(version)).state)}


def _list(platform: Platform, _caller: Caller, request: EdgeList, _progress: Progress) -> Json:
    if not 1 <= request.limit <= 10_000:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to 10000")
    version = None if request.version is None else str(platform.registry.resolve(request.version))
    found = _devices(platform).list(version=version, limit=request.limit)
    return {"devices": [_device(info) for info in found]}


def _device(info: Any) -> Json:
    from taut.serving.meters import TIME_NS, quantile

    counts: Counts = info.counts
    latency = [counts.latency.get(at, 0) for at in range(len(TIME_NS) + 1)]
    p50_ns, p99_ns = (quantile(TIME_NS, latency, q) for q in (0.5, 0.99))
    return {
        "device": info.device, "principal": info.principal, "version": info.facts.version, "origin": info.facts.origin,
        "bundle": info.bundle, "current": info.current, "first_seen": to_json(info.first_seen),
        "last_seen": to_json(info.last_seen), "reports": info.reports, "missed": info.missed, "dropped": info.dropped,
        "answers": counts.requests, "rows": counts.rows, "errors": sum(counts.errors.values()),
        "errors_by_code": dict(counts.errors), "by_edge": counts.edge_rows, "by_cloud": counts.cloud_rows,
        "cloud_silent": counts.fallback_rows, "latency_ms_p50": _ms(p50_ns), "latency_ms_p99": _ms(p99_ns),
        "labels": dict(counts.labels), "expected": info.facts.expected, "drift": drift(counts, info.facts.expected),
        "nulls": dict(counts.nulls), "out_of_range": dict(counts.outside),
        "confidence": {str(at): count for at, count in sorted(counts.confidence.items())},
    }  # fmt: skip


def _ms(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1e6, 4)


def drift(counts: Counts, expected: Json | None) -> float | None:
    """Return how far answers are from those to training's held-out rows; None where too few or nothing is known.

    Of a classifier the total variation distance of the shares of its classes, 0 to 1; of a regressor the distance of the
    means, in standard deviations of the held-out answers.
    """
    if expected is None or not expected["rows"]:
        return None
    if counts.values is not None:
        mean, deviation = float(expected["mean"]), float(expected["deviation"])
        if counts.values.count < _DRIFT_ROWS or not deviation:
            return None
        return round(abs(counts.values.total / counts.values.count - mean) / deviation, 4)
    total = sum(counts.labels.values())
    if total < _DRIFT_ROWS:
        return None
    shares: dict[str, float] = expected["shares"]
    apart: float = sum(abs(counts.labels.get(name, 0) / total - share) for name, share in shares.items())
    return round(apart / 2, 4)


def _devices(platform: Platform) -> Any:
    """Furnish the room: only these operations enter it."""
    from taut.lifecycle.edge import Devices

    return Devices(records=platform.records, ledger=platform.ledger, clock=platform.clock)


def _local(caller: Caller, file: str) -> Path:
    if not caller.local:
        raise Denied("bundles are files of the installation's own machine: run this command there")
    path = Path(file)
    if not path.is_absolute():
        raise InvalidInput(f"file {file!r} is relative: write an absolute path")
    return path


def _write(path: Path, data: bytes) -> None:
    """Write the file whole or not at all, for its owner to run."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.chmod(0o755)
        os.link(temporary, path)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already: name a file that is not") from error
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be written ({error.strerror}): choose another folder, or free some space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _model(request: Any) -> str:
    return f"model:{request.version or 'any'}"


def _one_device(request: EdgeReport) -> str:
    return f"device:{str(request.report.get('device', 'any'))[:64]}"


OPERATIONS: Final = (
    Operation(name="edge.export", action="model.export", request=EdgeExport, handle=_export, resource=_model, summary="Write a version as one file that serves by itself"),
    Operation(name="edge.verify", action="model.verify", request=EdgeVerify, handle=_verify, resource=_model, reads=True, summary="Verify a bundle from outside it"),
    Operation(name="edge.report", action="edge.report", request=EdgeReport, handle=_report, resource=_one_device, summary="Take what a device at the edge counted, once"),
    Operation(name="edge.list", action="edge.read", request=EdgeList, handle=_list, resource=_model, reads=True, summary="List devices at the edge and what they reported"),
)  # fmt: skip
