"""Spans in OTLP's JSON form.

Source: OpenTelemetry Protocol 1.9, https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding: ids in
hexadecimal, 64-bit numbers as text, enumerations as numbers. Names follow the semantic conventions for HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from taut.ports.world import Random
from taut.serving.tracing.tracer import RequestSpan

_SERVER, _INTERNAL = 2, 1
_ERROR: Final = 2
_SPAN_BYTES: Final = 8

Resource = Mapping[str, str]
"""What the process is: `service.name`, `service.instance.id`, `service.version`."""


def encode_spans(requests: Sequence[RequestSpan], resource: Resource, random: Random) -> bytes:
    """Return the body of an export request: of each request a span, and one a stage under it."""
    spans = [span for request in requests for span in _spans(request, random)]
    scope = {"name": "taut", "version": resource.get("service.version", "")}
    return msgspec.json.encode(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource)},
                    "scopeSpans": [{"scope": scope, "spans": spans}],
                }
            ]
        }
    )


def _spans(request: RequestSpan, random: Random) -> Iterator[dict[str, Any]]:
    ids = random.bytes(_SPAN_BYTES * request.spans).hex()
    own, *below = [ids[at : at + 2 * _SPAN_BYTES] for at in range(0, len(ids), 2 * _SPAN_BYTES)]
    offset_ns = request.start_us * 1000 - request.started_ns
    trace_id, parent_id = request.trace.trace_id, request.trace.parent_id
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "http.route": request.route,
        "http.response.status_code": request.status,
        "taut.endpoint": request.endpoint,
        "taut.model.version": request.version,
        "taut.request_id": request.request_id,
        **({"error.type": request.code} if request.code else {}),
    }
    yield {
        "traceId": trace_id,
        "spanId": own,
        **({"parentSpanId": parent_id} if parent_id else {}),
        "name": f"POST {request.route}",
        "kind": _SERVER,
        "startTimeUnixNano": str(request.started_ns + offset_ns),
        "endTimeUnixNano": str(request.ended_ns + offset_ns),
        "attributes": _attributes(attributes),
        "status": {"code": _ERROR} if request.status >= 500 else {},
    }
    for span_id, (name, begin_ns, end_ns) in zip(below, request.stages, strict=True):
        yield {
            "traceId": trace_id,
            "spanId": span_id,
            "parentSpanId": own,
            "name": name,
            "kind": _INTERNAL,
            "startTimeUnixNano": str(begin_ns + offset_ns),
            "endTimeUnixNano": str(end_ns + offset_ns),
        }


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
    ]
