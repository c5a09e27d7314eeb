"""How a version was made: signed when it enters, read by other tools, and never believed where it was changed."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from registry_room import House, candidate
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
from sqlalchemy import update

from taut.core.errors import Corrupt, Denied, InvalidInput
from taut.lifecycle.registry import VersionInfo
from taut.lifecycle.registry import tables as t
from taut.lifecycle.registry.provenance import PAYLOAD_TYPE
from taut.trust.signing import SignedStatement, as_dsse, sign_statement

BEGAN, ENDED = datetime(2026, 5, 1, 8, tzinfo=UTC), datetime(2026, 5, 1, 9, tzinfo=UTC)


def entered(house: House, *, run: str = "run_1") -> VersionInfo:
    more: dict[str, Any] = {"materials": {"flights@3": "sha256:" + "e" * 64}, "times": (BEGAN, ENDED)}
    return house.registry.register(candidate(house, None, run=run, data=f"model of {run}".encode(), **more))


def stored(house: House, text: str, *, number: int = 1) -> None:
    with house.records.begin() as tx:
        tx.execute(update(t.versions).where(t.versions.c.number == number).values(provenance=text))


def keys_of(house: House) -> list[Any]:
    return [
        SSlibKey.from_crypto(load_pem_public_key(key.pem.encode()), keyid=key.key_id)
        for key in house.keys.public_keys(purpose="provenance")
    ]


def test_other_tools_verify_the_envelope_and_read_the_statement(house: House) -> None:
    info = entered(house)

    envelope = Envelope.from_dict(as_dsse(house.registry.provenance(info.ref)))
    envelope.verify(keys_of(house), threshold=1)
    message = ParseDict(house.registry.verify_provenance(info.ref), StatementMessage())
    Statement.copy_from_pb(message).validate()
    predicate = ParseDict(house.registry.verify_provenance(info.ref)["predicate"], Provenance())

    assert envelope.payload_type == PAYLOAD_TYPE
    assert message.predicate_type == "https://slsa.dev/provenance/v1"
    assert dict(message.subject[0].digest) == {
        "sha256": info.candidate.artifact.digest.removeprefix("sha256:")
    }
    assert predicate.run_details.metadata.invocation_id == "run_1"
    assert predicate.run_details.metadata.finished_on.ToDatetime(UTC) == ENDED
    named = {item.name: dict(item.digest) for item in predicate.build_definition.resolved_dependencies}
    assert named["flights@3"] == {"sha256": "e" * 64}
    assert named["bundle"] == {"sha256": "b" * 64}
    assert named["lock"] == {"sha256": "c" * 64}


def test_another_tool_refuses_what_was_changed(house: House) -> None:
    envelope = Envelope.from_dict(as_dsse(house.registry.provenance(entered(house).ref)))
    envelope.payload = envelope.payload.replace(b"run_1", b"run_7")

    with pytest.raises(VerificationError):
        envelope.verify(keys_of(house), threshold=1)


def test_a_changed_or_swapped_or_foreign_provenance_is_never_believed(house: House) -> None:
    info, other = entered(house), entered(house, run="run_2")
    mine = house.registry.provenance(info.ref).to_json().decode()

    stored(house, mine.replace('"sig":"', '"sig":"AAAA', 1)[:-1] + "}")
    with pytest.raises(Corrupt):
        house.registry.verify_provenance(info.ref)
    stored(house, house.registry.provenance(other.ref).to_json().decode())
    with pytest.raises(Corrupt, match="speaks of something else"):
        house.registry.verify_provenance(info.ref)
    stored(house, mine.replace(house.registry.provenance(other.ref).signatures[0].keyid, "0" * 16))
    with pytest.raises(Denied, match="no trusted key"):
        house.registry.verify_provenance(info.ref)


@pytest.mark.parametrize("name", ["bundle", "lock", "table"])
def test_one_that_our_own_key_signed_later_with_other_materials_is_found(house: House, name: str) -> None:
    info = entered(house)
    told = copy.deepcopy(house.registry.verify_provenance(info.ref))
    for item in told["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if item["name"] == name:
            item["digest"] = {"sha256": "0" * 64}
    forged = sign_statement(house.keys, purpose="provenance", payload_type=PAYLOAD_TYPE, payload=told)
    stored(house, forged.to_json().decode())

    with pytest.raises(Corrupt, match=f"names another {name}"):
        house.registry.verify_provenance(info.ref)


def test_one_that_says_something_else_than_the_ledger_noted_is_found(house: House) -> None:
    info = entered(house)
    told = copy.deepcopy(house.registry.verify_provenance(info.ref))
    told["predicate"]["runDetails"]["metadata"]["invocationId"] = "run_9"
    forged = sign_statement(house.keys, purpose="provenance", payload_type=PAYLOAD_TYPE, payload=told)
    stored(house, forged.to_json().decode())

    with pytest.raises(Corrupt, match="the ledger noted another provenance"):
        house.registry.verify_provenance(info.ref)


def test_a_statement_whose_signature_binds_a_purpose_is_not_handed_to_other_tools(house: House) -> None:
    info = entered(house)
    with house.records.read() as tx:
        manifest = SignedStatement.from_json(str(tx.execute(t.versions.select()).one().statement))

    with pytest.raises(InvalidInput, match="verify here only"):
        as_dsse(manifest)
    assert info.ref.number == 1
