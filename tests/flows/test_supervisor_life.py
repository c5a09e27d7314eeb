"""The supervisor with real children: restart, takeover, refusal of a second installation, drain."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from installation import free_ports
from test_gateway_process import BODY, Load, logged, wait_until

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.entrypoints.children import Child, alive
from taut.entrypoints.nursery import Nursery
from taut.testing.serving import DataPlane


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    made = DataPlane(tmp_path / "home", FileKeys(tmp_path / "keys", random=SystemRandom()))
    made.issue(made.endpoint())
    yield made
    for entry in state(made.home).get("children", []):  # none may outlive its test, whatever happened
        if entry["pid"] and alive(entry["pid"]) == entry["started"]:
            os.kill(entry["pid"], signal.SIGKILL)


def state(home: Path) -> dict[str, Any]:
    path = home / "run" / "supervisor.json"
    return json.loads(path.read_text()) if path.exists() else {}


def pids(home: Path) -> dict[str, int]:
    return {entry["name"]: entry["pid"] for entry in state(home)["children"]}


def states(home: Path) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in state(home)["children"]}


@contextmanager
def supervisor(
    home: Path, *arguments: str, gateways: int = 2, port: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-m", "taut.entrypoints.supervisor", "--home", str(home), "--port", str(port),
        "--gateways", str(gateways), *(arguments or ("--without-control",)),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def all_ready(home: Path, pid: int) -> bool:
    found = state(home)
    return found.get("pid") == pid and all(entry["state"] == "ready" for entry in found["children"])


def await_ready(home: Path, process: subprocess.Popen[bytes]) -> int:
    wait_until(lambda: all_ready(home, process.pid), timeout_s=40.0)
    port: int = state(home)["port"]
    return port


def answers(port: int, bearer: str) -> bool:
    try:
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/predict/delay",
            content=BODY,
            headers={"authorization": f"Bearer {bearer}"},
            timeout=60.0,
        )
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


@pytest.mark.crash
def test_a_killed_gateway_is_restarted_while_the_other_answers(plane: DataPlane) -> None:
    with supervisor(plane.home) as process:
        port = await_ready(plane.home, process)
        victim = pids(plane.home)["gateway-0"]
        with Load(port, plane.token()) as load:
            wait_until(lambda: len(load.answered) > 100)
            os.kill(victim, signal.SIGKILL)
            wait_until(
                lambda: (
                    pids(plane.home)["gateway-0"] not in (None, victim) and all_ready(plane.home, process.pid)
                )
            )
            after = len(load.answered)
            wait_until(lambda: len(load.answered) > after + 100)
        entry = state(plane.home)["children"][0]

    assert entry["restarts"] == 1
    assert entry["last_exit"] == "killed by SIGKILL"
    assert load.refused == []
    assert set(load.answered) <= logged(plane)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each is started from the beginning")
def test_gateways_are_forked_from_one_warm_process_and_started_from_the_beginning_while_there_is_none(
    plane: DataPlane,
) -> None:
    with supervisor(plane.home, gateways=1) as process:
        port = await_ready(plane.home, process)
        forked = pids(plane.home)["gateway-0"]
        (warm,) = (pid for pid in children_of(process.pid) if "gateway_zygote" in command(pid))
        assert forked in children_of(process.pid)
        assert os.getsid(forked) == forked  # a terminal's signals reach it through the supervisor only
        assert "--name gateway-0 " in command(forked)
        layout = base_of(warm)
        assert base_of(forked) == layout

        os.kill(warm, signal.SIGKILL)
        os.kill(forked, signal.SIGKILL)
        wait_until(
            lambda: pids(plane.home)["gateway-0"] not in (None, forked) and all_ready(plane.home, process.pid)
        )
        started = pids(plane.home)["gateway-0"]
        assert base_of(started) != layout
        assert answers(port, plane.token())
        entry = state(plane.home)["children"][0]
        left = children_of(process.pid)

    assert entry["last_exit"] == "killed by SIGKILL"
    assert left >= {started}
    assert not left & {warm, forked}  # nothing that ended waits to be waited for


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each is started from the beginning")
def test_a_gateway_that_fails_before_it_serves_has_the_next_one_forked_from_a_fresh_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "log").mkdir()
    ends: list[dict[str, Any]] = []
    words = (
        sys.executable,
        "-P",
        "-m",
        "taut.entrypoints.gateway_main",
        "--home",
        "none",
        "--fd",
        "{listener}",
        "--nonsense",
    )
    with socket.socket() as listener, closing(Nursery(tmp_path, on_end=ends.append)) as nursery:

        def warm() -> int:
            wait_until(lambda: not nursery.coming() and nursery.pid > 0)
            return nursery.pid

        first = warm()
        child = Child("gateway-0", words, survives=True, forked=True)
        failed = nursery.fork(child, {"listener": listener}, log=tmp_path / "log" / "gateway-0.log")
        assert failed is not None
        wait_until(lambda: failed.ended() is not None)
        nursery.renew(failed)
        assert not alive(first)
        second = warm()
        nursery.renew(failed)  # that one was forked from another process: it says nothing of this one
        assert nursery.pid == second

    assert ends == []  # it was renewed, and did not fail
    assert "--nonsense" in (tmp_path / "log" / "gateway-0.log").read_text()


def children_of(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def base_of(pid: int) -> str:
    """Return where its program lies, which is drawn anew for each that is started, and not for one that is forked."""
    return Path(f"/proc/{pid}/maps").read_text().partition("-")[0]


@pytest.mark.crash
def test_gateways_outlive_their_supervisor_and_the_next_adopts_them_without_a_failed_request(
    plane: DataPlane,
) -> None:
    with supervisor(plane.home) as first:
        port = await_ready(plane.home, first)
        before = pids(plane.home)
        with Load(port, plane.token()) as load:
            wait_until(lambda: len(load.answered) > 100)
            first.kill()
            first.wait()
            alone = len(load.answered)
            wait_until(lambda: len(load.answered) > alone + 100)
            with supervisor(plane.home) as second:
                assert await_ready(plane.home, second) == port
                adopted = pids(plane.home)
                os.kill(adopted["gateway-1"], signal.SIGKILL)
                wait_until(
                    lambda: (
                        pids(plane.home)["gateway-1"] not in (None, adopted["gateway-1"])
                        and all_ready(plane.home, second.pid)
                    )
                )
                restarted = len(load.answered)
                wait_until(lambda: len(load.answered) > restarted + 100)
                broken_by_kill = load.broken
                load.__exit__()
                second.send_signal(signal.SIGTERM)
                code = second.wait(timeout=90)

    assert adopted == before
    assert load.refused == []
    assert broken_by_kill <= 4  # at most one a client: those that the killed gateway had under way
    assert set(load.answered) <= logged(plane)
    assert code == 0
    assert not any(alive(pid) for pid in (*before.values(), *adopted.values()))


def test_a_second_installation_on_the_home_or_the_port_is_refused_by_name(
    plane: DataPlane, tmp_path: Path
) -> None:
    with supervisor(plane.home, gateways=1) as process:
        port = await_ready(plane.home, process)
        with supervisor(plane.home) as same_home:
            _, said_home = same_home.communicate(timeout=90)
        with supervisor(tmp_path / "other", port=port) as same_port:
            _, said_port = same_port.communicate(timeout=90)

        assert (same_home.returncode, same_port.returncode) == (5, 5)
        assert f"process {process.pid}".encode() in said_home
        assert f"port {port} on 127.0.0.1 cannot be taken".encode() in said_port
        assert answers(port, plane.token())


def test_living_gateways_on_another_port_are_named_instead_of_being_doubled(plane: DataPlane) -> None:
    with supervisor(plane.home, gateways=1) as first:
        port = await_ready(plane.home, first)
        first.kill()
        first.wait()
        with supervisor(plane.home, port=free_ports()) as second:
            _, said = second.communicate(timeout=90)

    assert second.returncode == 5
    assert f"still serve on port {port}".encode() in said


def test_a_stop_drains_within_its_time_and_leaves_no_process(plane: DataPlane) -> None:
    with supervisor(plane.home) as process:
        port = await_ready(plane.home, process)
        running = pids(plane.home)
        with httpx.Client(headers={"authorization": f"Bearer {plane.token()}"}, timeout=60.0) as idle:
            assert idle.post(f"http://127.0.0.1:{port}/v1/predict/delay", content=BODY).status_code == 200
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=90)
            took_s = time.monotonic() - start

    assert code == 0
    assert took_s < 20  # where one that is idle held it up, it would take its 25 s
    assert not any(alive(pid) for pid in running.values())
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=2):
        pass


def test_a_child_that_cannot_start_comes_back_ever_more_slowly_and_is_reported(tmp_path: Path) -> None:
    from taut.entrypoints.listening import Address, listen
    from taut.entrypoints.supervisor import Supervisor

    events: list[tuple[str, dict[str, Any]]] = []
    child = Child("broken", (sys.executable, "-c", "raise SystemExit(7)"), survives=False)
    reader, writer = os.pipe()
    with listen(Address("127.0.0.1", 0)) as listener:

        def stop_after_three(name: str, fields: dict[str, Any]) -> None:
            events.append((name, fields))
            if sum(kind == "exited" for kind, _ in events) == 3:
                watched.stop()

        watched = Supervisor(tmp_path, listener, [child], on_event=stop_after_three)
        watched.run(reader)
    os.close(reader)
    os.close(writer)

    ends = [fields for kind, fields in events if kind == "exited"]
    assert {fields["how"] for fields in ends} == {"exit 7"}
    assert [fields["again_s"] for fields in ends] == [0.1, 0.2, 0.4]
    assert (tmp_path / "log" / "broken.log").exists()


def test_the_port_of_grpc_stays_open_while_one_of_its_processes_is_away(plane: DataPlane) -> None:
    with supervisor(plane.home, gateways=2) as process:
        port = await_ready(plane.home, process)
        found = pids(plane.home)
        assert {name for name in found if name.startswith("grpc")} == {"grpc-0", "grpc-1"}
        for victim, other in (("grpc-0", "grpc-1"), ("grpc-1", "grpc-0")):
            process.send_signal(
                signal.SIGSTOP
            )  # so that nobody starts it again before it was seen to be away
            os.kill(found[victim], signal.SIGKILL)
            wait_until(lambda gone=found[victim]: not alive(gone))
            # its last thread may hold the socket a moment longer, and whoever came to it then is reset
            wait_until(lambda: all(_live(port) for _ in range(20)))
            process.send_signal(signal.SIGCONT)
            wait_until(lambda name=victim, old=found[victim]: pids(plane.home)[name] not in (None, old))
            wait_until(lambda: set(states(plane.home).values()) == {"ready"})
            assert pids(plane.home)[other] == found[other]
            found = pids(plane.home)


def _live(port: int) -> bool:
    import grpc

    own = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    with grpc.insecure_channel(f"127.0.0.1:{port + 2}", options=own) as channel:
        try:
            return bool(
                channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=60)
                == b"\x08\x01"
            )
        except grpc.RpcError:
            return False


@pytest.mark.crash
def test_grpc_is_kept_alive_on_the_port_plus_two_and_adopted_on_the_same_port_only(plane: DataPlane) -> None:
    with supervisor(plane.home, gateways=1) as first:
        port = await_ready(plane.home, first)
        assert _live(port)
        victim = pids(plane.home)["grpc-0"]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: pids(plane.home)["grpc-0"] not in (None, victim) and _live(port))
        first.kill()
        first.wait()
        survivor, gateway = pids(plane.home)["grpc-0"], pids(plane.home)["gateway-0"]
        assert _live(port)
        os.kill(
            gateway, signal.SIGKILL
        )  # nobody holds the data plane's port any more: the next may take another
        wait_until(lambda: not alive(gateway))
        with supervisor(plane.home, gateways=1, port=free_ports()) as second:
            elsewhere = await_ready(plane.home, second)
            assert _live(elsewhere)
            assert pids(plane.home)["grpc-0"] != survivor
            second.send_signal(signal.SIGTERM)
            assert second.wait(timeout=90) == 0

    assert elsewhere != port
    assert not alive(survivor)
    assert not _live(port)
