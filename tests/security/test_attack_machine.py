"""Another user of the same machine: what he can read, write or put in the way, whatever the umask was."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from taut.adapters.sources.s3 import S3Sources
from taut.bootstrap.adapters import open_sources
from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform, open_platform
from taut.core.errors import Denied, TautError
from taut.entrypoints.children import Child
from taut.entrypoints.client import connect
from taut.entrypoints.listening import Address
from taut.entrypoints.operations import Caller, operation_table, perform
from taut.entrypoints.supervisor import Supervisor, supervise
from taut.ports.jobs import Limits, Task
from taut.ports.records import transact
from taut.project.load import load_project
from taut.serving.predictions import PredictionLog
from taut.testing.world import SeededRandom
from taut.trust.identity.principals import OWNER

PROJECT = """
import taut
people = taut.Dataset("people", source=taut.files("people.csv"), contract=taut.Contract([
    taut.column("id", "int", unique=True), taut.column("at", "datetime"), taut.column("email", "string", personal="seal"),
]), entity="id", event_time="at", subject="id")
"""


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def fill(platform: Platform, folder: Path) -> None:
    """Let every part write what it writes."""

    def do(name: str, /, **request: object) -> None:
        perform(
            operation_table(), platform, Caller(principal=OWNER, local=True), name, request, lambda *_: None
        )

    (folder / "project.py").write_text(PROJECT)
    (folder / "people.csv").write_text("id,at,email\n1,2020-01-01T00:00:00Z,ada@example.org\n")
    loaded = load_project(folder / "project.py")
    do("plan.apply", manifest=msgspec.to_builtins(loaded.manifest), bundle=msgspec.to_builtins(loaded.bundle))
    do("data.ingest", dataset="people")
    do("secret.put", name="db", value="hunter2")
    platform.identity.create_principal("app", kind="service", roles=["predictor"], actor="owner")
    platform.identity.create_token("app", ["predictor"], timedelta(minutes=1), actor="owner")
    platform.ledger.sequence()
    platform.ledger.checkpoint()
    _ = platform.online
    platform.publish()
    task = Task(function="taut.testing.job:echo", limits=Limits(timeout_s=20))
    platform.jobs.run(task, output=folder / "output")


def supervised(home: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        child = Child(name="gateway-0", command=("/bin/sh", "-c", "echo ada@example.org"), survives=False)
        supervisor = Supervisor(home, listener, [child], on_event=lambda *_: supervisor.stop(), drain_s=2.0)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        supervisor.run(reader)
        os.close(reader)
        os.close(writer)


@pytest.mark.usefixtures("open_umask")
def test_nothing_below_the_home_is_open_to_others_even_with_an_open_umask(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    with open_platform(home, environ={}) as platform:
        fill(platform, tmp_path)
    supervised(home)
    log = PredictionLog(
        home / "log" / "predictions", "gateway-0", now_us=lambda: 1, monotonic_s=lambda: 1.0, random=SeededRandom(),
        segment_bytes=1 << 20,
    )  # fmt: skip
    log.append(b"x" * 100)
    log.close()

    found = {str(path.relative_to(home)): path.lstat().st_mode for path in home.rglob("*")}
    public = "ledger"  # signed roots, without a word about anybody: read by whoever audits
    open_to_others = {
        name: oct(stat.S_IMODE(mode))
        for name, mode in found.items()
        if mode & (0o022 if name.split("/")[0] == public else 0o077)
    }

    assert {
        "taut.db",
        "online.db",
        "log/gateway-0.log",
        "run/supervisor.json",
        "jobs",
        "ledger/checkpoints",
    } <= set(found)
    assert open_to_others == {}


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o722])
def test_a_home_that_others_may_write_into_is_refused(tmp_path: Path, mode: int) -> None:
    """They could move `keys` away and put their own in its place, whatever the modes below are."""
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)

    with pytest.raises(Denied, match="chmod go-w"):
        connect(home)
    with pytest.raises(Denied, match="chmod go-w"):
        supervise(home, Address("127.0.0.1", 0), on_event=lambda *_: None, children=lambda _address: [])


def test_what_is_not_private_is_refused_and_not_repaired_behind_the_owners_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)

    with pytest.raises(Denied):
        connect(home)

    assert list(home.iterdir()) == []


def test_a_link_in_the_place_of_a_log_is_not_written_through(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "log").mkdir(parents=True, mode=0o700)
    (tmp_path / "victim").write_text("precious")
    (home / "log" / "gateway-0.log").symlink_to(tmp_path / "victim")

    supervised(home)  # the child is not started; a supervisor outlives a log that cannot be opened

    assert (tmp_path / "victim").read_text() == "precious"


# somebody with the owner's files: what is noticed


def test_a_private_key_store_answers_nobody_who_brings_his_own_keys(tmp_path: Path) -> None:
    """Whoever swaps the key store makes an installation that believes nothing that the old one signed."""
    home, other = tmp_path / "home", tmp_path / "other"
    with open_platform(home, environ={}) as platform:
        fill(platform, tmp_path)
        token, _ = platform.identity.create_token("app", ["predictor"], timedelta(minutes=1), actor="owner")
    with open_platform(other, environ={}) as platform:
        _ = platform.keys.public_keys(purpose="token")
    (home / "keys").rename(tmp_path / "stolen")
    (other / "keys").rename(home / "keys")

    with open_platform(home, environ={}) as platform:
        with pytest.raises(TautError):
            platform.identity.authenticate(token)
        with pytest.raises(TautError):
            platform.plans.bundle(platform.plans.require().bundle)
        assert not platform.ledger.verify().ok


def test_a_ledger_leaf_changed_in_the_database_is_noticed(tmp_path: Path) -> None:
    with open_platform(tmp_path / "home", environ={}) as platform:
        fill(platform, tmp_path)
        assert platform.ledger.verify().ok

        transact(
            platform.records, lambda tx: tx.exec_driver_sql("UPDATE ledger_leaves SET actor = 'somebody'")
        )

        assert not platform.ledger.verify().ok


def test_configuration_does_not_take_a_name_for_the_loopback(tmp_path: Path) -> None:
    sources = open_sources(Config(home=tmp_path, s3_endpoint="http://127.0.0.1.evil.example:9000"))

    assert isinstance(sources["s3"], S3Sources)
    assert sources["s3"]._options["client_options"] == {"allow_http": False}
