"""Processes that a supervisor keeps: how one ended that was forked for it, and orphans that fall to it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from taut.entrypoints.children import Child, Running, alive, filled

ORPHANS = """
import os, time
from taut.bootstrap.sandbox import adopt_orphans
from taut.entrypoints.children import reap_strays

assert adopt_orphans()
line, told = os.pipe()
own = os.fork()
if own == 0:
    os._exit(3)
between = os.fork()
if between == 0:
    if os.fork():
        os._exit(0)
    os.write(told, os.getpid().to_bytes(4, "little"))
    os._exit(4)
orphan = int.from_bytes(os.read(line, 4), "little")
while "Z" not in {open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] for pid in (own,)}:
    time.sleep(0.001)
os.waitpid(between, 0)
reap_strays({own})          # own comes first, and is left to whoever waits for it
assert os.waitpid(own, 0)[1] == 3 << 8
while os.path.exists(f"/proc/{orphan}"):
    reap_strays({own})
"""


def forked(script: str) -> Running:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", script], {})
    return Running(pid, forked=True, started=alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="orphans fall to nobody else there")
def test_orphans_that_ended_are_let_go_and_own_children_are_left_to_whoever_waits_for_them() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


def test_one_that_was_forked_tells_its_end_as_often_as_it_is_asked() -> None:
    quiet, killed = forked("exit 7"), forked("kill -9 $$")
    for one in (quiet, killed):
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)

    assert [one.ended() for one in (quiet, quiet, killed)] == ["exit 7", "exit 7", "killed by SIGKILL"]
    assert not quiet.adopted


def test_one_that_is_not_ours_yet_is_judged_by_whether_it_lives() -> None:
    parent = os.getppid()

    assert Running(parent, forked=True, started=alive(parent)).ended() is None
    assert Running(parent, forked=True, started="1").ended() == "gone"


def test_a_command_names_the_descriptors_that_its_process_has() -> None:
    child = Child("gateway-0", ("python", "--fd", "{listener}", "{ready}", "--name", "a{b}"), survives=True)

    assert filled(child.command, {"listener": 3, "ready": 9}) == [
        "python",
        "--fd",
        "3",
        "9",
        "--name",
        "a{b}",
    ]
