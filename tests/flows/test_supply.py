"""What a released model is made of and how it was made, as its users ask for it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from installation import Installation

from taut.bootstrap.platform import open_platform
from taut.core.evidence import Outcome
from taut.core.refs import VersionRef
from taut.trust.supply import installed
from taut.workflows.supply import audit_of


def with_three_libraries(bill: dict[str, Any]) -> dict[str, Any]:
    """The same bill with less that is alike: the validator takes its time over each component."""
    some = [one for one in bill["components"] if one["type"] == "library"][:3]
    kept = [one for one in bill["components"] if one["type"] != "library"] + some
    refs = {one["bom-ref"] for one in (*kept, bill["metadata"]["component"])}
    edges = [
        {**one, "dependsOn": [ref for ref in one.get("dependsOn", []) if ref in refs]}
        for one in bill["dependencies"]
        if one["ref"] in refs
    ]
    return {**bill, "components": kept, "dependencies": edges}


def test_a_models_bill_and_provenance_name_what_it_was_made_from(released: Installation) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import (
        JsonStrictValidator,  # a second or two, for every tester, were it above
    )

    told = released.told("model", "sbom", "late@1")
    bill = json.loads(told.out)
    run = released("model", "show", "late@1")["card"]

    assert (
        JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(with_three_libraries(bill))) is None
    )
    subject = bill["metadata"]["component"]
    assert (subject["type"], subject["name"], subject["version"]) == ("machine-learning-model", "late", "1")
    assert subject["hashes"][0]["content"] == run["artifact"].removeprefix("sha256:")
    components = {one["bom-ref"]: one for one in bill["components"]}
    digests = {
        one["bom-ref"].removeprefix("taut:snapshot:"): one["hashes"][0]["content"]
        for one in components.values()
        if one["type"] == "data" and "hashes" in one
    }
    assert sorted(digests) == sorted(run["data"]["snapshots"].values())
    libraries = {one["name"]: one["version"] for one in components.values() if one["type"] == "library"}
    assert libraries == installed()
    assert f"taut:bundle:{run['code']['bundle']}" in components

    envelope = released("model", "provenance", "late@1")
    verified = released("model", "provenance", "late@1", "--verify")
    materials = verified["statement"]["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert verified["ok"]
    assert verified["signed_by"] == envelope["signatures"][0]["keyid"]
    named = {item["name"]: item["digest"]["sha256"] for item in materials if "digest" in item}
    assert {name: named[name] for name in digests} == digests


def test_an_audit_looks_up_what_a_run_had_and_fails_where_it_cannot(
    released: Installation, tmp_path: Path
) -> None:
    said = released.refused("security", "audit", exit_code=7, code="unavailable")
    assert "TAUT_ADVISORIES" in said

    record = {
        "id": "PYSEC-2026-1", "modified": datetime.now(UTC).isoformat(), "summary": "planted",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "numpy"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]}],
    }  # fmt: skip
    (tmp_path / "osv").mkdir()
    (tmp_path / "osv/a.json").write_text(json.dumps(record))
    released.environ["TAUT_ADVISORIES"] = str(tmp_path / "osv")

    found = released("security", "audit", "late@1", expect=10)

    assert [(one["package"], one["id"]) for one in found["found"]] == [("numpy", "PYSEC-2026-1")]
    with open_platform(released.home, environ=released.environ) as rooms:
        look = audit_of(rooms, rooms.registry.show(VersionRef("late", 1)).candidate.lock)
        assert look is not None
        assert (look().outcome, "numpy" in look().message) == (Outcome.FAILED, True)
