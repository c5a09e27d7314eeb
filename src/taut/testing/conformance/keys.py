"""What every Keys adapter must do. Subclass in a test module and give `open`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import get_args

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, InvalidInput, TautError
from taut.ports.keys import Keys, PublicKey, Purpose, separated

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
# examples may share a folder, and the same suite runs once for each adapter: both are meant
_FRESH = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def verifies(key: PublicKey, signature: bytes, covered: bytes) -> bool:
    """Check a raw signature without taut: what any verifier of ES256 would do."""
    public = load_pem_public_key(key.pem.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        public.verify(encode_dss_signature(r, s), covered, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


class KeysSuite(ABC):
    """The suite. `folder` names a store, so that it can be opened again.

    turns: how often each of four threads works while keys rotate.
    """

    turns = 30

    @abstractmethod
    def open(self, folder: Path) -> Keys:
        """Open the store that belongs to `folder`, made when it is absent; the same one for the same folder."""

    @_FRESH
    @given(plain=st.binary(max_size=4096), context=st.binary(max_size=64))
    def test_what_was_wrapped_unwraps_in_its_context(
        self, tmp_path: Path, plain: bytes, context: bytes
    ) -> None:
        wrapped = self.open(tmp_path).wrap(plain, purpose="data", context=context)
        assert self.open(tmp_path).unwrap(wrapped, purpose="data", context=context) == plain
        assert len(plain) < 16 or plain not in wrapped

    @_FRESH
    @given(context=st.binary(max_size=16), other=st.binary(max_size=16))
    def test_another_context_does_not_unwrap(self, tmp_path: Path, context: bytes, other: bytes) -> None:
        keys = self.open(tmp_path)
        wrapped = keys.wrap(b"key", purpose="data", context=context)
        if other != context:
            with pytest.raises(Corrupt):
                keys.unwrap(wrapped, purpose="data", context=other)

    @_FRESH
    @given(data=st.data())
    def test_a_changed_wrapped_key_does_not_unwrap(self, tmp_path: Path, data: st.DataObject) -> None:
        keys = self.open(tmp_path)
        wrapped = bytearray(keys.wrap(b"a data key of some length", purpose="subject", context=b"c"))
        at = data.draw(st.integers(0, len(wrapped) * 8 - 1))
        wrapped[at // 8] ^= 1 << at % 8
        with pytest.raises(Corrupt):
            keys.unwrap(bytes(wrapped), purpose="subject", context=b"c")
        cut = data.draw(st.integers(0, len(wrapped) - 1))
        with pytest.raises(Corrupt):
            keys.unwrap(bytes(wrapped[:cut]), purpose="subject", context=b"c")

    def test_another_purpose_or_store_does_not_unwrap(self, tmp_path: Path) -> None:
        keys = self.open(tmp_path / "one")
        wrapped = keys.wrap(b"key", purpose="data", context=b"")
        with pytest.raises(Corrupt):
            keys.unwrap(wrapped, purpose="subject", context=b"")
        with pytest.raises(Corrupt):
            self.open(tmp_path / "two").unwrap(wrapped, purpose="data", context=b"")

    def test_more_than_four_kibibytes_are_not_wrapped(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="4097"):
            self.open(tmp_path).wrap(bytes(4097), purpose="data", context=b"")

    @pytest.mark.parametrize("purpose", PURPOSES)
    def test_a_signature_is_raw_and_covers_message_and_purpose(
        self, tmp_path: Path, purpose: Purpose
    ) -> None:
        keys = self.open(tmp_path)
        key_id, signature = keys.sign(b"message", purpose=purpose)
        (key,) = keys.public_keys(purpose=purpose)
        assert (key.key_id, key.purpose, len(signature)) == (key_id, purpose, 64)
        assert verifies(key, signature, separated(b"message", purpose=purpose))
        assert not verifies(key, signature, separated(b"massage", purpose=purpose))
        others = [separated(b"message", purpose=other) for other in PURPOSES]
        assert sum(verifies(key, signature, covered) for covered in set(others)) == 1

    def test_a_key_is_named_by_the_digest_of_its_der_form(self, tmp_path: Path) -> None:
        (key,) = self.open(tmp_path).public_keys(purpose="model")
        der = load_pem_public_key(key.pem.encode()).public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        assert key.key_id == digest_bytes(der).removeprefix("sha256:")[:16]

    def test_keys_of_different_purposes_differ(self, tmp_path: Path) -> None:
        keys = self.open(tmp_path)
        assert len({keys.public_keys(purpose=purpose)[0].key_id for purpose in PURPOSES}) == len(PURPOSES)

    def test_an_unknown_purpose_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="lunch"):
            self.open(tmp_path).sign(b"x", purpose="lunch")  # type: ignore[arg-type]  # what is refused

    def test_rotation_brings_a_new_key_and_keeps_the_old_ones(self, tmp_path: Path) -> None:
        keys, other = self.open(tmp_path), self.open(tmp_path)
        wrapped = keys.wrap(b"old", purpose="data", context=b"c")
        old_id, signature = other.sign(b"m", purpose="data")
        new = keys.rotate(purpose="data")
        for store in (keys, other, self.open(tmp_path)):
            assert [key.key_id for key in store.public_keys(purpose="data")] == [new.key_id, old_id]
            assert store.sign(b"m", purpose="data")[0] == new.key_id
            assert store.unwrap(wrapped, purpose="data", context=b"c") == b"old"
        assert verifies(keys.public_keys(purpose="data")[1], signature, separated(b"m", purpose="data"))
        rewrapped = other.wrap(b"new", purpose="data", context=b"c")
        assert keys.unwrap(rewrapped, purpose="data", context=b"c") == b"new"

    def test_two_first_users_at_once_agree_on_the_keys(self, tmp_path: Path) -> None:
        found: list[str] = []
        barrier = threading.Barrier(6)

        def use() -> None:
            barrier.wait()
            try:
                found.append(self.open(tmp_path).public_keys(purpose="ledger")[0].key_id)
            except TautError as error:
                found.append(str(error))

        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6
        assert len(set(found)) == 1

    def test_many_threads_sign_and_unwrap_while_keys_rotate(self, tmp_path: Path) -> None:
        keys = self.open(tmp_path)
        wrapped = keys.wrap(b"key", purpose="model", context=b"c")
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(self.turns):
                    key_id, signature = keys.sign(b"m", purpose="model")
                    key = next(key for key in keys.public_keys(purpose="model") if key.key_id == key_id)
                    assert verifies(key, signature, separated(b"m", purpose="model"))
                    assert keys.unwrap(wrapped, purpose="model", context=b"c") == b"key"
            except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            keys.rotate(purpose="model")
        for thread in threads:
            thread.join()
        assert failures == []
