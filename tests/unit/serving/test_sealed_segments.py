"""The prediction log sealed: who writes cannot read, nothing of a caller lies open, and a torn tail is still honest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taut.core.errors import Corrupt, Denied, InvalidInput
from taut.serving.gateway.ids import RequestIds
from taut.serving.machines.records import hand_over
from taut.serving.predictions import (
    Incoming,
    PredictionLog,
    PredictionReader,
    RecordHead,
    Sealer,
    SegmentKeys,
    encode_head,
    encode_record,
)
from taut.serving.predictions.batches import write_batch
from taut.serving.predictions.envelope import NO_KEYS, lock_segment
from taut.serving.predictions.segment import HEADER, SegmentWriter, sealed_part
from taut.testing.world import SeededRandom

HEAD = encode_head(RecordHead("delay", "delay@1", "rel_1", 7, ("x", "y")))
FIRST, SECOND = bytes(range(32)), bytes(range(1, 33))
KEYS = SegmentKeys(lambda: (FIRST,))
OTHERS = SegmentKeys(lambda: (SECOND,))
SAID = ("planted-caller", "planted-person", "planted-value", "delay@1")


def record(seed: int) -> bytes:
    request_id = RequestIds(SeededRandom(seed)).next(seed)
    return encode_record(request_id, seed, HEAD, SAID[0], SAID[1], 200, 9, ((1.5, SAID[2]),))


def open_log(folder: Path, *, writer: str = "gateway-0", segment_bytes: int = 4096) -> PredictionLog:
    times = iter(range(1, 10_000))
    return PredictionLog(
        folder, writer, now_us=lambda: next(times), monotonic_s=lambda: 0.0, random=SeededRandom(3),
        segment_bytes=segment_bytes,
    )  # fmt: skip


def everything(folder: Path) -> bytes:
    """Return the bytes of all files there, while the log's thread may be giving one its last name."""
    while True:
        with suppress(FileNotFoundError):
            return b"".join(path.read_bytes() for path in folder.iterdir())


def written(folder: Path, count: int, *, writer: str = "gateway-0") -> list[bytes]:
    payloads = [record(seed) for seed in range(count)]
    with closing(open_log(folder, writer=writer)) as log:
        log.seal_to(KEYS.public)
        for payload in payloads:
            log.append(payload)
    return payloads


def read(folder: Path, keys: SegmentKeys = NO_KEYS) -> list[bytes]:
    reader = PredictionReader(folder, keys)
    return [payload for segment in reader.segments() for payload in reader.payloads(segment)]


def test_what_was_said_is_read_by_the_keys_holder_and_lies_nowhere_in_the_files(tmp_path: Path) -> None:
    payloads = written(tmp_path, 60)
    lying = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert read(tmp_path, KEYS) == payloads
    assert len(list(tmp_path.iterdir())) > 2
    assert [one for one in SAID if one.encode() in lying] == []


def test_request_ids_are_read_and_found_without_opening_the_rest(tmp_path: Path) -> None:
    payloads = written(tmp_path, 40)
    ids = [payload[2:32].decode() for payload in payloads]

    assert list(PredictionReader(tmp_path).ids()) == ids
    assert PredictionReader(tmp_path, KEYS).find(ids[23]).subject == SAID[1]


def test_without_the_key_and_with_another_installations_it_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 1)

    with pytest.raises(Denied, match="through control"):
        read(tmp_path)
    with pytest.raises(Denied, match="another key"):
        read(tmp_path, OTHERS)
    with pytest.raises(Corrupt, match="another key"):
        list(Sealer(tmp_path, OTHERS).pending())


def test_a_gateway_cannot_read_what_it_wrote_once_it_forgot_the_segments_key() -> None:
    """All that it was given is public, and what it made for a segment does not come again."""
    first, second = (lock_segment(KEYS.public, SeededRandom(seed)) for seed in (1, 2))
    body = first.cipher.encrypt(bytes(12), b"said", None)

    assert first.head != second.head
    for cipher in (second.cipher, KEYS.cipher(second.head)):
        with pytest.raises(InvalidTag):
            cipher.decrypt(bytes(12), body, None)
    assert KEYS.cipher(first.head).decrypt(bytes(12), body, None) == b"said"


def test_what_waits_to_be_sealed_is_read_and_nothing_of_it_is_left_once_it_is(tmp_path: Path) -> None:
    with closing(open_log(tmp_path)) as log:
        log.seal_to(KEYS.public)
        log.append(record(1))
        [path] = tmp_path.glob("*.open")
        staged, read_staged = path.read_bytes(), read(tmp_path, KEYS)
        log.turn(older_than_s=60.0)
        sealed, read_sealed = path.read_bytes(), read(tmp_path, KEYS)

    assert SAID[1].encode() in staged
    assert SAID[1].encode() not in sealed
    assert read_staged == read_sealed == [record(1)]


