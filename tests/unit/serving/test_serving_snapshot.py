"""Signed snapshots: on disk, over the stream, and never back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput, Unavailable
from taut.serving.snapshot import (
    Ack,
    Beat,
    Hello,
    Publisher,
    SnapshotStore,
    Subscriber,
    TrustFile,
    open_snapshot,
)
from taut.serving.snapshot.wire import frame, frame_report, read_frame, socket_address
from taut.testing.serving import DataPlane, with_fields
from taut.testing.world import SeededRandom


def signed(plane: DataPlane, **more: object) -> bytes:
    return plane.sign(plane.snapshot(plane.endpoint(), **more)).to_json()


def test_a_snapshot_comes_back_as_it_was_signed(plane: DataPlane) -> None:
    snapshot = plane.snapshot(plane.endpoint(audit="power-safe", risk="high", max_age_s=60.0))

    found = open_snapshot(plane.sign(snapshot).to_json(), plane.trust.read())

    assert found == snapshot
    assert plane.store.save(plane.sign(snapshot).to_json()) == snapshot


def test_one_changed_byte_anywhere_is_refused(plane: DataPlane) -> None:
    data = signed(plane)
    keys = plane.trust.read()

    for at in range(0, len(data), max(1, len(data) // 200)):
        spoiled = bytearray(data)
        spoiled[at] ^= 0x01
        with pytest.raises((Corrupt, Denied, InvalidInput)):
            open_snapshot(bytes(spoiled), keys)


def test_a_snapshot_that_somebody_else_signed_is_refused(plane: DataPlane, tmp_path: Path) -> None:
    stranger = DataPlane(tmp_path / "other", FileKeys(tmp_path / "other-keys", random=SystemRandom()))

    with pytest.raises(Denied, match="no trusted key"):
        plane.store.save(signed(stranger))
    assert plane.store.newest() is None


def test_an_older_snapshot_never_replaces_a_newer_one(plane: DataPlane) -> None:
    old, new = signed(plane), signed(plane)
    plane.store.save(new)
    plane.store.save_applied(new)

    with pytest.raises(Conflict, match="at epoch 2, not before 1"):
        plane.store.save(old)
    plane.store.save_applied(old)

    assert plane.store.candidates() == [new, new]
    assert plane.store.floor() == 2


def test_two_snapshots_of_one_epoch_are_a_conflict_and_one_signed_twice_is_not(plane: DataPlane) -> None:
    snapshot = plane.snapshot(plane.endpoint())
    plane.store.save(plane.sign(snapshot).to_json())

    plane.store.save(plane.sign(snapshot).to_json())
    with pytest.raises(Conflict):
        plane.store.save(plane.sign(with_fields(snapshot, max_age_s=1.0)).to_json())


def test_what_cannot_be_believed_on_disk_gives_no_floor_and_may_be_replaced(plane: DataPlane) -> None:
    folder = plane.home / "serving"
    (folder / "snapshot.json").write_bytes(b"{}")
    (folder / "applied.json").write_bytes(b"garbage")

    assert plane.store.floor() == 0
    assert plane.store.save(signed(plane)).epoch == 1


def test_without_a_trust_file_nothing_is_believed(tmp_path: Path, plane: DataPlane) -> None:
    bare = SnapshotStore(tmp_path / "bare", TrustFile(tmp_path / "bare" / "trust.json"))

    with pytest.raises(Unavailable, match="start control once"):
        bare.save(signed(plane))


class Gateway:
    """The gateway's end of a stream, without a gateway."""

    def __init__(self, plane: DataPlane, name: str = "gateway-0") -> None:
        self.plane, self.name = plane, name
        self.epoch = 0
        self.seen: list[tuple[int, float]] = []
        self.refuse = False

    async def apply(self, data: bytes) -> Ack:
        snapshot = open_snapshot(data, self.plane.trust.read())
        if not self.refuse:
            self.epoch = snapshot.epoch
            self.seen.append((snapshot.epoch, time.perf_counter()))
        return Ack(
            gateway=self.name, epoch=snapshot.epoch, applied=not self.refuse, serving=self.epoch,
            reason="corrupt: artifact" if self.refuse else "",
        )  # fmt: skip

    def subscriber(self, path: Path) -> Subscriber:
        return Subscriber(
            path,
            apply=self.apply,
            hello=lambda: Hello(gateway=self.name, pid=1, epoch=self.epoch),
            beat=lambda: Beat(gateway=self.name, epoch=self.epoch, ready=True, answers=0, refusals=0),
            random=SeededRandom(),
        )


async def following(path: Path, *gateways: Gateway, during: Callable[[], Awaitable[None]]) -> None:
    tasks = [asyncio.create_task(gateway.subscriber(path).run()) for gateway in gateways]
    try:
        await during()
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


