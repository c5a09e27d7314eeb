"""The words of admission as bytes: believed only from the key that they name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, Denied
from taut.fleet.admission import Answer, Attest, Beat, ReplicaKey, open_answer, open_message, sign_answer


def beat(key: str) -> Beat:
    return Beat(replica="model-1", incarnation=1, key=key, number=1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


def test_what_a_replica_signs_is_read_as_it_was_said() -> None:
    key = ReplicaKey()
    attest = Attest(
        replica="model-1", incarnation=1, token="t", nonce="n", key=key.thumbprint, artifacts="sha256:a"
    )

    assert open_message(key.sign(attest)) == attest
    assert open_message(key.sign(beat(key.thumbprint))) == beat(key.thumbprint)


def test_nobody_speaks_in_the_name_of_another_key() -> None:
    mine, other = ReplicaKey(), ReplicaKey()

    with pytest.raises(Denied, match="name this one"):
        mine.sign(beat(other.thumbprint))


def test_a_message_under_another_public_key_is_refused() -> None:
    mine, other = ReplicaKey(), ReplicaKey()
    envelope = msgspec.json.decode(mine.sign(beat(mine.thumbprint)))
    theirs = msgspec.json.decode(other.sign(beat(other.thumbprint)))

    with pytest.raises(Denied, match="not signed by the key"):
        open_message(msgspec.json.encode({**envelope, "public": theirs["public"]}))
    with pytest.raises(Denied, match="not signed by the key"):
        open_message(msgspec.json.encode({**envelope, "body": theirs["body"]}))
    with pytest.raises(Denied, match="signed by another"):
        open_message(_signed_in_the_name_of(other, mine.thumbprint))


def test_a_beat_cannot_be_read_as_an_attestation() -> None:
    key = ReplicaKey()
    envelope = msgspec.json.decode(key.sign(beat(key.thumbprint)))

    with pytest.raises((Corrupt, Denied)):
        open_message(msgspec.json.encode({**envelope, "kind": "Attest"}))


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[1]", b"x" * 70_000])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Corrupt):
        open_message(data)


def test_an_answer_is_believed_from_admissions_key_alone(keys: FileKeys, tmp_path: Path) -> None:
    answer = Answer(replica="model-1", incarnation=1, key="k", answers=1, serial=1, floor=3)
    signed = sign_answer(keys, answer).to_json()
    stranger = sign_answer(FileKeys(tmp_path / "other", random=SystemRandom()), answer).to_json()
    trusted = keys.public_keys(purpose="admission")

    assert open_answer(signed, trusted) == answer
    with pytest.raises(Denied, match="no trusted key"):
        open_answer(stranger, trusted)
    with pytest.raises(Denied):
        open_answer(signed, keys.public_keys(purpose="scale"))


def _signed_in_the_name_of(key: ReplicaKey, name: str) -> bytes:
    """What a liar with code of his own would send: his key, another's name."""

    class Liar(ReplicaKey):
        thumbprint = name  # type: ignore[assignment]

    liar = Liar()
    liar._private, liar._public = key._private, key._public
    return liar.sign(beat(name))
