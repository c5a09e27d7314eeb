"""Identity on both databases, with several who act at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, Unauthenticated
from taut.ports.records import Records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.identity import Identity, metadata
from taut.trust.identity.tables import principals
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata


def opened(
    open_records: Callable[..., Records], folder: Path, ids: SequenceIds
) -> tuple[Identity, Ledger, Records]:
    records = open_records(metadata, ledger_metadata)
    clock = ManualClock()
    keys = FileKeys(folder / "keys", random=SeededRandom(1))
    ledger = Ledger(records, keys, clock, ids, origin="test.example/taut")
    return Identity(records, keys, ledger, clock, ids, SeededRandom(2)), ledger, records


def test_every_kind_of_act_works_on_both_databases(
    open_records: Callable[..., Records], tmp_path: Path
) -> None:
    identity, ledger, _ = opened(open_records, tmp_path, SequenceIds())
    identity.create_principal("alice", kind="human", roles=["builder"], actor="owner", display="Alice Ü")
    token, _ = identity.create_token("alice", ["builder"], timedelta(hours=1), actor="owner")
    row, key = identity.create_key(
        "robot", ["predictor"], actor="owner", ttl=timedelta(days=400), enrol="service"
    )

    assert identity.authenticate(token).id == "alice"
    assert identity.authenticate(key).id == "robot"
    assert identity.is_single_user()
    assert [person.id for person in identity.principals()] == ["alice", "robot"]
    assert identity.tokens("alice")[0].revoked is False

    identity.revoke_token(identity.authenticate(token).credential, actor="owner")
    identity.revoke_key(row.id, actor="owner")
    for bearer in (token, key):
        with pytest.raises(Unauthenticated):
            identity.authenticate(bearer)
    assert identity.tokens("alice")[0].revoked is True
    assert identity.keys("robot")[0].revoked_at is not None
    assert ledger.sequence() == 6


def test_of_many_who_take_one_name_at_once_exactly_one_gets_it(
    open_records: Callable[..., Records], tmp_path: Path
) -> None:
    identity, ledger, records = opened(open_records, tmp_path, SequenceIds())
    ends: list[Any] = []

    def take(number: int) -> None:
        try:
            ends.append(
                identity.create_principal("alice", kind="human", roles=["builder"], actor=f"actor{number}")
            )
        except Conflict as error:
            ends.append(error)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not isinstance(end, Conflict) for end in ends) == 1
    with records.read() as tx:
        assert len(tx.execute(select(principals)).all()) == 1
    assert ledger.sequence() == 1


def test_acts_at_once_all_count_so_that_no_verifier_misses_one(
    open_records: Callable[..., Records], tmp_path: Path
) -> None:
    identity, ledger, _ = opened(open_records, tmp_path, SequenceIds())
    identity.create_principal("alice", kind="human", roles=["builder"], actor="owner")

    def act() -> None:
        for _ in range(3):
            identity.create_token("alice", ["builder"], timedelta(hours=1), actor="owner")
            identity.create_key("alice", ["builder"], actor="owner")

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert identity.verifier_data().version == 1 + 4 * 3
    assert len(identity.keys("alice")) == len(identity.tokens("alice")) == 4 * 3
    assert ledger.sequence() == 1 + 2 * 4 * 3
