"""Keys are rotated without a moment in which something cannot be read, whatever is killed on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import select

from taut.bootstrap.platform import Platform, open_platform
from taut.core.errors import Denied, InvalidInput
from taut.entrypoints.doctor_keys import ages
from taut.ports.records import transact
from taut.serving.snapshot import SnapshotStore, TrustFile, open_snapshot
from taut.trust.envelope.tables import data_keys, subject_keys
from taut.workflows.rotation import WHAT, finish, rotate, states

PEOPLE = [f"person-{number}" for number in range(40)]
FRAME = pl.DataFrame({"who": PEOPLE, "name": [who.upper() for who in PEOPLE]})


def quiet(_said: str, _share: float | None) -> None:
    """Nobody looks at the progress."""


def seal(platform: Platform, frame: pl.DataFrame = FRAME) -> pl.DataFrame:
    return transact(
        platform.records,
        lambda tx: platform.sealer.seal(tx, dataset="people", frame=frame, subject="who", columns=["name"]),
    )


def names(platform: Platform, sealed: pl.DataFrame) -> list[str | None]:
    return platform.sealer.unseal(sealed, dataset="people", columns=["name"]).frame["name"].to_list()


def under(platform: Platform) -> set[int]:
    with platform.records.read() as tx:
        return set(tx.execute(select(subject_keys.c.under)).scalars())


def state(platform: Platform, key: str) -> tuple[int, int, bool]:
    (found,) = (one for one in states(platform) if one.key == key)
    return found.versions, found.behind, found.whole


def test_a_rotation_of_the_tenants_key_that_is_cut_off_is_carried_on_by_the_next_process(
    tmp_path: Path,
) -> None:
    with open_platform(tmp_path, environ={}) as platform:
        sealed = seal(platform)
        transact(platform.records, platform.sealer.tenant.rotate)
        transact(platform.records, lambda tx: platform.sealer.tenant.rewrap(tx, limit=15))
        assert under(platform) == {1, 2}
        assert state(platform, "tenant") == (2, 25, False)
        assert names(platform, sealed) == FRAME["name"].to_list()
        forgotten = transact(platform.records, lambda tx: platform.sealer.forget(tx, PEOPLE[0]))
        assert forgotten
    with open_platform(tmp_path, environ={}) as platform:
        newcomer = seal(platform, pl.DataFrame({"who": ["new"], "name": ["NEW"]}))
        assert rotate(platform, "tenant", actor="test", progress=quiet).current == "3"
        assert under(platform) == {3}
        assert state(platform, "tenant") == (1, 0, True)  # older versions are destroyed
        assert names(platform, sealed) == [None, *FRAME["name"].to_list()[1:]]  # and nobody came back
        assert names(platform, newcomer) == ["NEW"]


def test_a_rotation_that_is_killed_loses_nobody(tmp_path: Path) -> None:
    frame = pl.DataFrame({"who": [str(number) for number in range(2500)], "name": ["x"] * 2500})
    with open_platform(tmp_path, environ={}) as platform:
        sealed = seal(platform, frame)
    code = f"""
from pathlib import Path
from taut.bootstrap.platform import open_platform
from taut.workflows.rotation import rotate
with open_platform(Path({str(tmp_path)!r}), environ={{}}) as platform:
    rotate(platform, "tenant", actor="test", progress=lambda said, _share: (print(said, flush=True), input()))
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as rotating:
        assert rotating.stdout is not None
        rotating.stdout.readline()  # the first two thousand are done, and it goes no further
        rotating.send_signal(signal.SIGKILL)
    with open_platform(tmp_path, environ={}) as platform:
        assert state(platform, "tenant") == (2, 500, False)
        assert names(platform, sealed) == ["x"] * 2500
        assert set(finish(platform, actor="control", progress=quiet)) == {"tenant"}
        assert state(platform, "tenant") == (1, 0, True)
        assert under(platform) == {2}
        assert names(platform, sealed) == ["x"] * 2500
        assert finish(platform, actor="control", progress=quiet) == {}