def test_what_is_synchronised_was_sealed_before(tmp_path: Path) -> None:
    async def run() -> bytes:
        with closing(open_log(tmp_path)) as log:
            log.seal_to(KEYS.public)
            log.append(record(1))
            await log.synced()
            return next(iter(tmp_path.glob("*.open"))).read_bytes()

    assert SAID[1].encode() not in asyncio.run(run())


class Died(Exception):
    """The process ends here."""


@pytest.mark.parametrize("writes", range(7))
def test_dying_between_any_two_writes_of_a_batch_loses_and_doubles_nothing(
    tmp_path: Path, writes: int
) -> None:
    payloads = [record(seed) for seed in range(3)]
    path = tmp_path / "0000000000000001-gateway-0-aa.closed"
    writer = SegmentWriter(path, size_bytes=8192)
    writer.begin(path, 1, lock_segment(KEYS.public, SeededRandom(1)))
    for payload in payloads[:2]:
        assert writer.append(payload)
    writer.seal()
    assert writer.append(payloads[2])

    class Counting(bytearray):
        left = writes

        def __setitem__(self, place: Any, value: Any) -> None:
            if not self.left:
                raise Died
            self.left -= 1
            super().__setitem__(place, value)

    data = Counting(path.read_bytes())
    found = sealed_part(bytes(data))
    assert found is not None
    number, offset, staged = found[1].left()
    with contextlib.suppress(Died):
        write_batch(
            data, KEYS.cipher(found[0]), offset=offset, number=number, head=HEADER.size, frames=staged  # type: ignore[arg-type]  # as a map
        )  # fmt: skip
    path.write_bytes(data)

    assert read(tmp_path, KEYS) == payloads
    assert list(PredictionReader(tmp_path).ids()) == [payload[2:32].decode() for payload in payloads]
    [seal] = Sealer(tmp_path, KEYS).pending()  # which seals what was left on the stage
    assert seal.records == 3
    assert SAID[1].encode() not in path.read_bytes()
    assert read(tmp_path, KEYS) == payloads


def test_a_record_larger_than_the_stage_is_sealed_by_itself(tmp_path: Path) -> None:
    large = encode_record(
        RequestIds(SeededRandom(9)).next(9), 9, HEAD, SAID[0], SAID[1], 200, 9, (("z" * 3000, SAID[2]),)
    )
    with closing(open_log(tmp_path)) as log:
        log.seal_to(KEYS.public)
        log.append(record(1))
        log.append(large)
        log.append(record(2))
        lying = everything(tmp_path)

    assert read(tmp_path, KEYS) == [record(1), large, record(2)]
    assert b"zzz" not in lying


def test_a_key_that_is_none_is_refused_and_the_log_stays_as_it_was(tmp_path: Path) -> None:
    with closing(open_log(tmp_path)) as log:
        log.seal_to(KEYS.public)
        for wrong in ("00" * 32, "ab", "no hexadecimal"):
            with pytest.raises(Corrupt, match="issue a newer snapshot"):
                log.seal_to(wrong)
        log.append(record(1))

    assert read(tmp_path, KEYS) == [record(1)]


def test_another_key_begins_another_segment_and_the_same_one_does_not(tmp_path: Path) -> None:
    with closing(open_log(tmp_path)) as log:
        log.append(record(1))
        log.seal_to(KEYS.public)
        log.append(record(2))
        log.seal_to(KEYS.public)
        log.append(record(3))

    assert len(PredictionReader(tmp_path).segments()) == 2
    assert read(tmp_path, KEYS) == [record(1), record(2), record(3)]


def test_a_rotated_key_seals_at_once_and_the_old_one_still_opens(tmp_path: Path) -> None:
    private = [FIRST]
    keys = SegmentKeys(lambda: tuple(private))
    with closing(open_log(tmp_path)) as log:
        log.seal_to(keys.public)
        log.append(record(1))
        assert read(tmp_path, keys) == [record(1)]
        private.insert(0, SECOND)
        log.seal_to(keys.public)
        log.append(record(2))

    assert read(tmp_path, keys) == [record(1), record(2)]
    with pytest.raises(Denied):
        read(tmp_path, KEYS)


