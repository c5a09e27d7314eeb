"""The link of a further machine against a control in the same process: signatures, digests, records, and what goes wrong."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.canonical import digest_bytes
from taut.core.errors import Conflict, Corrupt, InvalidInput, NotFound, TautError, Unavailable
from taut.serving.machines import Link, Member, hand_over, place, read_part
from taut.serving.predictions import (
    Incoming,
    PredictionLog,
    PredictionReader,
    RecordHead,
    encode_head,
    encode_record,
)
from taut.serving.snapshot import GatewayState, Machine, MachineState, Publisher, SnapshotStore, TrustFile
from taut.testing.serving import DataPlane

MODEL = b"a model" * 1000
HEAD = encode_head(RecordHead(endpoint="e", version="m@1", release="rel", epoch=1, columns=("x",)))


class Control:
    """Control's side, in memory; `fault` may raise, or change what is answered."""

    def __init__(self, folder: Path) -> None:
        self.keys = FileKeys(folder / "keys", random=SystemRandom())
        self.plane = DataPlane(folder / "first", self.keys)
        self.home = self.plane.home
        self.publisher = Publisher(self.plane.store, self.home / "run" / "stream.sock")
        self.incoming = Incoming(folder / "log")
        self.log = folder / "log"
        self.reports: list[dict[str, Any]] = []
        self.fault: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda _name, answer: answer

    def call(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        return self.fault(name, getattr(self, name.partition(".")[2])(request))

    def join(self, _request: dict[str, Any]) -> dict[str, Any]:
        keys = self.keys.public_keys(purpose="snapshot")
        return {"machine": "m2", "keys": msgspec.to_builtins(keys)}

    def follow(self, request: dict[str, Any]) -> dict[str, Any]:
        data = self.publisher.follow(request["epoch"], timeout_s=0.05)
        return {"snapshot": None if data is None else data.decode()}

    def artifact(self, request: dict[str, Any]) -> dict[str, Any]:
        data, size = read_part(self.home, self.publisher.snapshot, request["digest"], request["offset"])
        return {"data": base64.b64encode(data).decode(), "size_bytes": size}

    def report(self, request: dict[str, Any]) -> dict[str, Any]:
        self.reports.append(request)
        return {}

    def deliver(self, request: dict[str, Any]) -> dict[str, Any]:
        request = {**request, "data": base64.b64decode(request["data"])}
        return {"here": self.incoming.take(request.pop("segment"), machine="m2", **request)}


class There:
    """A further machine: its home, and what its link said."""

    def __init__(self, folder: Path, control: Control) -> None:
        self.home = folder / "second"
        self.trust = TrustFile(self.home / "serving" / "trust.json")
        self.trust.write(control.keys.public_keys(purpose="snapshot"))
        self.store = SnapshotStore(self.home / "serving", self.trust)
        self.said: list[str] = []
        self._control = control

    @contextmanager
    def linked(self) -> Iterator[Publisher]:
        def say(event: str, error: BaseException | None) -> None:
            self.said.append(f"{event}: {error}")

        with (
            Publisher(self.store, self.home / "run" / "stream.sock") as publisher,
            Link(
                self._control.call, publisher, keep=lambda: None, home=self.home, trust=self.trust, say=say,
                member=Member(instance="0" * 32, url="http://127.0.0.1:1", gateways=1),
                epoch=self.store.issued(), random=SystemRandom(),
            ),
        ):  # fmt: skip
            yield publisher


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path)
    with made.publisher:
        yield made


@pytest.fixture
def there(tmp_path: Path, control: Control) -> There:
    return There(tmp_path, control)


