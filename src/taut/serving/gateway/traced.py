"""A request's way through the gateway as a span with its stages, for those that are traced."""

from __future__ import annotations

from typing import Final

from taut.serving.gateway.ticket import Ticket
from taut.serving.tracing import RequestSpan, Trace

_ROUTES: Final = {"v1": "/v1/predict/{endpoint}", "v2": "/v2/models/{endpoint}/infer"}


def request_span(ticket: Ticket, trace: Trace, *, status: int, code: str, ended_ns: int) -> RequestSpan:
    """Return the span of a request that ended. code: of its error, empty for an answer."""
    return RequestSpan(
        trace=trace,
        route=_ROUTES[ticket.route.kind],
        endpoint=ticket.route.endpoint.name,
        version=ticket.route.endpoint.config.live.version,
        request_id=ticket.request_id,
        status=status,
        code=code,
        start_us=ticket.now_us,
        started_ns=ticket.started_ns,
        ended_ns=ended_ns,
        stages=(*_stages(ticket, ended_ns, answered=not code), *_nodes(ticket)),
    )


def _nodes(ticket: Ticket) -> list[tuple[str, int, int]]:
    """Return what the nodes of a graph did, one span each time that one was asked; they lie within `model`."""
    if ticket.nodes is None:
        return []
    return [(f"node {name}", began_ns, ended_ns) for name, began_ns, ended_ns in ticket.nodes.marks]


def _stages(ticket: Ticket, ended_ns: int, *, answered: bool) -> list[tuple[str, int, int]]:
    """Return the stages that were begun, one after the other; that in which a request was refused ends with it.

    A later part of a stream has marks of the part before it: those that lie before its own begin are none of its.
    """
    started_ns = ticket.started_ns
    guarded_ns, looked_ns, scored_ns = (
        mark if mark >= started_ns else 0 for mark in (ticket.guarded_ns, ticket.looked_ns, ticket.scored_ns)
    )
    if not ticket.guarded_ns:
        return [("guard", started_ns, ended_ns)]
    asked_ns = scored_ns - ticket.waited_ns if scored_ns else ended_ns
    found = []
    if guarded_ns:
        found += [("guard", started_ns, guarded_ns), ("decode", guarded_ns, looked_ns or asked_ns)]
    if looked_ns:
        found.append(("features", looked_ns, asked_ns))
    if not scored_ns:
        return found
    if ticket.waited_ns:
        found.append(("queue", asked_ns, scored_ns))
    if not ticket.model_ns:
        return [*found, ("cache" if answered else "model", scored_ns, ended_ns)]
    concluded_ns = scored_ns + ticket.model_ns
    return [*found, ("model", scored_ns, concluded_ns), ("answer", concluded_ns, ended_ns)]
