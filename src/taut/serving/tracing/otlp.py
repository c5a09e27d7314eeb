"""Spans in OTLP's JSON form.

Source: OpenTelemetry Protocol 1.9, https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding: ids in
hexadecimal, 64-bit numbers as text, enumerations as numbers. Names follow the semantic conventions for HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from taut.ports.world import Random
from taut.serving.tracing.tracer import RequestSpan

_SERVER, _INTERNAL = 2, 1
_ERROR: Final = 2
_SPAN_BYTES: Final = 8
_BREATH: Final = 8
_ENCODE: Final = msgspec.json.Encoder().encode

Attribute = dict[str, Any]

Resource = Mapping[str, str]
"""What the process is: `service.name`, `service.instance.id`, `service.version`."""


def encode_spans(
    requests: Sequence[RequestSpan],
    resource: Resource,
    random: Random,
    *,
    breathe: Callable[[], object] = lambda: None,
) -> bytes:
    """Return the body of an export request: of each request a span, and one a stage under it.

    breathe: called every few requests, so that a thread that encodes many can let others work in between.
    """
    parts = []
    for at, request in enumerate(requests):
        if at % _BREATH == 0:
            breathe()
        parts += [_ENCODE(span) for span in _spans(request, random)]
    scope = {"name": "taut", "version": resource.get("service.version", "")}
    return b'{"resourceSpans":[{"resource":{"attributes":%b},"scopeSpans":[{"scope":%b,"spans":[%b]}]}]}' % (
        _ENCODE(_attributes(resource)), _ENCODE(scope), b",".join(parts),
    )  # fmt: skip


class _Span(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    trace_id: str
    span_id: str
    name: str
    kind: int
    start_time_unix_nano: str
    end_time_unix_nano: str
    parent_span_id: str = ""
    attributes: tuple[Attribute, ...] = ()
    status: dict[str, int] = {}


def _spans(request: RequestSpan, random: Random) -> Iterator[_Span]:
    ids = random.bytes(_SPAN_BYTES * request.spans).hex()
    own, *below = [ids[at : at + 2 * _SPAN_BYTES] for at in range(0, len(ids), 2 * _SPAN_BYTES)]
    offset_ns = request.start_us * 1000 - request.started_ns
    trace_id = request.trace.trace_id
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "http.route": request.route,
        "http.response.status_code": request.status,
        "taut.endpoint": request.endpoint,
        "taut.model.version": request.version,
        "taut.request_id": request.request_id,
    }
    if request.code:
        attributes["error.type"] = request.code
    yield _Span(
        trace_id=trace_id,
        span_id=own,
        name=f"POST {request.route}",
        kind=_SERVER,
        start_time_unix_nano=str(request.started_ns + offset_ns),
        end_time_unix_nano=str(request.ended_ns + offset_ns),
        parent_span_id=request.trace.parent_id,
        attributes=_attributes(attributes),
        status={"code": _ERROR} if request.status >= 500 else {},
    )
    for span_id, (name, begin_ns, end_ns) in zip(below, request.stages, strict=True):
        yield _Span(
            trace_id=trace_id,
            span_id=span_id,
            name=name,
            kind=_INTERNAL,
            start_time_unix_nano=str(begin_ns + offset_ns),
            end_time_unix_nano=str(end_ns + offset_ns),
            parent_span_id=own,
        )


def _attributes(values: Mapping[str, str | int]) -> tuple[Attribute, ...]:
    return tuple(
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
    )
