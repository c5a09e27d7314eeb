"""The few policies that can bear on a question, out of all; parsed once for each combination of them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final

import cedarpy
import msgspec

from taut.trust.identity.principals import Principal
from taut.trust.policy.statements import Statement

_MAX_SLICES: Final = 4096


class Slice(msgspec.Struct, frozen=True):
    """Policies, parsed. Cedar calls the statement at place n `policyN`."""

    statements: tuple[Statement, ...]
    parsed: cedarpy.PolicySet


class _Shelf(msgspec.Struct, frozen=True):
    """What bears on one action, by the most telling thing that a policy's scope names."""

    anybody: list[int] = msgspec.field(default_factory=list)
    by_role: dict[str, list[int]] = msgspec.field(default_factory=dict)
    by_principal: dict[str, list[int]] = msgspec.field(default_factory=dict)
    by_resource: dict[str, list[int]] = msgspec.field(default_factory=dict)


class Slices:
    """Policies by what their scopes name.

    Guarantees: a policy is left out only where Cedar would find that its scope does not match, which is neither a
    permission nor a prohibition nor an error; so the decision is the one over all of them.
    Not guaranteed: that a slice is small; a policy whose scope names nobody and nothing is in each.
    """

    def __init__(self, statements: Sequence[Statement]) -> None:
        self._statements: Final = tuple(statements)
        self._shelves: Final[dict[str, _Shelf]] = {}
        self._slices: Final[dict[tuple[int, ...], Slice]] = {}
        self._lock: Final = threading.Lock()

    def of(self, principal: Principal, action: str, resource: str) -> Slice:
        """Return the policies that can bear on a question, in the order in which they are written."""
        shelf = self._shelves.get(action)
        if shelf is None:
            shelf = self._shelves[action] = self._shelve(action)
        found = {*shelf.anybody, *shelf.by_resource.get(resource, ())}
        for role in principal.roles:
            found.update(self._about(shelf.by_role.get(role, ()), resource))
        found.update(self._about(shelf.by_principal.get(principal.id, ()), resource))
        key = tuple(sorted(found))
        made = self._slices.get(key)
        return made if made is not None else self._parse(key)

    def _about(self, numbers: Iterable[int], resource: str) -> Iterable[int]:
        return (one for one in numbers if self._statements[one].resource in (None, resource))

    def _shelve(self, action: str) -> _Shelf:
        shelf = _Shelf()
        for number, one in enumerate(self._statements):
            if one.actions is not None and action not in one.actions:
                continue
            if one.principal is not None:
                shelf.by_principal.setdefault(one.principal, []).append(number)
            elif one.role is not None:
                shelf.by_role.setdefault(one.role, []).append(number)
            elif one.resource is not None:
                shelf.by_resource.setdefault(one.resource, []).append(number)
            else:
                shelf.anybody.append(number)
        return shelf

    def _parse(self, key: tuple[int, ...]) -> Slice:
        statements = tuple(self._statements[number] for number in key)
        made = Slice(statements, cedarpy.PolicySet.from_str("\n".join(one.text for one in statements)))
        with self._lock:
            if len(self._slices) >= _MAX_SLICES:
                del self._slices[next(iter(self._slices))]
            self._slices[key] = made
        return made
