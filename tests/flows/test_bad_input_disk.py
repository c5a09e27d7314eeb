"""A disk that is full, at several levels and in every kind of write: said with a code, and gone when there is room."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installation import ORDER, Asking, Installation, Up, assert_clear, logged_ids
from test_bad_input_data import file_of, rows

from processes import children
from taut.entrypoints.templates import PROJECT

KIB = 1024


class Disk:
    """A small file system of its own, which can be filled and emptied again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, leave: int) -> None:
        """Leave so many bytes; called again, it takes what became free meanwhile."""
        found = os.statvfs(self.folder)
        with self._ballast.open("ab") as file:
            more = found.f_bavail * found.f_frsize - leave
            if more > 0:
                with contextlib.suppress(OSError):  # others took it first
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), more)

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192m,mode=0755", "none", str(folder)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this user may not mount a small disk: the limit on files below stands in for it")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def shop(released_template: Installation, disk: Disk) -> Installation:
    """An installation that lies on the small disk, with its temporary files."""
    made = released_template.copy_to(disk.folder / "shop")
    made.write("project.py", PROJECT.replace("max_bad_fraction=0.02", "max_bad_fraction=0.03"))
    made.write("more.csv", file_of(rows(20_000)))
    return made


INGEST = ("data", "ingest", "orders", "--from", "more.csv")
CASES: dict[str, tuple[tuple[str, ...], tuple[int, ...], Callable[[Installation], object]]] = {
    # name: (the command, bytes that the disk has left, what must be so after it was done at last)
    "ingest": (INGEST, (0, 64 * KIB, 112 * KIB), lambda shop: shop("data", "show", "orders")["rows"] == 25_981),
    "apply": (("apply",), (0, 24 * KIB, 56 * KIB), lambda shop: len(shop("plan", "history")["plans"]) == 2),
    "release": (
        ("release", "start", "late", "1"), (0, 32 * KIB),
        lambda shop: [r["state"] for r in shop("release", "history", "late")["releases"]] == ["live", "replaced"],
    ),
    "materialize": (
        ("features", "materialize", "load"), (0, 24 * KIB),
        lambda shop: shop("features", "show", "load")["online"]["unfinished"] == [],
    ),
    "approve": (
        ("user", "add", "ada", "--role", "builder"), (0,),
        lambda shop: [user["id"] for user in shop("user", "list")["users"]].count("ada") == 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_full_disk_refuses_with_a_code_loses_nothing_and_all_goes_on_when_it_is_free(
    shop: Installation, disk: Disk, case: str
) -> None:
    words, levels, done = CASES[case]

    for leave in levels:
        disk.fill(leave=leave)
        message = shop.refused(*words, exit_code=7, code="unavailable")
        assert "room" in message or "full" in message, (leave, message)
        disk.free()
        assert shop("data", "show", "orders")["snapshot"] == "orders@1"
    told = shop.told(*words)

    assert told.code == 0, told
    assert done(shop)
    assert shop("ledger", "verify")["ok"] is True


def test_a_release_that_a_full_disk_interrupts_is_finished_by_the_next_command(
    shop: Installation, disk: Disk
) -> None:
    disk.fill(leave=196 * KIB)
    refused = shop.process("release", "start", "late", "1")
    disk.free()

    shop.done("release", "start", "late", "1")

    assert (refused.code, refused.error[0]) == (7, "unavailable"), refused
    states = [release["state"] for release in shop("release", "history", "late")["releases"]]
    assert states == ["live", "replaced", "replaced"]
    assert shop("ledger", "verify")["ok"] is True


def test_a_training_that_finds_no_room_says_so_and_leaves_no_run_running(
    shop: Installation, disk: Disk
) -> None:
    (disk.folder / "tmp").mkdir(mode=0o700)
    scratch = shop.home / "tmp"
    scratch.rmdir()
    scratch.symlink_to(disk.folder / "tmp")
    disk.fill(leave=8 * KIB)
    told = shop.process("train", "late")
    disk.free()
    scratch.unlink()

    if told.code == 7:
        message = told.error[1]
    else:  # the job itself met it: the run says why it failed
        assert (told.code, told.document["state"]) == (10, "failed"), told
        message = told.document["error"]
    assert "room" in message or "full" in message
    assert_clear(message)
    assert "running" not in {run["state"] for run in shop("run", "list")["runs"]}
    assert [version["version"] for version in shop("model", "list")["versions"]] == ["late@1"]
    assert shop("ledger", "verify")["ok"] is True


def test_a_platform_on_a_full_disk_sheds_what_it_cannot_record_and_recovers_by_itself(
    shop: Installation, disk: Disk
) -> None:
    with shop.up() as up:
        bearer = up.token()
        with Asking(up, bearer) as asking:
            asking.more(20)
            for _ in range(
                4
            ):  # what the platform lets go of meanwhile, the log of its database say, is taken too
                disk.fill(leave=0)
                time.sleep(0.3)
            disk.fill(leave=0)
            assert shop.process(*INGEST).error[0] == "unavailable"
            up.kill("control")
            until_shed(up, asking, disk)
            assert up.process is not None
            assert up.process.poll() is None
            disk.free()
            up.await_ready()
            asking.more(20)
            assert shop.done(*INGEST)["rows"] == 20_000
    # a gateway that starts while control cannot write anything is not admitted; another may have said that its log is full
    assert {code for _, code in asking.refused} <= {"unavailable", "not_admitted"}
    assert {status for status, _ in asking.refused} == {503}
    assert set(asking.answered) <= logged_ids(shop.home)
    assert shop("ledger", "verify")["ok"] is True


def until_shed(up: Up, asking: Asking, disk: Disk) -> None:
    """Kill the gateway, and take the room that its spare segment gives back, until a successor has none.

    A successor that was quicker than we holds a whole segment and answers for minutes; but it got no spare, so that
    the next one finds nothing. It is found among the processes: its pid cannot be written on a full disk.
    """
    deadline = time.monotonic() + 90
    while not asking.refused:
        for pid in children(up.pid("supervisor")):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if b"gateway_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        again = (
            time.monotonic() + 20
        )  # without control it lets those who connect wait for three seconds first
        while not asking.refused and time.monotonic() < again:
            assert time.monotonic() < deadline, "the gateway did not shed"
            disk.fill(leave=0)
            time.sleep(0.005)


LIMITED: dict[str, tuple[str, ...]] = {
    "ingest": INGEST,
    "apply": ("apply",),
    "release": ("release", "start", "late", "1"),
    "predict": ("predict", "late", "--data", str(ORDER).replace("'", '"')),
    "init": ("init", "other"),
}


@pytest.mark.parametrize("case", LIMITED)
def test_a_limit_on_files_is_as_a_full_disk(released: Installation, case: str) -> None:
    """Where no small disk can be mounted, this is the one that shows it: no file may grow beyond 4 KiB."""
    released.write("project.py", PROJECT.replace("max_bad_fraction=0.02", "max_bad_fraction=0.03"))
    released.write("more.csv", file_of(rows(2_000)))

    # Python takes bytecode that was cut for whole ever after: it shall write none here.
    limit = ("env", "PYTHONDONTWRITEBYTECODE=1", "prlimit", "--fsize=4096")

    told = released.process(*LIMITED[case], within=limit)

    assert (told.code, told.error[0]) == (7, "unavailable"), told
    assert_clear(told.error[1])
    assert released.told(*LIMITED[case]).code == 0
    assert released("ledger", "verify")["ok"] is True
