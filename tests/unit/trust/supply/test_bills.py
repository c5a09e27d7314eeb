"""Bills of materials: valid by the official schema, whole, and refused where they would not be true."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taut.core.errors import Conflict, InvalidInput
from taut.trust.supply import Locked, bill, bill_of_taut, installed, packages_of, read_lock

LOCK = (Path(__file__).parents[4] / "requirements/base.txt").read_text()
AT = datetime(2026, 5, 1, tzinfo=UTC)


def faults(document: dict[str, Any]) -> object:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import (
        JsonStrictValidator,  # a second or two, for every tester, were it above
    )

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(msgspec.json.encode(document).decode())


def test_the_bill_of_taut_is_valid_and_names_every_package_of_the_lock_that_is_installed() -> None:
    lock = read_lock(LOCK)

    found = bill_of_taut(lock, version="1.2.3")

    named = {(one["name"], one["version"]) for one in found["components"]}
    assert {name for name, _ in named} == {pin.name for pin in lock} & set(installed())
    assert named <= {(pin.name, pin.version) for pin in lock}
    assert all(one["externalReferences"][0]["hashes"] for one in found["components"])
    assert {one["name"] for one in found["components"] if "licenses" not in one} <= {"cedarpy"}  # says none
    edges = {one["ref"]: one.get("dependsOn", []) for one in found["dependencies"]}
    starlette = next(ref for ref in edges if ref.startswith("pkg:pypi/starlette@"))
    assert any(ref.startswith("pkg:pypi/anyio@") for ref in edges[starlette])
    reached, waiting = set(), [found["metadata"]["component"]["bom-ref"]]
    while waiting:
        reached.add(waiting.pop())
        waiting += [ref for one in reached for ref in edges[one] if ref not in reached]
    assert reached == set(edges)
    assert found == bill_of_taut(lock, version="1.2.3")


def test_a_bill_is_valid_by_the_official_schema_and_one_with_a_fault_is_not() -> None:
    few = {"httpx", "starlette", "anyio", "msgspec"}
    found = bill_of_taut([pin for pin in read_lock(LOCK) if pin.name in few], version="1.2.3")

    assert len(found["components"]) == len(few)
    assert faults(found) is None
    assert faults({**found, "components": [{"type": "nothing of the kind", "name": "x"}]}) is not None


def test_a_bill_is_refused_where_what_is_installed_is_not_what_the_lock_allows() -> None:
    lock = (Locked(name="msgspec", version="0.0.1", hashes=("0" * 64,)),)

    with pytest.raises(Conflict, match="msgspec"):
        bill_of_taut(lock, version="1.2.3")


@pytest.mark.parametrize("line", ["numpy>=2", "numpy==2.0", "-e .", "numpy @ file:///tmp/x.whl"])
def test_a_lock_with_a_line_that_is_no_pin_with_a_hash_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput, match="no pin with a hash"):
        read_lock(LOCK + line + "\n")


def test_an_edge_to_nowhere_and_a_component_that_is_there_twice_are_refused() -> None:
    one = {"type": "file", "bom-ref": "a", "name": "a"}

    with pytest.raises(InvalidInput, match="not in the bill"):
        bill(one, [], {"a": ["b"]}, at=AT, tool_version="1")
    with pytest.raises(InvalidInput, match="twice"):
        bill(one, [one], {}, at=AT, tool_version="1")


def test_of_a_package_that_is_not_installed_in_that_version_only_the_name_is_said() -> None:
    (found,) = packages_of({"msgspec": "0.0.1"})

    assert (found.licence, found.needs) == ("", ())
