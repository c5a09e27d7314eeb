"""What a request carries on its way through the gateway, and what the gateway takes from outside."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from taut.core.errors import DeadlineExceeded
from taut.ports.world import Random
from taut.serving.gateway.callers import Tally
from taut.serving.gateway.compiled import Active, Route
from taut.serving.gateway.guard import Caller, Session
from taut.serving.graphs import NodeWork
from taut.serving.tracing import Trace
from taut.serving.trials import Arm, Pairing
from taut.trust.quota import Account


class Ticket(msgspec.Struct, gc=False):
    """One request on its way, with the times of its stages by the gateway's counter, 0 for those that it has not reached.

    begun_ns: when its turn came, as a rule at once. guarded_ns, looked_ns, scored_ns: when the guard was passed, features were asked for, the model began. waited_ns: for a
    worker, before that. model_ns: how long the model took, 0 where the cache answered. guard_ns: spent on guarding, the record included.
    trace: under which it is recorded; None for most. nodes: what those of a graph did; None where a model answers.
    tally: where it is counted, what the model took included. account: what it costs is charged to; None where nothing is. part: whether it is a later part of a request that is counted.
    arm: of a release under way, to which the caller was drawn; or the request, drawn for a shadow.
    worker: by which the model's answer was computed, for the record.
    """

    request_id: str
    now_us: int
    started_ns: int
    begun_ns: int
    active: Active
    route: Route
    session: Session | None = None
    caller: Caller | None = None
    guard_ns: int = 0
    guarded_ns: int = 0
    looked_ns: int = 0
    waited_ns: int = 0
    scored_ns: int = 0
    model_ns: int = 0
    trace: Trace | None = None
    deadline_ns: int = 0
    v2_id: str | None = None
    v2_outputs: tuple[str, ...] | None = None
    v2_binary: tuple[str, ...] = ()
    json_bytes: int | None = None
    recorded: bool = False
    nodes: NodeWork | None = None
    tally: Tally | None = None
    account: Account | None = None
    part: bool = False
    arm: Arm | Pairing | None = None
    worker: str = ""


class World(msgspec.Struct, frozen=True):
    """What the gateway takes from outside.

    now_us: wall clock; monotonic_s and counter_ns never go back. version: of taut, for `/v2`.
    """

    now_us: Callable[[], int]
    monotonic_s: Callable[[], float]
    counter_ns: Callable[[], int]
    random: Random
    version: str = ""


def check_deadline(ticket: Ticket, counter_ns: Callable[[], int]) -> None:
    """Raise DeadlineExceeded when the caller's time is over."""
    if counter_ns() > ticket.deadline_ns:
        caller = ticket.caller
        raise DeadlineExceeded(
            f"the answer was not ready within {caller.deadline_ms if caller else 0} ms: allow more time or send less"
        )
