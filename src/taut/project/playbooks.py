"""Declaring what is to be done about an incident: when, by whom, and what, in which order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import msgspec

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project import words
from taut.project.alerting import ACTIONS, SEVERITIES, Receiver, kinds_of
from taut.project.declare import declare
from taut.project.endpoints import Endpoint
from taut.project.manifest import Manifest, Severity
from taut.project.responses import PlaybookSpec, PlayStepSpec
from taut.project.words import nearest, worded

FIELDS: Final = ("endpoint", "principal", "severity", "since", "title")
"""What stands in braces in the words of a notice, and is filled in when it is sent."""

_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_PRINCIPAL: Final = re.compile(r"[a-z][a-z0-9_.\-]{0,62}")
_MAX_WORDS: Final = 2000


class When(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts a playbook is for. count: how many of them about the same, within `within`."""

    kinds: tuple[str, ...]
    severity: Severity
    endpoints: tuple[str, ...]
    count: int
    within: str


@worded("alert")
def alert(
    *kinds: str,
    severity: str = "critical",
    at: Sequence[Endpoint] = (),
    count: int = 1,
    within: str = "1h",
) -> When:
    """When alerts of these kinds (`model.quality`, or `model` for all that begin so; all where none is named) are there.

    severity: the least that counts. at: endpoints that they are about. count, within: so many of them about the same endpoint
    or principal in this time.
    """
    named = words.instances(at, Endpoint, "alert: at", "name the taut.Endpoint objects") if at else ()
    return When(
        kinds=kinds_of(kinds, "alert"), severity=cast(Severity, words.one_of(severity, SEVERITIES, "alert: severity")),
        endpoints=tuple(endpoint.name for endpoint in named), count=words.whole(count, "alert: count", low=1, high=1000),
        within=_span(within, "alert: within"),
    )  # fmt: skip


@worded("page")
def page(receiver: Receiver, *, after: str = "0s") -> PlayStepSpec:
    """Wake somebody. after: only where nobody answers for the incident, and it hurts still, after so long: escalation."""
    return PlayStepSpec(do="page", receiver=_receiver(receiver, "page"), after=_span(after, "page: after"))


@worded("notify")
def notify(receiver: Receiver, said: str) -> PlayStepSpec:
    """Tell the business in plain words, in which `{endpoint}`, `{principal}`, `{severity}`, `{since}` and `{title}` are filled in."""
    text = " ".join(words.text(said, "notify: said").split())
    unknown = [name for name in _FIELD.findall(text) if name not in FIELDS]
    if unknown or len(text) > _MAX_WORDS or not text.isprintable():
        raise InvalidInput(
            f"notify: {text[:60]!r} "
            + (f"has {{{unknown[0][:40]}}}: " if unknown else f"is no text of 1 to {_MAX_WORDS} characters: ")
            + f"{', '.join('{' + name + '}' for name in FIELDS)} are filled in, other braces are not for notices"
        )
    return PlayStepSpec(do="notify", receiver=_receiver(receiver, "notify"), words=text)


@worded("rollback")
def rollback(*, newer_than: str = "24h") -> PlayStepSpec:
    """End the release under way at the alert's endpoint, or return to the one before the live one.

    newer_than: a release that is older is not the cause, and stays.
    """
    return PlayStepSpec(do="rollback", newer_than=_span(newer_than, "rollback: newer_than"))


@worded("contain")
def contain(
    action: str, *, lasts: str = "1h", per_s: float | None = None, allow: Sequence[Endpoint] = ()
) -> PlayStepSpec:
    """Hold the principal back whom the alert names, as a `taut.Contain` does."""
    chosen = words.one_of(action, ACTIONS, "contain: action")
    if (chosen == "throttle") != (per_s is not None) or (allow and chosen != "quarantine"):
        raise InvalidInput("contain: a throttle needs per_s, a quarantine may allow=[...], nothing else does")
    named = words.instances(
        allow, Endpoint, "contain: allow", "name the taut.Endpoint objects that it leaves"
    )
    return PlayStepSpec(
        do="contain", action=cast(Any, chosen), lasts=_span(lasts, "contain: lasts"), allow=tuple(one.name for one in named),
        per_s=words.optional_number(per_s, "contain: per_s", low=0.001, high=1e6) or 0.0,
    )  # fmt: skip


class Playbook:
    """What is done, in order, about an incident with such alerts; once for each incident, and again when it comes back."""

    @worded("Playbook")
    def __init__(
        self,
        name: str,
        *,
        when: When,
        do: Sequence[PlayStepSpec],
        acts_as: str,
        rollbacks_per_hour: int = 1,
    ) -> None:
        """acts_as: the service principal by whose rights it acts, such as one with the role `responder`; the plan gate asks
        whether they suffice. rollbacks_per_hour: beyond them it leaves rollbacks to people.
        """
        what = f"Playbook {name!r}"
        if not isinstance(when, When):
            raise InvalidInput(f"{what}: when is {when!r:.60}: write taut.alert(...)")
        steps = words.instances(do, PlayStepSpec, f"{what}: do", "use taut.page, notify, rollback, contain")
        if not steps or not _PRINCIPAL.fullmatch(words.text(acts_as, f"{what}: acts_as")):
            raise InvalidInput(
                f"{what}: it needs something to do, and acts_as a principal: do=[taut.page(...)]"
            )
        self.spec = PlaybookSpec(
            name=words.name(name, "playbook"), principal=acts_as, steps=cast(Any, steps), kinds=when.kinds,
            severity=when.severity, endpoints=when.endpoints, count=when.count, within=when.within,
            rollbacks_per_hour=words.whole(rollbacks_per_hour, f"{what}: rollbacks_per_hour", low=0, high=100),
        )  # fmt: skip
        self.place = declare("playbook", self.spec.name, self)


def playbook_faults(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    """Yield (`playbook`, its name, what is wrong) of names that a playbook uses and the project does not have."""
    receivers = {one.name for one in manifest.receivers}
    endpoints = {one.name for one in manifest.endpoints}
    for book in manifest.playbooks:
        said = f"playbook {book.name!r}: no"
        for name in (*book.endpoints, *(one for step in book.steps for one in step.allow)):
            if name not in endpoints:
                yield "playbook", book.name, f"{said} endpoint {name!r}{nearest(name, endpoints)}"
        for step in book.steps:
            if step.do in ("page", "notify") and step.receiver not in receivers:
                yield (
                    "playbook",
                    book.name,
                    f"{said} receiver {step.receiver!r}{nearest(step.receiver, receivers)}",
                )


def _receiver(receiver: Receiver, what: str) -> str:
    (found,) = words.instances(receiver, Receiver, f"{what}: receiver", "name a taut.Webhook or taut.Email")
    return cast(Receiver, found).name


def _span(value: str, what: str) -> str:
    found = words.duration(value, what)
    if not 0 <= parse_duration(found).total_seconds() <= 30 * 86_400:
        raise InvalidInput(f"{what} is {found!r}: give at most 30d")
    return found
