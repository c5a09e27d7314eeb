"""Keeps which bundles were made, and adds up what their devices tell."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import func, insert, select, update

from taut.core.canonical import canonical_json, digest_bytes, digest_json
from taut.core.edge import CONFIDENCE_STEPS, Counts, Report
from taut.core.errors import Conflict, Corrupt, Exhausted, InvalidInput, NotFound
from taut.core.times import from_us, to_us
from taut.lifecycle.edge import tables as t
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock
from taut.trust.ledger import Entry, Ledger

DEVICES_MAX: Final = 10_000
_DEVICE: Final = re.compile(r"device_[0-9a-z]{26}")
_CODE: Final = re.compile(r"[a-z_]{1,32}")
_CODES_MAX: Final = 32
_BUCKETS_MAX: Final = 64
_COUNT_MAX: Final = 2**53
_SEQUENCE_MAX: Final = 2**53


class BundleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What reports of a bundle are read by. columns, classes: the only names that they may count. expected: see
    `taut.serving.edge.Expected`; null where nothing is known. digest, size_bytes: of the file."""

    version: str
    origin: str
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    expected: dict[str, Any] | None
    digest: str
    size_bytes: int


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One device and what it said of one bundle. missed: reports of it that never came; dropped: answers that it could not
    keep. current: whether its last report was of this bundle."""

    principal: str
    device: str
    bundle: str
    facts: BundleFacts
    current: bool
    sequence: int
    missed: int
    first_seen: datetime
    last_seen: datetime
    reports: int
    dropped: int
    counts: Counts


class Devices:
    """The room of the edge. devices_max: of one principal.

    Guarantees: a report counts once, however often and from wherever it is sent again; it counts for the principal that
    sent it and for nobody else's device; what is stored is bounded by devices and bundles.
    Not guaranteed: that a device tells the truth, or its whole truth.
    """

    def __init__(
        self, *, records: Records, ledger: Ledger, clock: Clock, devices_max: int = DEVICES_MAX
    ) -> None:
        self._devices_max: Final = devices_max
        self._records: Final = records
        self._ledger: Final = ledger
        self._clock: Final = clock

    def statement(self, bundle: str) -> bytes | None:
        """Return the signed statement of a bundle that was made before."""
        with self._records.read() as tx:
            found = tx.execute(select(t.bundles.c.statement).where(t.bundles.c.id == bundle)).scalar()
        return None if found is None else str(found).encode()

    def keep(self, bundle: str, statement: bytes, facts: BundleFacts, *, actor: str) -> bytes:
        """Keep a bundle that is about to be handed out, with its leaf; return its statement, the first of equal ones."""

        def do(tx: Tx) -> bytes:
            known = tx.execute(select(t.bundles.c.statement).where(t.bundles.c.id == bundle)).scalar()
            if known is not None:
                return str(known).encode()
            tx.execute(
                insert(t.bundles).values(
                    id=bundle, version=facts.version, statement=statement.decode(), actor=actor,
                    facts=canonical_json(facts).decode(), created_us=to_us(self._clock.now()),
                )
            )  # fmt: skip
            body = {
                "bundle": bundle, "origin": facts.origin, "digest": facts.digest, "statement": digest_bytes(statement),
            }  # fmt: skip
            self._ledger.append(tx, Entry("edge.exported", f"model:{facts.version}", actor, body))
            return statement

        return transact(self._records, do)

    def facts(self, bundle: str) -> BundleFacts:
        """Return what is known of a bundle. Raises NotFound for one that was not made here."""
        with self._records.read() as tx:
            return _facts(tx, bundle)

    def report(self, report: Report, *, principal: str) -> int:
        """Count a report and return the highest sequence of its device; one that was counted before changes nothing.

        Raises NotFound for a bundle that was not made here, InvalidInput for counts that it cannot have, Conflict for a
        second report of the same sequence, Exhausted for more devices than a principal may have.
        """
        if not _DEVICE.fullmatch(report.device):
            raise InvalidInput(f"{report.device[:80]!r} is no device: a runner makes its own id")
        if not 1 <= report.sequence <= _SEQUENCE_MAX:
            raise InvalidInput(f"sequence is {report.sequence}: it begins with 1")

        def do(tx: Tx) -> int:
            _check(report, _facts(tx, report.bundle))
            row = tx.execute(select(t.devices).where(*_is(t.devices, principal, report.device))).one_or_none()
            last = 0 if row is None else int(row.sequence)
            digest = digest_json(report)
            if row is not None and report.sequence == last and row.digest != digest:
                raise Conflict(
                    f"report {last} of {report.device} is here, and is another: the device's state was copied; let each begin "
                    "with an empty one"
                )
            if report.sequence <= last:
                return last
            now_us, missed = to_us(self._clock.now()), report.sequence - last - 1
            if row is None:
                self._first(tx, report, digest, principal, now_us, missed)
            else:
                values = {
                    "bundle": report.bundle, "sequence": report.sequence, "digest": digest, "missed": row.missed + missed, "last_us": now_us,
                }  # fmt: skip
                tx.execute(
                    update(t.devices).where(*_is(t.devices, principal, report.device)).values(**values)
                )
            _add(tx, report, principal)
            return report.sequence

        return transact(self._records, do)

    def _first(self, tx: Tx, report: Report, digest: str, principal: str, now_us: int, missed: int) -> None:
        many = tx.execute(select(func.count()).where(t.devices.c.principal == principal)).scalar() or 0
        if many >= self._devices_max:
            raise Exhausted(
                f"{principal} has {many} devices: use a principal of its own for the next", retry_after_s=3600
            )
        tx.execute(
            insert(t.devices).values(
                principal=principal, device=report.device, bundle=report.bundle, sequence=report.sequence, digest=digest, missed=missed,
                first_us=now_us, last_us=now_us,
            )
        )  # fmt: skip
        entry = Entry("edge.device", f"device:{report.device}", principal, {"bundle": report.bundle})
        self._ledger.append(tx, entry)

    def list(self, *, version: str | None = None, limit: int = 100) -> tuple[DeviceInfo, ...]:
        """Return devices by bundle, the last seen first. version: exported, or what was asked to be exported."""
        joined = (
            select(t.devices, t.counts.c.bundle.label("of"), t.counts.c.reports, t.counts.c.dropped, t.counts.c.counts)
            .join(
                t.counts,
                (t.counts.c.principal == t.devices.c.principal) & (t.counts.c.device == t.devices.c.device),
            )
            .order_by(t.devices.c.last_us.desc(), t.devices.c.device, t.counts.c.bundle)
        )  # fmt: skip
        with self._records.read() as tx:
            facts = {
                row.id: msgspec.json.decode(row.facts, type=BundleFacts)
                for row in tx.execute(select(t.bundles.c.id, t.bundles.c.facts))
            }
            if version is not None:
                wanted = [name for name, one in facts.items() if version in (one.version, one.origin)]
                joined = joined.where(t.counts.c.bundle.in_(wanted))
            rows = tx.execute(joined.limit(limit)).all()
        return tuple(_info(row, facts[row.of]) for row in rows)


def _info(row: Any, facts: BundleFacts) -> DeviceInfo:
    return DeviceInfo(
        principal=row.principal, device=row.device, bundle=row.of, facts=facts, current=row.of == row.bundle,
        sequence=row.sequence, missed=row.missed, first_seen=from_us(row.first_us), last_seen=from_us(row.last_us),
        reports=row.reports, dropped=row.dropped, counts=_counts(row.counts),
    )  # fmt: skip


def _add(tx: Tx, report: Report, principal: str) -> None:
    mine = (*_is(t.counts, principal, report.device), t.counts.c.bundle == report.bundle)
    row = tx.execute(select(t.counts).where(*mine)).one_or_none()
    if row is None:
        tx.execute(
            insert(t.counts).values(
                principal=principal, device=report.device, bundle=report.bundle, reports=1, dropped=report.dropped,
                counts=msgspec.json.encode(_bounded(report.counts)).decode(),
            )
        )  # fmt: skip
        return
    total = _bounded(_counts(row.counts).plus(report.counts))
    values = {
        "reports": row.reports + 1, "dropped": row.dropped + report.dropped, "counts": msgspec.json.encode(total).decode(),
    }  # fmt: skip
    tx.execute(update(t.counts).where(*mine).values(**values))


def _bounded(counts: Counts) -> Counts:
    """Keep the codes of errors within their number; what is beyond counts as `other`."""
    if len(counts.errors) <= _CODES_MAX:
        return counts
    named = dict(sorted(counts.errors.items(), key=lambda item: -item[1])[: _CODES_MAX - 1])
    named["other"] = sum(counts.errors.values()) - sum(named.values()) + named.get("other", 0)
    return msgspec.structs.replace(counts, errors=named)


def _counts(text: str) -> Counts:
    try:
        return msgspec.json.decode(text, type=Counts)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"counts of a device cannot be read: {error}") from error


def _facts(tx: Tx, bundle: str) -> BundleFacts:
    found = tx.execute(select(t.bundles.c.facts).where(t.bundles.c.id == bundle)).scalar()
    if found is None:
        raise NotFound(
            f"no bundle {bundle[:80]!r} was exported here: report to the installation that made it"
        )
    return msgspec.json.decode(found, type=BundleFacts)


def _is(table: Any, principal: str, device: str) -> tuple[Any, Any]:
    return table.c.principal == principal, table.c.device == device


def _check(report: Report, facts: BundleFacts) -> None:
    """Refuse what a runner of this bundle cannot have counted: names of its own would let the tables grow."""
    counts = report.counts
    _names("labels", counts.labels, facts.classes)
    _names("nulls", counts.nulls, facts.columns)
    _names("outside", counts.outside, facts.columns)
    if len(counts.errors) > _CODES_MAX or not all(map(_CODE.fullmatch, counts.errors)):
        raise InvalidInput(f"errors: wanted at most {_CODES_MAX} codes of a-z and _")
    if not all(0 <= at < _BUCKETS_MAX for at in counts.latency):
        raise InvalidInput(f"latency: wanted buckets 0 to {_BUCKETS_MAX - 1}")
    if not all(0 <= at < CONFIDENCE_STEPS for at in counts.confidence):
        raise InvalidInput(f"confidence: wanted steps 0 to {CONFIDENCE_STEPS - 1}")
    whole = [
        counts.requests, counts.rows, counts.edge_rows, counts.cloud_rows, counts.fallback_rows, report.merged,
        report.dropped, report.began_us, report.ended_us, *counts.errors.values(), *counts.latency.values(),
        *counts.labels.values(), *counts.confidence.values(), *counts.nulls.values(), *counts.outside.values(),
    ]  # fmt: skip
    values = counts.values
    if values is not None:
        whole.append(values.count)
        numbers = (values.total, values.squares, values.minimum or 0.0, values.maximum or 0.0)
        if not all(map(math.isfinite, numbers)):
            raise InvalidInput("values: wanted finite numbers")
    if not all(0 <= count <= _COUNT_MAX for count in whole):
        raise InvalidInput(f"a count is below 0 or beyond {_COUNT_MAX}")


def _names(what: str, found: Iterable[str], known: tuple[str, ...]) -> None:
    strange = sorted(set(found) - set(known))
    if strange:
        raise InvalidInput(f"{what} counts {strange[0][:80]!r}, which this bundle's model does not have")
