"""How a member's own pace is judged, by which its lane lets those go that have become slow."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess

from taut.serving.workers.member import Member

EXPECTED_S = 0.001


def ratio_after(*took_s: float) -> float:
    """Return the ratio of a member after batches that took so long."""

    async def run() -> float:
        here, there = socket.socketpair()
        with there:
            member = Member(
                here, os.getpid(), answer_width=1, on_frame=lambda *_: None, on_gone=lambda *_: None
            )
            for took in took_s:
                member.sent_s = 0.0
                member.done(EXPECTED_S, took)
            asyncio.get_running_loop().remove_reader(here.fileno())
            here.close()
        return member.ratio

    return asyncio.run(run())


def test_one_that_stood_still_once_with_its_machine_is_not_taken_for_slow() -> None:
    assert ratio_after(*[EXPECTED_S] * 20, 5.0) < 2


def test_one_that_has_become_slow_is_found_within_a_few_batches() -> None:
    assert ratio_after(*[EXPECTED_S] * 20, *[10 * EXPECTED_S] * 10) > 4
    assert ratio_after(*[EXPECTED_S] * 20, *[1.0] * 8) > 4


def test_what_it_takes_of_memory_is_read_while_it_lives_and_nothing_of_that_stays_open() -> None:
    async def run() -> tuple[int, int]:
        here, there = socket.socketpair()
        with there, subprocess.Popen(["sleep", "60"]) as process:
            member = Member(
                here, process.pid, answer_width=1, on_frame=lambda *_: None, on_gone=lambda *_: None
            )
            while not (found := member.memory_bytes()):  # until the fork has become what it runs
                await asyncio.sleep(0)
            member.end("is not needed any more")
            process.wait()
            return found, member.memory_bytes()

    before = len(os.listdir("/proc/self/fd"))
    alive, dead = asyncio.run(run())

    assert 2**12 <= alive < 2**28
    assert dead == 0
    assert len(os.listdir("/proc/self/fd")) == before
