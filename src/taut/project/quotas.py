"""Declaring what callers may use: together, as a group, or each of them over several endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from taut.core.errors import InvalidInput
from taut.project import words
from taut.project.declare import declare
from taut.project.endpoints import Endpoint
from taut.project.manifest import PriceSpec, QuotaSpec
from taut.project.words import worded

_MEMBER: Final = re.compile(r"(role:)?[a-z][a-z0-9_.\-]{0,62}")


class Quota:
    """What some callers may use, beside what an endpoint gives each principal: a request passes where all of it holds."""

    @worded("Quota")
    def __init__(
        self,
        name: str,
        *,
        members: str | Sequence[str] = (),
        each: bool = False,
        endpoints: Endpoint | Sequence[Endpoint] = (),
        requests_per_s: float | None = None,
        model_time_per_s: float | None = None,
        requests_per_day: float | None = None,
        model_time_per_day: float | None = None,
        gpu_time_per_day: float | None = None,
        usd_per_day: float | None = None,
        usd_per_month: float | None = None,
    ) -> None:
        """members: ids of principals, or `role:NAME` for all who have a role; nobody named means everybody.

        each: every member has his own; otherwise they share one, as a team or all callers of the installation do. endpoints:
        where it counts, all where none is named. requests_per_s, model_time_per_s: requests, and seconds that models take, a
        second. The others are budgets: of requests, of seconds that models take (gpu_time: on an accelerator) and of dollars by
        the prices of endpoints, in any 24 hours or any 30 days.
        """
        amounts = (
            ("requests_per_s", requests_per_s), ("model_time_per_s", model_time_per_s),
            ("requests_per_day", requests_per_day), ("model_time_per_day", model_time_per_day),
            ("gpu_time_per_day", gpu_time_per_day), ("usd_per_day", usd_per_day), ("usd_per_month", usd_per_month),
        )  # fmt: skip
        what = f"Quota {name!r}"
        if not isinstance(each, bool):
            raise InvalidInput(f"{what}: each is {each!r}: write True or False")
        found = words.instances(
            endpoints, Endpoint, f"{what}: endpoints", "name the taut.Endpoint objects where it counts"
        )
        self.spec = QuotaSpec(
            name=words.name(name, "quota"),
            members=_members(members, what),
            each=each,
            endpoints=tuple(sorted(endpoint.name for endpoint in found)),
            **{
                word: words.optional_number(value, f"{what}: {word}", low=1e-6, high=1e12)
                for word, value in amounts
            },
        )
        if not self.spec.amounts:
            raise InvalidInput(f"{what} limits nothing: give {' or '.join(QuotaSpec.AMOUNTS)}")
        self.place = declare("quota", self.spec.name, self)


def _members(members: str | Sequence[str], what: str) -> tuple[str, ...]:
    found = words.texts(members, f"{what}: members")
    for member in found:
        if not _MEMBER.fullmatch(member):
            raise InvalidInput(f"{what}: {member!r} is no member: write the id of a principal, or role:NAME")
    return tuple(sorted(found))


@worded("Price")
def Price(*, per_request: float = 0.0, per_model_second: float = 0.0) -> PriceSpec:  # noqa: N802 - a value's name
    """What an answer of an endpoint costs, in dollars: each request, and each second that its model takes."""
    made = PriceSpec(
        per_request=words.number(per_request, "Price: per_request", low=0.0, high=1e6),
        per_model_second=words.number(per_model_second, "Price: per_model_second", low=0.0, high=1e6),
    )
    if not (made.per_request or made.per_model_second):
        raise InvalidInput("Price: nothing costs anything: give per_request or per_model_second")
    return made
