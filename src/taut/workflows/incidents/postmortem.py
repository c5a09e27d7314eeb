"""The draft of a post-mortem, in Markdown, from what is on record: people add why, and what they will do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from taut.trust.findings import Finding
from taut.trust.incidents import Incident, Joined
from taut.workflows.incidents.effect import Effect, effect_at
from taut.workflows.incidents.timeline import BEFORE, Moment, endpoints_of, timeline
from taut.workflows.rooms import Rooms

_SEEN: Final = ("finding.", "incident.joined")
_MACHINES: Final = frozenset({"control", "watch", "admission", "system"})


def draft(rooms: Rooms, incident: Incident, alerts: tuple[Joined, ...]) -> str:
    """Return the draft. What nobody knows stands as an open question, never as a sentence that sounds known."""
    now = rooms.clock.now()
    moments = timeline(rooms, incident, alerts)
    findings = [rooms.watches.findings.get(one.alert) for one in alerts]
    until = incident.ended_at or now
    effects = [effect_at(rooms, name, incident.opened_at, until) for name in endpoints_of(incident, alerts)]
    parts = (
        _head(incident, now),
        _section("What happened", _table(("when (UTC)", "who", "what"), _lines(moments))),
        _section("What was seen", [line for one in findings for line in _seen(one)] or ["No alert: a person saw it."]),
        _section("What was done, and by whom", _done(moments)),
        _section("Effect", [_effect(one) for one in effects] or ["It is about no endpoint: nothing was counted."]),
        _section("Open questions", [f"- {one}" for one in _questions(incident, moments, findings, effects)]),
    )  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _head(incident: Incident, now: datetime) -> str:
    ended = incident.ended_at
    lasted = (ended or now) - incident.opened_at
    facts = [
        ("incident", incident.id),
        ("severity", incident.severity),
        ("status", incident.status + (f" by {incident.ended_by}: {incident.reason}" if ended else "")),
        ("answers for it", incident.owner or "nobody"),
        ("began", f"{incident.opened_at:%Y-%m-%d %H:%M:%S} UTC, opened by {incident.opened_by}"),
        ("lasted" if ended else "lasts", span(lasted)),
        ("came", "once" if incident.times == 1 else f"{incident.times} times"),
    ]
    rows = _table(("", ""), [(name, value) for name, value in facts])
    return "\n".join([f"# {cell(incident.title)}", "", "*A draft, written from the ledger.*", "", *rows])


def _lines(moments: Sequence[Moment]) -> list[tuple[str, ...]]:
    return [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.who, one.said) for one in moments]


def _seen(finding: Finding) -> Iterator[str]:
    figures = ", ".join(f"{name} {value}" for name, value in finding.evidence.items())
    over = (
        ""
        if finding.state == "open"
        else f"; {finding.state} {finding.ended_at:%H:%M:%S} by {finding.ended_by}"
    )
    yield (
        f"- **{finding.kind}**, {finding.severity}, of {finding.principal or finding.group} at {finding.resource}, "
        f"since {finding.since:%H:%M:%S}{over}: {cell(finding.summary or finding.kind)}"
        + (f" ({cell(figures)})" if figures else "")
    )


def _done(moments: Sequence[Moment]) -> list[str]:
    done = [one for one in moments if not one.kind.startswith(_SEEN) and one.kind != "told"]
    people = [one for one in done if one.who not in _MACHINES]
    machine = [one for one in done if one.who in _MACHINES]
    lines = [f"- {one.who}, {one.at:%H:%M:%S}: {cell(one.said)}" for one in people]
    told = sum(one.kind == "told" for one in moments)
    return [
        *(lines or ["- nobody did anything that the ledger knows of"]),
        f"- the platform itself: {len(machine)} acts, and {told} messages to people (above)",
    ]


def _effect(one: Effect) -> str:
    all_ = one.answered + one.stood_in + one.failed + one.refused
    if not all_:
        return f"- **{one.endpoint}**: nothing was asked meanwhile"
    least = "" if one.whole else "at least "
    return (
        f"- **{one.endpoint}**: {least}{all_:,} requests of {one.callers:,} callers: {one.answered:,} answered, {one.stood_in:,} "
        f"by a stand-in, {one.failed:,} failed ({one.failed / all_:.1%}), {one.refused:,} refused; {one.harmed:,} callers saw a "
        f"failure; answered by {', '.join(one.versions) or 'nothing'}"
    )


def _questions(
    incident: Incident, moments: Sequence[Moment], findings: Sequence[Finding], effects: Sequence[Effect]
) -> Iterator[str]:
    if not incident.owner:
        yield "Nobody took it: who should have been asked?"
    if not findings:
        yield "No watch saw it: which alert would have?"
    if incident.status != "resolved":
        yield "It is not resolved: what is left to do?"
    if incident.times > 1:
        yield f"It came back {incident.times - 1} times after it was resolved: what was not mended?"
    yield from _about_releases(incident, moments)
    for one in moments:
        if one.kind == "told" and "could not" in one.said:
            yield f"{cell(one.said)}: who would have known otherwise?"
        if one.kind in ("containment.refused", "playbook.refused"):
            yield f"Refused: {cell(one.said)}. Should it have been?"
    if any(one.failed for one in effects):
        yield "Callers saw failures: would a stand-in have answered them?"
    yield "What was the cause, in one sentence that whoever reads only this understands?"
    yield "What will be different, who does it, until when?"


def _about_releases(incident: Incident, moments: Sequence[Moment]) -> Iterator[str]:
    live = [
        one for one in moments if one.kind in ("release.promoted", "release.canary.begun", "release.rolled_back") and one.at <= incident.opened_at
    ]  # fmt: skip
    if live:
        after = incident.opened_at - live[-1].at
        yield f"{cell(live[-1].said)}, {span(after)} before it began: is it the cause?"
    elif incident.endpoint:
        hours = BEFORE.total_seconds() / 3600
        yield f"Nothing was released to {incident.endpoint} in the {hours:g} hours before it: what else changed?"


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return head + [f"| {' | '.join(cell(one) for one in row)} |" for row in rows]


def cell(text: str) -> str:
    """Return a text that is one cell of a table, and no markup of its own: it may quote what a caller sent.

    >>> cell("a|b <x> `c`")
    'a\\\\|b &lt;x> \\\\`c\\\\`'
    """
    one = " ".join(text.split()).replace("\\", "\\\\").replace("<", "&lt;")
    for mark in "|`*[]":
        one = one.replace(mark, f"\\{mark}")
    return one


def span(time: timedelta) -> str:
    """Return a span in its two largest units.

    >>> span(timedelta(seconds=3671)), span(timedelta(seconds=9))
    ('1 h 1 min', '9 s')
    """
    seconds = max(0, round(time.total_seconds()))
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"