def until(condition: Callable[[], object], within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def issue(control: Control, **more: Any) -> int:
    """Publish a snapshot with one endpoint, whose artifact lies in the place of models."""
    endpoint = control.plane.endpoint(**more)
    data = (control.home / endpoint.live.path).read_bytes()
    path = f"serving/models/{endpoint.live.artifact.removeprefix('sha256:')}.onnx"
    (control.home / path).parent.mkdir(parents=True, exist_ok=True)
    (control.home / path).write_bytes(data)
    live = msgspec.structs.replace(endpoint.live, path=path)
    statement = control.plane.sign(control.plane.snapshot(msgspec.structs.replace(endpoint, live=live)))
    return control.publisher.publish(statement).epoch


def test_a_snapshot_reaches_the_machine_with_its_artifacts(control: Control, there: There) -> None:
    with there.linked() as publisher:
        epoch = issue(control)
        until(lambda: publisher.snapshot is not None and publisher.snapshot.epoch == epoch)

    (found,) = (there.home / "serving" / "models").iterdir()
    assert digest_bytes(found.read_bytes()) == publisher.snapshot.endpoints[0].live.artifact  # type: ignore[union-attr]
    assert there.store.issued() == epoch


def test_a_snapshot_of_another_signer_or_with_other_artifacts_is_not_used(
    control: Control, there: There, tmp_path: Path
) -> None:
    there.trust.write(FileKeys(tmp_path / "others", random=SystemRandom()).public_keys(purpose="snapshot"))
    issue(control)
    with there.linked():
        until(lambda: any("another installation" in said for said in there.said))
    there.trust.write(control.keys.public_keys(purpose="snapshot"))

    control.fault = lambda name, answer: (
        {**answer, "data": base64.b64encode(b"x" * answer["size_bytes"]).decode()}
        if name == "fleet.artifact"
        else answer
    )
    with there.linked():
        until(lambda: any("other bytes" in said for said in there.said))

    assert there.store.issued() == 0
    assert not (there.home / "serving" / "models").exists()


def test_keys_that_control_rotated_to_are_believed_beside_those_of_before(
    control: Control, there: There
) -> None:
    with there.linked() as publisher:
        before = issue(control)
        until(lambda: publisher.snapshot is not None and publisher.snapshot.epoch == before)
        control.keys.rotate(purpose="snapshot")
        control.plane.store.trust(control.keys.public_keys(purpose="snapshot"))
        after = issue(control)
        until(lambda: publisher.snapshot is not None and publisher.snapshot.epoch == after)

    assert there.trust.read() == control.keys.public_keys(purpose="snapshot")
    assert len(there.trust.read()) == 2


def test_what_control_signed_for_a_path_outside_is_not_written(tmp_path: Path) -> None:
    digest = digest_bytes(MODEL)
    for path in (
        "../../x",
        "/etc/x",
        "serving/models/../x",
        "serving/models/.x",
        "serving/x",
        "serving/models",
    ):
        with pytest.raises(Corrupt):
            place(tmp_path, digest, path, lambda offset: (MODEL[offset:], len(MODEL)))
    assert list(tmp_path.iterdir()) == []
    assert place(tmp_path, digest, "serving/models/m.onnx", lambda at: (MODEL[at : at + 999], len(MODEL)))
    assert not place(tmp_path, digest, "serving/models/m.onnx", lambda _at: (b"", 0))


def test_only_artifacts_of_the_newest_snapshot_are_given(control: Control) -> None:
    issue(control)
    with pytest.raises(NotFound):
        read_part(control.home, control.publisher.snapshot, "sha256:" + "0" * 64, 0)


def test_control_may_be_away_and_come_back(control: Control, there: There) -> None:
    def away(_name: str, _answer: dict[str, Any]) -> dict[str, Any]:
        raise Unavailable("nobody there")

    control.fault = away
    with there.linked() as publisher:
        until(lambda: len(there.said) >= 2)
        epoch = issue(control)
        control.fault = lambda _name, answer: answer
        until(lambda: publisher.snapshot is not None and publisher.snapshot.epoch == epoch)
        until(lambda: control.reports)
        until(lambda: any("can follow control again" in said for said in there.said))


def records(folder: Path, writer: str, count: int, *, bytes_each: int = 0) -> list[str]:
    """Write and close a segment; return its request ids."""
    log = PredictionLog(
        folder, writer, now_us=lambda: time.time_ns() // 1000, monotonic_s=time.monotonic, random=SystemRandom(),
        segment_bytes=2**24,
    )  # fmt: skip
    ids = [f"req_{number:026d}" for number in range(count)]
    for id_ in ids:
        log.append(encode_record(id_, 1, HEAD, "p", "s" * bytes_each, 200, 1))
    log.close()
    return ids


def send_to(incoming: Incoming, *, machine: str = "m2") -> Callable[[str, int, str, int, bytes], int]:
    def send(name: str, size_bytes: int, sha256: str, offset: int, data: bytes) -> int:
        return incoming.take(
            name, machine=machine, size_bytes=size_bytes, sha256=sha256, offset=offset, data=data
        )

    return send


def test_a_segment_is_handed_over_whole_wherever_its_sending_breaks_off(tmp_path: Path) -> None:
    here, log = tmp_path / "here", tmp_path / "log"
    ids = records(here, "gateway-0@m2", 40, bytes_each=200_000)
    take, broken = send_to(Incoming(log)), 0

    for moment in range(12):  # each attempt is cut off before or after one more part was taken
        left = moment

        def send(*part: Any, lost: int = moment % 2) -> int:
            nonlocal left
            if left == 0:
                raise Unavailable("cut off")
            taken = take(*part)
            left -= 1
            if left == 0 and lost:
                raise Unavailable("the answer was lost")
            return taken

        try:
            hand_over(here, send)
            break
        except Unavailable:
            broken += 1
            found = [record.request_id for record in PredictionReader(log).records()]
            assert found in ([], ids)
            assert found == ids or list(here.glob("*.closed"))

    assert broken > 1
    assert [record.request_id for record in PredictionReader(log).records()] == ids
    assert not list(here.iterdir())
    assert [path.suffix for path in log.iterdir()] == [".closed"]


def test_a_segment_that_was_sealed_meanwhile_is_acknowledged_and_not_taken_again(tmp_path: Path) -> None:
    here, log = tmp_path / "here", tmp_path / "log"
    records(here, "gateway-0@m2", 2)
    (path,) = here.glob("*.closed")
    data = path.read_bytes()
    sha256, take = hashlib.sha256(data).hexdigest(), send_to(Incoming(log))
    assert take(path.stem, len(data), sha256, 0, data) == len(data)
    (log / path.name).rename((log / path.name).with_suffix(".seg"))

    assert hand_over(here, take) == 1

    assert [found.suffix for found in log.iterdir()] == [".seg"]
    with pytest.raises(Conflict):
        take(path.stem, len(data) - 1, hashlib.sha256(data[:-1]).hexdigest(), 0, data[:-1])


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("0000000000000001-gateway-0@m3-00000000", b"x", InvalidInput),  # another machine's
        ("0000000000000001-gateway-0-00000000", b"x", InvalidInput),  # the first machine's
        ("../../0000000000000001-gateway-0@m2-00000000", b"x", InvalidInput),
        ("0000000000000001-gateway-0@m2-00000000", b"no segment at all" * 9, InvalidInput),
        ("0000000000000001-gateway-0@m2-00000000", b"", InvalidInput),
    ],
)
def test_what_is_no_segment_of_this_machine_is_not_taken(
    tmp_path: Path, name: str, data: bytes, error: type[TautError]
) -> None:
    with pytest.raises(error):
        Incoming(tmp_path).take(
            name,
            machine="m2",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            offset=0,
            data=data,
        )
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_than_were_announced_are_thrown_away(tmp_path: Path) -> None:
    name = "0000000000000001-gateway-0@m2-00000000"
    with pytest.raises(Corrupt):
        Incoming(tmp_path).take(name, machine="m2", size_bytes=3, sha256="0" * 64, offset=0, data=b"abc")
    assert list(tmp_path.iterdir()) == []