def test_the_doctor_tells_the_age_and_a_rotation_that_was_cut_off(tmp_path: Path) -> None:
    assert ages(tmp_path, {}).said == "no keys yet"
    with open_platform(tmp_path, environ={}) as platform:
        platform.own_database()
        seal(platform)
        assert ages(tmp_path, {}).state == "ok"
        transact(platform.records, platform.sealer.tenant.rotate)
    cut = ages(tmp_path, {})
    assert (cut.state, "tenant" in cut.said) == ("warn", True)


def test_after_a_rotation_of_the_root_nothing_is_under_its_old_version(tmp_path: Path) -> None:
    with open_platform(tmp_path, environ={}) as platform:
        sealed = seal(platform)
        column = pl.Series("mail", ["a@example.org"])
        token = transact(platform.records, lambda tx: platform.sealer.tokenise(tx, column, dataset="people"))
        platform.secrets.put("db", "value")

        def heads() -> dict[str, bytes]:
            with platform.records.read() as tx:
                rows = tx.execute(select(data_keys.c.name, data_keys.c.wrapped)).all()
            return {name: wrapped[1:9] for name, wrapped in rows}  # the id of the wrapping key, of FileKeys

        before = heads()
        rotate(platform, "data", actor="test", progress=quiet)
        rotate(platform, "subject", actor="test", progress=quiet)
        after = heads()
        assert set(before) == set(after) == {"tenant/1", "subject-pseudonyms", "tokenise/people"}
        assert not set(before.values()) & set(after.values())
        with platform.records.read() as tx:
            plain = platform.sealer.detokenise(tx, token, dataset="people")
        assert plain.to_list() == ["a@example.org"]
    with open_platform(tmp_path, environ={}) as platform:
        assert platform.secrets.get("db") == "value"
        assert names(platform, sealed) == FRAME["name"].to_list()


def test_what_was_signed_before_a_rotation_is_believed_and_gateways_know_the_new_key(tmp_path: Path) -> None:
    with open_platform(tmp_path, environ={}) as platform:
        platform.publish()
        trust = TrustFile(tmp_path / "serving" / "trust.json")
        before = platform.snapshots.newest()
        (old,) = trust.read()
        new = rotate(platform, "snapshot", actor="test", progress=quiet)
        after = platform.snapshots.newest()
        assert before is not None
        assert after is not None
        assert [key.key_id for key in trust.read()] == [new.current, old.key_id]
        assert open_snapshot(before, trust.read()).epoch < open_snapshot(after, trust.read()).epoch
        with pytest.raises(Denied):  # whoever knows the old key alone must not believe the new snapshot
            open_snapshot(after, (old,))


def test_a_store_that_is_told_of_no_new_key_refuses_what_it_signs(tmp_path: Path) -> None:
    """The planted fault: publishing without telling first."""
    with open_platform(tmp_path, environ={}) as platform:
        platform.publish()
        forgetful = TrustFile(tmp_path / "elsewhere.json")
        forgetful.write(platform.keys.public_keys(purpose="snapshot"))
        rotate(platform, "snapshot", actor="test", progress=quiet)
        data = platform.snapshots.newest()
        assert data is not None
        with pytest.raises(Denied):
            SnapshotStore(tmp_path / "other", forgetful).save(data)


def test_every_key_can_be_rotated_and_its_age_is_told(tmp_path: Path) -> None:
    with open_platform(tmp_path, environ={}) as platform:
        platform.own_database()
        for what in WHAT:
            rotate(platform, what, actor="test", progress=quiet)
        platform.own_database()  # still the owner
        found = states(platform)
        assert [one.key for one in found] == list(WHAT)
        assert all(one.since is not None and one.whole for one in found)
        assert {one.versions for one in found} == {1, 2}
        assert platform.ledger.verify().ok
        with pytest.raises(InvalidInput, match="lunch"):
            rotate(platform, "lunch", actor="test", progress=quiet)
