"""The prediction log against what forges, tears and fills it."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import closing
from pathlib import Path
from zlib import crc32

import pytest

from storage_faults import largest_file
from taut.core.errors import Corrupt, NotFound, Unavailable
from taut.serving.gateway.ids import RequestIds
from taut.serving.predictions import (
    PredictionLog,
    PredictionReader,
    RecordHead,
    Sealer,
    encode_head,
    encode_record,
)
from taut.serving.predictions.log import close_orphans
from taut.serving.predictions.segment import FRAME, HEADER, SegmentWriter
from taut.testing.world import SeededRandom

HEAD = encode_head(RecordHead("delay", "delay@1", "rel_1", 7, ("x",)))


def record(request_id: str, *, principal: str = "ana", rows: bytes = b"") -> bytes:
    return encode_record(request_id, 1, HEAD, principal, "", 200, 9, rows)


def open_log(folder: Path, *, writer: str = "gateway-0", segment_bytes: int = 8192) -> PredictionLog:
    return PredictionLog(
        folder, writer, now_us=lambda: time.time_ns() // 1000, monotonic_s=time.monotonic,
        random=SeededRandom(len(writer)), segment_bytes=segment_bytes,
    )  # fmt: skip


def some_id(seed: int) -> str:
    return RequestIds(SeededRandom(seed)).next(time.time_ns() // 1000)


def test_a_record_that_a_caller_wrote_inside_his_request_is_not_found_in_place_of_the_real_one(
    tmp_path: Path,
) -> None:
    asked = some_id(1)
    forged = record(asked, principal="mallory")
    frame = FRAME.pack(len(forged), crc32(forged)) + forged
    with closing(open_log(tmp_path)) as log:
        log.append(record(asked))
    with closing(open_log(tmp_path, writer="gateway-1")) as log:  # a later segment, which is searched first
        log.append(record(some_id(2), rows=b"\0\0" + frame))
    reader = PredictionReader(tmp_path)

    assert reader.find(asked).principal == "ana"
    reader.segments()[0].path.unlink()
    with pytest.raises(NotFound):
        reader.find(asked)


@pytest.mark.parametrize("left", [b"", bytes(HEADER.size), bytes(4096)])
def test_a_segment_of_which_power_failure_left_only_the_name_does_not_keep_the_others_from_being_sealed(
    tmp_path: Path, left: bytes
) -> None:
    torn = tmp_path / "0000000000000001-gateway-9-aa.open"
    torn.write_bytes(left)
    with closing(open_log(tmp_path)) as log:
        log.append(record(some_id(1)))

    seals = list(Sealer(tmp_path).pending())

    assert [seal.records for seal in seals] == [1]
    assert not list(tmp_path.glob("*gateway-9*"))


def test_a_damaged_segment_is_named_after_all_others_were_sealed(tmp_path: Path) -> None:
    (tmp_path / "0000000000000001-gateway-9-aa.closed").write_bytes(b"garbage" * 100)
    with closing(open_log(tmp_path)) as log:
        log.append(record(some_id(1)))
    pending = Sealer(tmp_path).pending()

    assert next(pending).records == 1
    with pytest.raises(Corrupt, match="gateway-9"):
        next(pending)


def test_waiting_for_the_disk_ends_also_when_the_next_segment_could_not_be_made(tmp_path: Path) -> None:
    async def run(log: PredictionLog) -> list[BaseException | None]:
        log.append(record(some_id(1)))
        first = asyncio.create_task(log.synced())
        await asyncio.sleep(0)  # the first synchronisation is under way; the second group waits behind it
        log.append(record(some_id(2)))
        second = asyncio.create_task(log.synced())
        await asyncio.sleep(0)
        with largest_file(4096), pytest.raises(Unavailable):
            log.append(bytes(8192))
        third = asyncio.create_task(log.synced())
        found = await asyncio.wait_for(asyncio.gather(first, second, third, return_exceptions=True), 90)
        return list(found)

    with closing(open_log(tmp_path)) as log:
        assert asyncio.run(run(log)) == [None, None, None]


def test_a_segment_is_never_written_into_a_file_that_was_swept_as_it_was_made(tmp_path: Path) -> None:
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            close_orphans(tmp_path)

    sweepers = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in sweepers:
        thread.start()
    try:
        for index in range(300):
            writer = SegmentWriter(tmp_path / f"w-{index}.spare", size_bytes=4096)
            writer.begin(tmp_path / f"{index:016d}-w-aa.open", 1)
            closed = writer.path.with_suffix(".closed")
            writer.finish(closed)
            closed.unlink()  # is there; and the folder that is swept stays small
    finally:
        stop.set()
        for thread in sweepers:
            thread.join()

    assert list(tmp_path.iterdir()) == []
