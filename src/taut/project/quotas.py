"""Declaring what callers may use: together, as a group, or each of them over several endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from taut.core.errors import InvalidInput
from taut.project import words
from taut.project.declare import declare
from taut.project.endpoints import Endpoint
from taut.project.manifest import QuotaSpec
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
    ) -> None:
        """members: ids of principals, or `role:NAME` for all who have a role; nobody named means everybody.

        each: every member has his own; otherwise they share one, as a team or all callers of the installation do. endpoints:
        where it counts, all where none is named. requests_per_s, model_time_per_s: requests, and seconds that models take, a
        second.
        """
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
            requests_per_s=words.optional_number(
                requests_per_s, f"{what}: requests_per_s", low=0.001, high=1e9
            ),
            model_time_per_s=words.optional_number(
                model_time_per_s, f"{what}: model_time_per_s", low=1e-6, high=1e6
            ),
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