def state(name: str, epoch: int) -> GatewayState:
    return GatewayState(gateway=name, pid=1, serving=epoch, heard_s=time.monotonic())


def machine(instance: str, *states: GatewayState, silent_s: float = 0.0) -> MachineState:
    return MachineState(
        machine=Machine(name="m2", url="http://127.0.0.1:1", gateways=1), instance=instance, gateways=states,
        heard_s=time.monotonic() - silent_s,
    )  # fmt: skip


def test_a_machine_is_waited_for_as_long_as_it_speaks(control: Control) -> None:
    publisher = control.publisher
    publisher.hear(machine("a", state("gateway-0@m2", 1)))
    assert [one.serving for one in publisher.wait(2, timeout_s=0.0)] == [1]
    publisher.hear(machine("a", state("gateway-0@m2", 2)))
    assert [one.serving for one in publisher.wait(2, timeout_s=5.0)] == [2]
    publisher.hear(machine("a", state("gateway-0@m2", 2), silent_s=4.0))
    assert publisher.wait(3, timeout_s=5.0) == ()
    assert [one.machine.name for one in publisher.machines()] == ["m2"]


def test_two_homes_are_never_one_machine(control: Control) -> None:
    control.publisher.hear(machine("a"))
    with pytest.raises(Conflict):
        control.publisher.hear(machine("b"))
    control.publisher.hear(machine("a", silent_s=4.0))
    control.publisher.hear(machine("b"))  # the first one is gone


def test_a_quota_is_shared_by_all_gateways_and_memory_by_those_of_one_machine(control: Control) -> None:
    issue(control)
    snapshot = control.publisher.snapshot
    assert snapshot is not None
    both = msgspec.structs.replace(
        snapshot,
        gateways=5,
        machines=(Machine(name="m2", url="u", gateways=2), Machine(name="m3", url="u", gateways=1)),
    )
    assert (both.gateways_at(""), both.gateways_at("m2"), both.gateways_at("m3")) == (2, 2, 1)