def test_a_new_epoch_is_in_every_connected_gateway_within_a_second(plane: DataPlane) -> None:
    path = plane.home / "run" / "stream.sock"
    gateways = [Gateway(plane, f"gateway-{number}") for number in range(4)]
    took_s: list[float] = []

    async def during(publisher: Publisher) -> None:
        await until(lambda: len(publisher.gateways()) == 4)
        for _ in range(5):
            statement = plane.sign(plane.snapshot(plane.endpoint()))
            start = time.perf_counter()
            snapshot = await asyncio.to_thread(publisher.publish, statement)
            states = await asyncio.to_thread(publisher.wait, snapshot.epoch, timeout_s=60.0)
            took_s.append(time.perf_counter() - start)
            assert {state.serving for state in states} == {snapshot.epoch}

    with Publisher(plane.store, path) as publisher:
        asyncio.run(following(path, *gateways, during=lambda: during(publisher)))

    assert min(took_s) < 1.0  # others may want the processors too; whoever polled would be late each time
    assert all([epoch for epoch, _ in gateway.seen] == [1, 2, 3, 4, 5] for gateway in gateways)


def test_a_gateway_that_connects_late_gets_the_newest_at_once_and_a_refusal_is_reported(
    plane: DataPlane,
) -> None:
    path = plane.home / "run" / "stream.sock"
    good, bad = Gateway(plane, "good"), Gateway(plane, "bad")
    bad.refuse = True

    with Publisher(plane.store, path) as publisher:
        publisher.publish(plane.sign(plane.snapshot(plane.endpoint())))

        async def during() -> None:
            await until(lambda: len(publisher.gateways()) == 2)
            states = await asyncio.to_thread(publisher.wait, 1, timeout_s=60.0)
            acks = {state.gateway: state.ack for state in states}
            assert acks["good"] is not None
            assert acks["good"].applied
            assert acks["bad"] is not None
            assert acks["bad"].reason == "corrupt: artifact"
            await until(lambda: all(state.beat is not None for state in publisher.gateways()))

        asyncio.run(following(path, good, bad, during=during))


def test_control_may_die_and_come_back_and_gateways_find_it(plane: DataPlane) -> None:
    path = plane.home / "run" / "stream.sock"
    gateway = Gateway(plane)

    async def during() -> None:
        for epoch in (1, 2, 3):
            with Publisher(plane.store, path) as publisher:
                publisher.publish(plane.sign(plane.snapshot(plane.endpoint())))
                await until(lambda epoch=epoch: gateway.epoch == epoch)  # type: ignore[misc]  # bound now on purpose
            await asyncio.sleep(0.05)

    asyncio.run(following(path, gateway, during=during))

    assert [epoch for epoch, _ in gateway.seen] == [1, 2, 3]


def test_whoever_speaks_nonsense_on_the_stream_is_dropped_and_others_are_served(plane: DataPlane) -> None:
    path = plane.home / "run" / "stream.sock"
    with Publisher(plane.store, path) as publisher:
        publisher.publish(plane.sign(plane.snapshot(plane.endpoint())))
        for nonsense in (
            frame(b"{}"),
            b"\xff\xff\xff\xff",
            frame_report(Beat(gateway="x", epoch=1, ready=True, answers=0, refusals=0)),
        ):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(60.0)
                client.connect(str(path)) if len(str(path)) < 100 else connect(client, path)
                assert read_frame(client) is not None
                client.sendall(nonsense)
                with contextlib.suppress(ConnectionError):
                    assert client.recv(1) == b""
        gateway = Gateway(plane)

        async def during() -> None:
            await until(lambda: gateway.epoch == 1)

        asyncio.run(following(path, gateway, during=during))


def connect(client: socket.socket, path: Path) -> None:
    with socket_address(path) as address:
        client.connect(address)


def test_a_gateway_that_does_not_read_is_dropped_and_holds_nobody_up(plane: DataPlane) -> None:
    path = plane.home / "run" / "stream.sock"
    policy = "// " + "x" * 200_000 + "\n"
    with Publisher(plane.store, path) as publisher, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        connect(deaf, path)
        deaf.sendall(frame_report(Hello(gateway="deaf", pid=1, epoch=0)))
        wait_until(lambda: len(publisher.gateways()) == 1)

        for _ in range(
            3
        ):  # nobody reads what the deaf one is sent: were he waited for, this would not return
            publisher.publish(plane.sign(plane.snapshot(plane.endpoint(), policy=policy)))
        wait_until(lambda: not publisher.gateways())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90.0
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def test_a_path_longer_than_an_address_works_all_the_same(plane: DataPlane) -> None:
    path = plane.home / ("deep" * 20) / ("er" * 30) / "stream.sock"
    gateway = Gateway(plane)

    async def during(publisher: Publisher) -> None:
        publisher.publish(plane.sign(plane.snapshot(plane.endpoint())))
        await until(lambda: gateway.epoch == 1)

    with Publisher(plane.store, path) as publisher:
        asyncio.run(following(path, gateway, during=lambda: during(publisher)))


def test_the_publisher_leaves_no_thread_and_no_socket(plane: DataPlane) -> None:
    before = threading.active_count()
    path = plane.home / "run" / "stream.sock"
    with Publisher(plane.store, path):
        assert path.stat().st_mode & 0o077 == 0

    assert threading.active_count() == before
    assert not path.exists()
