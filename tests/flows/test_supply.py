"""What a released model is made of and how it was made, as its users ask for it."""

from __future__ import annotations

import json

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from installation import Installation

from taut.trust.supply import installed


def test_a_models_bill_and_provenance_name_what_it_was_made_from(released: Installation) -> None:
    told = released.told("model", "sbom", "late@1")
    bill = json.loads(told.out)
    run = released("model", "show", "late@1")["card"]

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(told.out) is None
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
