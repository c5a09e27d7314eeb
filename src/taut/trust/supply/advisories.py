"""Known vulnerabilities, as an operator mirrors them: OSV records of Python packages, with a bound on their age.

Source: Open Source Vulnerability format 1.7, https://ossf.github.io/osv-schema; its evaluation algorithm for versions.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from packaging.version import InvalidVersion, Version

from taut.core.errors import InvalidInput, Unavailable
from taut.trust.supply.packages import normal_name

MAX_AGE: Final = timedelta(days=7)
_ECOSYSTEM: Final = "PyPI"
_RECORDS_MAX: Final = 1_000_000
_RECORD_BYTES_MAX: Final = 4 * 2**20
_SOON: Final = timedelta(hours=1)


class _Package(msgspec.Struct, frozen=True):
    ecosystem: str = ""
    name: str = ""


class _Event(msgspec.Struct, frozen=True):
    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None


class _Range(msgspec.Struct, frozen=True):
    type: str
    events: tuple[_Event, ...] = ()


class _Affected(msgspec.Struct, frozen=True):
    package: _Package = _Package()
    versions: tuple[str, ...] = ()
    ranges: tuple[_Range, ...] = ()


class Advisory(msgspec.Struct, frozen=True):
    """One OSV record, as far as it is needed."""

    id: str
    modified: datetime
    withdrawn: datetime | None = None
    summary: str = ""
    aliases: tuple[str, ...] = ()
    affected: tuple[_Affected, ...] = ()


class Vulnerability(msgspec.Struct, frozen=True, kw_only=True):
    """A package that is affected. fixed_in: versions that mend it, as the record says; empty where none does."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    summary: str
    fixed_in: tuple[str, ...]


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit looked at and found. newest: when the database was changed last."""

    packages: int
    advisories: int
    newest: datetime
    found: tuple[Vulnerability, ...]


class Advisories:
    """A mirror of advisories: a folder of `*.json` records, or a `.zip` of them as osv.dev exports an ecosystem.

    Guarantees: an audit looked at every record, and at a database that is no older than `max_age`; where it could not, it
    raises Unavailable and never says that nothing was found. Not guaranteed: that what nobody published yet is known.
    """

    def __init__(self, place: str, *, max_age: timedelta = MAX_AGE) -> None:
        self._place: Final = place
        self._max_age: Final = max_age

    def audit(self, packages: Mapping[str, str], *, now: datetime) -> Audit:
        """Compare packages (name -> version) with every record.

        Raises Unavailable where the mirror is absent, empty, unreadable or too old, or where a version or a record cannot be
        judged.
        """
        records = self._read()
        newest = max((record.modified for record in records), default=None)
        if newest is None:
            raise Unavailable(
                f"the advisories at {self._place} hold no record of {_ECOSYSTEM}: mirror them again"
            )
        if now - newest > self._max_age:
            raise Unavailable(
                f"the advisories at {self._place} were changed last on {newest:%Y-%m-%d}, more than {self._max_age.days} days "
                "ago: mirror them again, or what was published since is not known"
            )
        if newest - now > _SOON:
            raise Unavailable(
                f"the advisories at {self._place} were changed on {newest:%Y-%m-%d}, which is still to come: set the clock, or "
                "mirror them again"
            )
        wanted = {normal_name(name): version for name, version in packages.items()}
        found = [one for record in records if record.withdrawn is None for one in _matches(record, wanted)]
        ordered = tuple(sorted(found, key=lambda one: (one.package, one.id)))
        return Audit(packages=len(wanted), advisories=len(records), newest=newest, found=ordered)

    def _read(self) -> list[Advisory]:
        records = []
        for name, data in self._files():
            try:
                record = msgspec.json.decode(data, type=Advisory)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Unavailable(
                    f"{name} of the advisories at {self._place} is no OSV record ({error}): mirror them again"
                ) from error
            if record.modified.tzinfo is None:
                record = msgspec.structs.replace(record, modified=record.modified.replace(tzinfo=UTC))
            if any(one.package.ecosystem.partition(":")[0] == _ECOSYSTEM for one in record.affected):
                records.append(record)
            if len(records) > _RECORDS_MAX:
                raise Unavailable(f"{self._place} has more than {_RECORDS_MAX:,} records: mirror {_ECOSYSTEM} alone")  # fmt: skip
        return records

    def _files(self) -> Iterator[tuple[str, bytes]]:
        path = Path(self._place)
        try:
            if path.is_dir():
                for file in sorted(path.rglob("*.json")):
                    _check_size(file.name, file.stat().st_size)
                    yield file.name, file.read_bytes()
                return
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.filename.endswith(".json"):
                        _check_size(member.filename, member.file_size)
                        yield member.filename, archive.read(member)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise Unavailable(
                f"the advisories at {self._place} cannot be read ({error}): mirror OSV's records of {_ECOSYSTEM} there, a folder "
                "of JSON or a zip"
            ) from error


def _check_size(name: str, size: int) -> None:
    if size > _RECORD_BYTES_MAX:
        raise Unavailable(f"the record {name} has {size:,} bytes, {_RECORD_BYTES_MAX:,} are allowed")


def _matches(record: Advisory, wanted: Mapping[str, str]) -> Iterator[Vulnerability]:
    for affected in record.affected:
        name = normal_name(affected.package.name)
        version = wanted.get(name)
        if affected.package.ecosystem.partition(":")[0] != _ECOSYSTEM or version is None:
            continue
        if _is_affected(record, affected, version):
            yield Vulnerability(
                package=name, version=version, id=record.id, aliases=record.aliases, summary=record.summary,
                fixed_in=tuple(dict.fromkeys(event.fixed for one in affected.ranges for event in one.events if event.fixed and one.type != "GIT")),
            )  # fmt: skip
            return


def _is_affected(record: Advisory, affected: _Affected, version: str) -> bool:
    if version in affected.versions:
        return True
    ranges = [one for one in affected.ranges if one.type in ("ECOSYSTEM", "SEMVER")]
    if not affected.versions and not ranges:
        raise Unavailable(f"{record.id} says of {affected.package.name} neither versions nor ranges: it cannot be judged")  # fmt: skip
    return any(_within(record, one.events, version) for one in ranges)


def _within(record: Advisory, events: Iterable[_Event], version: str) -> bool:
    """Walk a range's events in the order of their versions, as OSV's algorithm does."""
    try:
        mine = Version(version)
        steps = []
        for event in events:
            if event.introduced is not None:
                at = Version("0.dev0") if event.introduced == "0" else Version(event.introduced)
                steps.append((at, 0, True))
            elif event.fixed is not None:
                steps.append((Version(event.fixed), 1, False))
            elif event.last_affected is not None:
                steps.append((Version(event.last_affected), 2, False))
    except InvalidVersion as error:
        raise Unavailable(
            f"{record.id} cannot be compared with version {version} ({error}): judge it by hand"
        ) from error
    inside = False
    for at, kind, begins in sorted(steps, key=lambda step: (step[0], step[1])):
        if at < mine or (at == mine and kind != 2):
            inside = begins
    return inside


def parse_max_age(text: str) -> timedelta:
    """Read a bound on age such as `7d`. Raises InvalidInput for none, or one that is not above nothing."""
    from taut.core.units import parse_duration

    found = parse_duration(text)
    if found <= timedelta(0):
        raise InvalidInput(f"the age of advisories is bounded by {text}: give a time above 0, such as 7d")
    return found
