"""The prediction log: framed, found, proved, and honest about what was torn."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage_faults import largest_file
from taut.core.errors import Corrupt, InvalidInput, NotFound, Unavailable
from taut.serving.gateway.ids import RequestIds
from taut.serving.predictions import (
    FeatureRow,
    Lookup,
    Mark,
    PredictionLog,
    PredictionReader,
    RecordHead,
    Sealer,
    encode_head,
    encode_record,
    record_path,
    segment_root,
)
from taut.serving.predictions.segment import FRAME, HEADER, SegmentWriter, frames
from taut.testing.world import SeededRandom

HEAD = RecordHead("delay", "delay@1", "rel_1", 7, ("x", "y"), (Lookup("weather", ("wind",)),))


def ids(seed: int = 0) -> RequestIds:
    return RequestIds(SeededRandom(seed))


def record(request_id: str, *, time_us: int = 1, rows: object = ((1.5, "a"),)) -> bytes:
    features = ((FeatureRow("mat_1", 5, (3.5,)),),)
    return encode_record(request_id, time_us, encode_head(HEAD), "ana", "", 200, 9, rows, features)  # type: ignore[arg-type]  # any rows


def open_log(
    folder: Path, *, segment_bytes: int = 4096, writer: str = "gateway-0", seed: int = 0
) -> PredictionLog:
    return PredictionLog(
        folder, writer, now_us=lambda: time.time_ns() // 1000, monotonic_s=time.monotonic,
        random=SeededRandom(seed), segment_bytes=segment_bytes,
    )  # fmt: skip


def test_a_record_is_read_back_whole_and_found_by_its_id(tmp_path: Path) -> None:
    made = [ids(seed).next(time.time_ns() // 1000) for seed in range(40)]
    with closing(open_log(tmp_path)) as log:
        for request_id in made:
            log.append(record(request_id))
    reader = PredictionReader(tmp_path)

    found = reader.find(made[17])

    assert [one.request_id for one in reader.records()] == made
    assert len(reader.segments()) > 1
    assert found.head == HEAD
    assert found.requests() == [{"x": 1.5, "y": "a"}]
    assert found.features == ((FeatureRow("mat_1", 5, (3.5,)),),)
    with pytest.raises(NotFound):
        reader.find(ids(99).next(time.time_ns() // 1000))
    with pytest.raises(InvalidInput):
        reader.find("req_1")


def test_packed_rows_read_as_the_others_do(tmp_path: Path) -> None:
    import struct

    with closing(open_log(tmp_path)) as log:
        log.append(record(ids().next(1), rows=struct.pack("<4f", 1, 2, 3, 4)))

    [found] = PredictionReader(tmp_path).records()

    assert found.requests() == [{"x": 1.0, "y": 2.0}, {"x": 3.0, "y": 4.0}]


def test_a_reader_sees_records_while_their_segment_is_open(tmp_path: Path) -> None:
    with closing(open_log(tmp_path)) as log:
        log.append(record(ids().next(1)))

        assert len(list(PredictionReader(tmp_path).records())) == 1
        assert [segment.state for segment in PredictionReader(tmp_path).segments()] == ["open"]


def test_a_record_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    with closing(open_log(tmp_path, segment_bytes=512)) as log:
        log.append(record(ids().next(1), rows=[["z" * 5000, "y"]]))
        log.append(record(ids(1).next(1)))

    assert len(list(PredictionReader(tmp_path).records())) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 2000), flip=st.integers(0, 2000))
def test_a_torn_or_changed_tail_ends_the_segment_and_nothing_before_it(
    tmp_path: Path, cut: int, flip: int
) -> None:
    path = tmp_path / f"s{time.monotonic_ns()}.open"
    writer = SegmentWriter(path, size_bytes=4096)
    payloads = [record(ids(seed).next(seed)) for seed in range(10)]
    for payload in payloads:
        assert writer.append(payload)
    writer.begin(path, 1)
    end = writer.end
    writer.finish(path)
    data = bytearray(path.read_bytes())
    path.unlink()
    spoiled = HEADER.size + flip % (end - HEADER.size)
    data[spoiled] ^= 0x41
    kept = data[: max(HEADER.size, end - cut % end)]

    read = [bytes(payload) for _, payload in frames(bytes(kept))]

    starts = [HEADER.size]
    for payload in payloads:
        starts.append(starts[-1] + FRAME.size + len(payload))
    whole = sum(1 for stop in starts[1:] if stop <= min(spoiled, len(kept)))
    assert read == payloads[:whole]


def test_what_is_no_segment_is_called_corrupt(tmp_path: Path) -> None:
    (tmp_path / "0000000000000001-gateway-0-aa.closed").write_bytes(b"garbage" * 100)

    with pytest.raises(Corrupt, match="no segment"):
        list(PredictionReader(tmp_path).records())


def test_a_segment_of_the_dead_is_closed_by_the_next_and_that_of_the_living_is_not(tmp_path: Path) -> None:
    script = (
        "import sys, time; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from test_serving_predictions import ids, open_log, record\n"
        "log = open_log(Path(sys.argv[1]), writer='dead', seed=5)\n"
        "log.append(record(ids(3).next(1)))\n"
        "print('written', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), *sys.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        before = list(Sealer(tmp_path).pending())
        process.send_signal(signal.SIGKILL)
    with closing(open_log(tmp_path)):
        states = {segment.writer: segment.state for segment in PredictionReader(tmp_path).segments()}

    assert before == []
    assert states == {"dead": "closed", "gateway-0": "open"}
    assert not list(tmp_path.glob("dead*.spare"))
    assert [one.request_id for one in PredictionReader(tmp_path).records()] == [ids(3).next(1)]


def test_a_seal_commits_to_every_record_and_is_given_once(tmp_path: Path) -> None:
    with closing(open_log(tmp_path, segment_bytes=2048)) as log:
        for seed in range(20):
            log.append(record(ids(seed).next(seed), time_us=seed))
    sealer = Sealer(tmp_path)

    seals = list(sealer.pending())
    again = list(sealer.pending())
    for seal in seals:
        sealer.mark(seal)
        sealer.mark(seal)

    assert seals == again
    assert sum(seal.records for seal in seals) == 20
    assert seals[0].first_us == 0
    assert list(sealer.pending()) == []
    assert len(list(PredictionReader(tmp_path).records())) == 20


def test_one_record_is_proved_against_its_segments_root_with_the_ledgers_tools() -> None:
    from taut.trust.ledger.merkle import leaf_hash, verify_inclusion

    payloads = [record(ids(seed).next(seed)) for seed in range(11)]
    root = bytes.fromhex(segment_root(payloads))
    leaves = [leaf_hash(payload) for payload in payloads]

    for index, leaf in enumerate(leaves):
        path = record_path(payloads, index)
        assert verify_inclusion(leaf, index=index, size=11, path=path, root=root)
        assert not verify_inclusion(leaf_hash(b"other"), index=index, size=11, path=path, root=root)
    assert segment_root(payloads[:-1]) != root.hex()


def fill(log: PredictionLog) -> None:
    for seed in range(200):
        log.append(record(ids(seed).next(seed)))


def test_a_full_disk_is_met_before_anything_is_answered_and_passes(tmp_path: Path) -> None:
    with closing(open_log(tmp_path, segment_bytes=8192)) as log:
        log.check()
        with largest_file(4096):
            with pytest.raises(Unavailable, match="free disk space"):
                fill(log)
            kept = len(list(PredictionReader(tmp_path).records()))
            with pytest.raises(Unavailable):
                log.check()
        time.sleep(0.25)
        log.check()
        log.append(record(ids(777).next(777)))

    assert kept > 10
    assert len(list(PredictionReader(tmp_path).records())) == kept + 1


def test_power_safe_waiters_share_synchronisations_and_none_waits_for_a_timer(tmp_path: Path) -> None:
    async def run() -> None:
        with closing(open_log(tmp_path, segment_bytes=64 * 1024)) as log:

            async def one(seed: int) -> None:
                log.append(record(ids(seed).next(seed)))
                await log.synced()

            async with asyncio.timeout(
                60
            ):  # each with a synchronisation or a timer of its own would take longer
                await asyncio.gather(*[one(seed) for seed in range(300)])

    asyncio.run(run())

    assert len(list(PredictionReader(tmp_path).records())) == 300


def test_waiters_over_a_rollover_are_woken_after_both_segments_are_durable(tmp_path: Path) -> None:
    async def run() -> None:
        with closing(open_log(tmp_path, segment_bytes=1024)) as log:

            async def one(seed: int) -> None:
                log.append(record(ids(seed).next(seed)))
                await log.synced()

            await asyncio.gather(*[one(seed) for seed in range(50)])

    asyncio.run(run())

    assert len(PredictionReader(tmp_path).segments()) > 5
    assert len(list(PredictionReader(tmp_path).records())) == 50


def test_a_quiet_segment_is_turned_over_once_it_has_records_and_is_old(tmp_path: Path) -> None:
    with closing(open_log(tmp_path)) as log:
        log.turn(older_than_s=0.0)
        log.append(record(ids().next(1)))
        log.turn(older_than_s=60.0)
        before = len(PredictionReader(tmp_path).segments())
        log.turn(older_than_s=0.0)
        log.turn(older_than_s=0.0)

        assert (before, len(PredictionReader(tmp_path).segments())) == (1, 2)


def test_request_ids_sort_by_time_are_distinct_and_carry_it() -> None:
    made = ids()
    batch = [made.next(1_700_000_000_000_000 + step * 1000) for step in range(2000)]

    assert batch == sorted(batch)
    assert len(set(batch)) == 2000
    assert {len(one) for one in batch} == {30}
    assert len({one[14:] for one in batch}) == 2000


def test_the_log_folder_is_private(tmp_path: Path) -> None:
    with closing(open_log(tmp_path / "log")):
        [path] = (tmp_path / "log").glob("*.open")
        assert path.stat().st_mode & 0o077 == 0
        assert os.stat(tmp_path / "log").st_mode & 0o077 == 0


def test_a_segment_says_by_what_leave_its_records_were_written(tmp_path: Path) -> None:
    with closing(open_log(tmp_path)) as log:
        log.mark(Mark(3))
        log.append(b"by a lease")
        log.append(b"by a lease too")
        log.mark(Mark(3, degraded=True))
        log.append(b"by grace")
        log.mark(Mark(3))
        log.append(b"by a lease again")

    found = [(mark, payloads) for _, mark, payloads in PredictionReader(tmp_path).marked()]

    assert found == [
        (Mark(3), [b"by a lease", b"by a lease too"]),
        (Mark(3, degraded=True), [b"by grace"]),
        (Mark(3), [b"by a lease again"]),
    ]
