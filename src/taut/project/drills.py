"""Declaring drills: a fault that is planted on purpose, and what must follow from it within which time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project import words
from taut.project.alerting import Receiver, kinds_of
from taut.project.declare import declare
from taut.project.endpoints import Endpoint
from taut.project.manifest import Manifest
from taut.project.responses import DrillSpec
from taut.project.words import nearest, worded

_LONGEST_S: Final = 3600.0


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """The fault of a drill."""

    failing: float = 0.0
    slow_ms: float = 0.0


@worded("failing")
def failing(share: float = 1.0) -> Planted:
    """This share of the answers of the drill's release fail, as those of a broken model do."""
    return Planted(failing=words.number(share, "failing: share", low=0.001, high=1.0))


@worded("slow")
def slow(by: str) -> Planted:
    """The answers of the drill's release are late by so much, at most 10s; of a model that runs in the gateway."""
    late_s = parse_duration(words.duration(by, "slow: by")).total_seconds()
    return Planted(slow_ms=words.number(late_s, "slow: by, in seconds", low=0.001, high=10.0) * 1e3)


class Drill:
    """A fault in a release of an endpoint's own live version, and the alarm, the page and the rollback that must follow."""

    @worded("Drill")
    def __init__(
        self,
        name: str,
        *,
        at: Endpoint,
        fault: Planted,
        alarm: str | Sequence[str] = (),
        alarm_within: str = "2m",
        page: Receiver | None = None,
        page_within: str = "3m",
        rollback_within: str | None = None,
        rate: float = 20.0,
        in_production: bool = False,
    ) -> None:
        """at: whose live version is released once more, by the strategy that it declares, with the fault. alarm: kinds of alerts of
        which one must come. page: who must have been told. rollback_within: by when the release must have ended; None expects no
        rollback. rate: requests a second that the drill itself sends. in_production: whether it may run there too.
        """
        what = f"Drill {name!r}"
        (endpoint,) = words.instances(at, Endpoint, f"{what}: at", "name a taut.Endpoint")
        (planted,) = words.instances(fault, Planted, f"{what}: fault", "use taut.failing() or taut.slow()")
        if page is not None:
            words.instances(page, Receiver, f"{what}: page", "name a taut.Webhook or taut.Email")
        self.spec = DrillSpec(
            name=words.name(name, "drill"), endpoint=endpoint.name, failing=planted.failing, slow_ms=planted.slow_ms,
            alarm=kinds_of((alarm,) if isinstance(alarm, str) else alarm, what),
            alarm_within=_within(alarm_within, f"{what}: alarm_within"), page="" if page is None else page.name,
            page_within=_within(page_within, f"{what}: page_within"),
            rollback_within=None if rollback_within is None else _within(rollback_within, f"{what}: rollback_within"),
            rate=words.number(rate, f"{what}: rate", low=0.1, high=1000.0),
            in_production=bool(words.optional_flag(in_production, f"{what}: in_production")),
        )  # fmt: skip
        self.place = declare("drill", self.spec.name, self)


def drill_faults(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    """Yield (`drill`, its name, what is wrong): names that are not there, and drills that would hurt whom they must not."""
    receivers = {one.name for one in manifest.receivers}
    endpoints = {one.name for one in manifest.endpoints}
    for drill in manifest.drills:
        said = f"drill {drill.name!r}:"
        if drill.endpoint not in endpoints:
            yield (
                "drill",
                drill.name,
                f"{said} no endpoint {drill.endpoint!r}{nearest(drill.endpoint, endpoints)}",
            )
        if drill.page and drill.page not in receivers:
            yield "drill", drill.name, f"{said} no receiver {drill.page!r}{nearest(drill.page, receivers)}"


def _within(value: str, what: str) -> str:
    found = words.duration(value, what)
    if not 1 <= parse_duration(found).total_seconds() <= _LONGEST_S:
        raise InvalidInput(f"{what} is {found!r}: give 1s to 1h")
    return found
