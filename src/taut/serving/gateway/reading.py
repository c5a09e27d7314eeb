"""What a gateway tells of its meters: those of its requests, of its workers and of its models."""

from __future__ import annotations

from taut.serving.gateway.compiled import Active
from taut.serving.meters import LAYOUT, MeterReading, Meters, TraceReading, read_lanes


def read_gateway(
    active: Active | None,
    meters: Meters,
    *,
    started_us: int,
    up_s: float,
    in_flight: int,
    traces: TraceReading | None,
) -> MeterReading:
    """Return what was counted since the gateway began. up_s: since then, by a clock that cannot jump."""
    endpoints = () if active is None else active.answering
    return MeterReading(
        layout=LAYOUT,
        started_us=started_us,
        up_us=int(up_s * 1e6),
        in_flight=in_flight,
        slots=0 if active is None else active.settings.max_in_flight,
        endpoints=meters.reading(),
        lanes=read_lanes((endpoint.name, lane) for endpoint in endpoints for lane in endpoint.lanes),
        outside=meters.outside.reading(),
        models=None if active is None or active.residents is None else active.residents.reading(),
        traces=traces,
    )
