"""An audit finds what is known to be vulnerable, and fails wherever it could not really look."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taut.core.errors import InvalidInput, Unavailable
from taut.trust.supply import Advisories, parse_max_age

NOW = datetime(2026, 5, 10, tzinfo=UTC)
LODASH = {"package": {"ecosystem": "npm", "name": "lodash"}, "versions": ["1.0"]}


def record(name: str, /, *, id: str = "PYSEC-2026-1", **affected: Any) -> dict[str, Any]:
    return {
        "schema_version": "1.7.0", "id": id, "modified": "2026-05-09T10:00:00Z", "summary": "Runs what it is sent.",
        "aliases": ["CVE-2026-1"], "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N"}],
        "affected": [{"package": {"ecosystem": "PyPI", "name": name}, **affected}],
    }  # fmt: skip


def events(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"type": "ECOSYSTEM", "events": [{kind: version} for kind, version in pairs]}]


def mirror(folder: Path, *records: dict[str, Any]) -> Advisories:
    folder.mkdir(exist_ok=True)
    for number, one in enumerate(records):
        (folder / f"{number}.json").write_text(json.dumps(one))
    return Advisories(str(folder))


def test_a_vulnerable_pin_is_found_and_named_with_the_version_that_mends_it(tmp_path: Path) -> None:
    planted = record("Shop_Tools", ranges=events(("introduced", "0"), ("fixed", "2.0.1")))
    other = record("other", id="PYSEC-2026-2", versions=["1.0"])

    found = mirror(tmp_path / "osv", planted, other).audit({"shop-tools": "2.0", "numpy": "2.1"}, now=NOW)

    (one,) = found.found
    assert (one.package, one.version, one.id, one.fixed_in) == (
        "shop-tools",
        "2.0",
        "PYSEC-2026-1",
        ("2.0.1",),
    )
    assert (found.packages, found.advisories) == (2, 2)


@pytest.mark.parametrize(
    ("version", "affected", "expected"),
    [
        ("2.0.1", {"ranges": events(("introduced", "0"), ("fixed", "2.0.1"))}, False),
        ("2.0.1rc1", {"ranges": events(("introduced", "0"), ("fixed", "2.0.1"))}, True),
        ("1.9", {"ranges": events(("introduced", "2.0"), ("fixed", "2.0.1"))}, False),
        ("2.0", {"ranges": events(("introduced", "2.0"), ("last_affected", "2.0"))}, True),
        ("2.0.post1", {"ranges": events(("introduced", "2.0"), ("last_affected", "2.0"))}, False),
        ("3.5", {"ranges": events(("introduced", "0"), ("fixed", "1.0"), ("introduced", "3.0"))}, True),
        ("2.5", {"ranges": events(("introduced", "3.0"), ("introduced", "0"), ("fixed", "1.0"))}, False),
        ("10.0", {"ranges": events(("introduced", "9.0"))}, True),  # not as texts are compared
        ("1.0+local", {"versions": ["1.0+local"]}, True),
        ("1.1", {"versions": ["1.0"]}, False),
        ("1.0", {"versions": [], "ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}, *events(("introduced", "2"))]}, False),
    ],
)  # fmt: skip
def test_versions_are_compared_as_python_orders_them(
    tmp_path: Path, version: str, affected: dict[str, Any], expected: bool
) -> None:
    found = mirror(tmp_path / "osv", record("tool", **affected)).audit({"tool": version}, now=NOW)

    assert bool(found.found) is expected


def test_a_zip_as_osv_exports_it_is_read_and_other_ecosystems_and_withdrawn_records_say_nothing(
    tmp_path: Path,
) -> None:
    whole = record("tool", versions=["1.0"])
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.json", json.dumps(whole))
        archive.writestr("b.json", json.dumps({**whole, "id": "GHSA-1", "withdrawn": "2026-05-09T11:00:00Z"}))
        archive.writestr("c.json", json.dumps({**whole, "id": "GHSA-2", "affected": [LODASH]}))

    found = Advisories(str(tmp_path / "all.zip")).audit({"tool": "1.0", "lodash": "1.0"}, now=NOW)

    assert [one.id for one in found.found] == ["PYSEC-2026-1"]
    assert found.advisories == 2


UNREADABLE = {
    "absent": lambda folder: None,
    "empty": lambda folder: folder.mkdir(),
    "of another ecosystem": lambda folder: mirror(folder, {**record("x", versions=["1"]), "affected": [LODASH]}),
    "no record": lambda folder: (folder.mkdir(), (folder / "a.json").write_text("{")),
    "no archive": lambda folder: folder.write_text("not a zip"),
    "stale": lambda folder: mirror(folder, {**record("x", versions=["1"]), "modified": "2026-05-01T00:00:00Z"}),
    "of tomorrow": lambda folder: mirror(folder, {**record("x", versions=["1"]), "modified": "2026-05-12T00:00:00Z"}),
    "a record that says nothing": lambda folder: mirror(folder, record("tool")),
    "a version that is none": lambda folder: mirror(folder, record("tool", ranges=events(("introduced", "1.0 or so")))),
    "a record without end": lambda folder: mirror(folder, {**record("x", versions=["1"]), "summary": "x" * 5_000_000}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_audit_that_could_not_look_fails_and_says_why(tmp_path: Path, name: str) -> None:
    UNREADABLE[name](tmp_path / "osv")

    with pytest.raises(Unavailable) as caught:
        Advisories(str(tmp_path / "osv")).audit({"tool": "1.0"}, now=NOW)
    assert len(caught.value.message) > 40


def test_how_old_a_mirror_may_be_is_the_operators_word(tmp_path: Path) -> None:
    mirror(tmp_path / "osv", record("tool", versions=["1.0"]))
    later = NOW + timedelta(days=20)

    assert Advisories(str(tmp_path / "osv"), max_age=parse_max_age("30d")).audit({"tool": "1.0"}, now=later)
    with pytest.raises(Unavailable, match="mirror them again"):
        Advisories(str(tmp_path / "osv")).audit({"tool": "1.0"}, now=later)
    with pytest.raises(InvalidInput):
        parse_max_age("0s")