def test_what_was_written_open_before_is_still_read(tmp_path: Path) -> None:
    with closing(open_log(tmp_path)) as log:
        log.append(record(1))

    assert read(tmp_path) == read(tmp_path, KEYS) == [record(1)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2000), flip=st.integers(0, 2000), bit=st.integers(0, 7))
def test_a_torn_or_changed_tail_ends_a_sealed_segment_and_nothing_before_it(
    tmp_path: Path, cut: int, flip: int, bit: int
) -> None:
    folder = tmp_path / f"{cut}-{flip}-{bit}"
    payloads = written(folder, 8)
    [path] = folder.iterdir()
    data = bytearray(path.read_bytes())
    spoiled = HEADER.size + flip % (len(data) - HEADER.size)
    data[spoiled] ^= 1 << bit
    kept = data[: max(HEADER.size, len(data) - cut % len(data))]
    path.write_bytes(kept)

    found = read(folder, KEYS)

    try:
        assert found == payloads[: len(found)]
    except Corrupt:  # the head of the segment itself
        raise AssertionError("only records were changed") from None
    assert len(found) < len(payloads) or spoiled >= len(kept) or idle(data, spoiled)


def idle(data: bytes | bytearray, at: int) -> bool:
    """Whether nothing is kept there: the second word of a batch's frame, or the cleared stage."""
    batches = sealed_part(bytes(data))
    assert batches is not None
    return at < next(iter(batches[1]))[0] or any(offset + 4 <= at < offset + 8 for offset, _ in batches[1])


def test_seals_commit_to_the_plain_records_so_that_proofs_need_no_key(tmp_path: Path) -> None:
    written(tmp_path / "sealed", 5)
    with closing(open_log(tmp_path / "open")) as log:
        for seed in range(5):
            log.append(record(seed))

    [sealed] = Sealer(tmp_path / "sealed", KEYS).pending()
    [plain] = Sealer(tmp_path / "open").pending()

    assert (sealed.root, sealed.size_bytes, sealed.records) == (plain.root, plain.size_bytes, 5)


def test_a_machine_hands_over_what_it_cannot_read_and_control_reads_it(tmp_path: Path) -> None:
    payloads = written(tmp_path / "there", 30, writer="gateway-0@m2")
    control = Incoming(tmp_path / "here", KEYS)

    def send(name: str, size_bytes: int, sha256: str, offset: int, data: bytes) -> int:
        return control.take(
            name, machine="m2", size_bytes=size_bytes, sha256=sha256, offset=offset, data=data
        )

    assert hand_over(tmp_path / "there", send) >= 2
    assert read(tmp_path / "here", KEYS) == payloads
    assert not list((tmp_path / "there").glob("*.closed"))


def test_control_takes_no_segment_that_it_could_not_seal(tmp_path: Path) -> None:
    written(tmp_path / "there", 1, writer="gateway-0@m2")
    [path] = (tmp_path / "there").iterdir()
    data = path.read_bytes()

    with pytest.raises(InvalidInput, match="cannot be read"):
        Incoming(tmp_path / "here", OTHERS).take(
            path.stem, machine="m2", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), offset=0,
            data=data,
        )  # fmt: skip
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("sealed", [True, False])
def test_the_tail_of_a_segment_is_what_comes_after_whatever_was_sealed_meanwhile(
    tmp_path: Path, sealed: bool
) -> None:
    payloads = [record(seed) for seed in range(60)]
    with closing(open_log(tmp_path, segment_bytes=1 << 16)) as log:
        if sealed:
            log.seal_to(KEYS.public)
        reader, seen = PredictionReader(tmp_path, KEYS), 0
        for at, payload in enumerate(payloads):
            log.append(payload)
            if at % 7 == 0:
                log.turn(older_than_s=1e9)  # seals what is on the stage
            if at % 5 == 0:
                (segment,) = reader.segments()
                tail = reader.tail(segment, seen)
                assert tail == payloads[seen : at + 1]
                seen += len(tail)
        (segment,) = reader.segments()
        for after in range(61):
            assert reader.tail(segment, after) == payloads[after:]


def test_many_records_are_found_at_once_and_unknown_ids_cost_nothing(tmp_path: Path) -> None:
    payloads = written(tmp_path, 200)
    reader = PredictionReader(tmp_path, KEYS)
    ids = [payload[2:32].decode() for payload in payloads]
    unknown = RequestIds(SeededRandom(99)).next(10**15)
    found = reader.find_all({ids[3], ids[150], unknown, "no id"})
    assert found.keys() == {ids[3], ids[150]}
    assert found[ids[150]].time_us == 150
    assert reader.find_all(set()) == {}
