"""What a batch showed, as evidence for the data gate."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from taut.core.evidence import Check, Evidence, Gate, Outcome, Scalar
from taut.core.units import parse_duration
from taut.lifecycle.data.records import BatchRefused
from taut.project.manifest import ContractSpec

ALWAYS: Final = frozenset({"readable", "schema", "volume", "bad_rows", "pii"})


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted while a batch was read."""

    records: int = 0
    good: int = 0
    rules: dict[str, int] = {}
    columns: dict[str, int] = {}  # column -> records that break one of its rules
    newest: datetime | None = None
    pii: dict[str, dict[str, int]] = {}  # column -> kind -> values


def gate_of(spec: ContractSpec) -> Gate:
    """Return the data gate of a contract, with the checks that it cannot do without."""
    required = set(ALWAYS)
    if spec.max_age is not None:
        required.add("freshness")
    if _keys(spec):
        required.add("uniqueness")
    required |= {f"column:{c.name}" for c in spec.columns if c.max_bad_fraction is not None}
    required |= {f"rule:{r.name}" for r in spec.rules if r.max_bad_fraction is not None}
    return Gate(name="data", required=frozenset(required))


def refused(subject: str, error: BatchRefused, *, facts: dict[str, Scalar]) -> Evidence:
    """Return the evidence of a batch that could not be read record by record."""
    checks = [Check(name=error.check, outcome=Outcome.FAILED, message=str(error))]
    if error.check != "readable":
        checks.insert(0, Check(name="readable", outcome=Outcome.PASSED))
    return Evidence(subject=subject, checks=tuple(checks), facts=facts)


def evidence_of(
    subject: str, spec: ContractSpec, counts: Counts, *, now: datetime, facts: dict[str, Scalar]
) -> Evidence:
    """Return the evidence of a batch that was read to its end."""
    checks = [
        Check(name="readable", outcome=Outcome.PASSED),
        Check(name="schema", outcome=Outcome.PASSED),
        _at_least("volume", counts.records, spec.min_rows),
        _share("bad_rows", counts.records - counts.good, counts.records, spec.max_bad_fraction),
        _pii(spec, counts),
    ]
    checks += [
        _share(f"column:{c.name}", counts.columns.get(c.name, 0), counts.records, c.max_bad_fraction)
        for c in spec.columns
        if c.max_bad_fraction is not None
    ]
    checks += [
        _share(f"rule:{r.name}", counts.rules.get(f"_row:{r.name}", 0), counts.records, r.max_bad_fraction)
        for r in spec.rules
        if r.max_bad_fraction is not None
    ]
    if keys := _keys(spec):
        broken = sum(counts.rules.get(f"{'+'.join(key)}:unique", 0) for key in keys)
        checks.append(
            Check(name="uniqueness", outcome=Outcome.PASSED, message=f"{broken} duplicates set aside")
        )
    if spec.max_age is not None:
        checks.append(_freshness(spec.max_age, counts.newest, now))
    return Evidence(subject=subject, checks=tuple(checks), facts=facts)


def _keys(spec: ContractSpec) -> tuple[tuple[str, ...], ...]:
    return tuple((c.name,) for c in spec.columns if c.unique) + spec.unique


def _at_least(name: str, seen: int, wanted: int) -> Check:
    outcome = Outcome.PASSED if seen >= wanted else Outcome.FAILED
    return Check(name=name, outcome=outcome, message="records in the batch", observed=seen, limit=wanted)


def _share(name: str, bad: int, records: int, limit: float) -> Check:
    share = bad / records if records else 0.0
    outcome = Outcome.PASSED if share <= limit else Outcome.FAILED
    message = f"{bad} of {records} records break a rule"
    return Check(name=name, outcome=outcome, message=message, observed=share, limit=limit)


def _pii(spec: ContractSpec, counts: Counts) -> Check:
    found = sum(sum(kinds.values()) for kinds in counts.pii.values())
    if spec.pii == "keep":
        return Check(
            name="pii", outcome=Outcome.PASSED, message="kept by the contract's word, not looked for"
        )
    said = "; ".join(
        f"column {column!r} has {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}"
        for column, kinds in sorted(counts.pii.items())
    )
    if not found:
        return Check(
            name="pii", outcome=Outcome.PASSED, message="none found in undeclared columns", observed=0
        )
    if spec.pii == "redact":
        return Check(name="pii", outcome=Outcome.PASSED, message=f"redacted: {said}", observed=found)
    message = f"{said}: declare the columns personal, or set the contract's pii to redact or keep"
    return Check(name="pii", outcome=Outcome.FAILED, message=message, observed=found, limit=0)


def _freshness(max_age: str, newest: datetime | None, now: datetime) -> Check:
    limit = parse_duration(max_age)
    if newest is None:
        return Check(name="freshness", outcome=Outcome.FAILED, message="no good record has a time")
    age = now - newest
    outcome = Outcome.PASSED if age <= limit else Outcome.FAILED
    return Check(
        name="freshness", outcome=outcome, message="age of the newest record in seconds",
        observed=max(age, timedelta(0)).total_seconds(), limit=limit.total_seconds(),
    )  # fmt: skip
