"""The seccomp filter, run by an interpreter of its instructions: what is refused, what is not, on both architectures."""

from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.adapters.sandbox import seccomp

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(
    architecture: str,
    number: int,
    argument: int = 0,
    *,
    seen: int | None = None,
    families: tuple[int, ...] = (),
) -> int:
    """Interpret the filter on one call and return its verdict. Source: seccomp(2), struct seccomp_data."""
    data = {
        0: number,
        4: ARCHITECTURES[architecture] if seen is None else seen,
        16: argument & 0xFFFFFFFF,
        20: argument >> 32,
    }
    lines = seccomp.program(architecture, families=families)
    accumulator, at = 0, 0
    while True:
        code, jump_true, jump_false, k = lines[at]
        at += 1
        if code == 0x20:
            accumulator = data[k]
        elif code == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x45: bool(accumulator & k), 0x35: accumulator >= k}[code]
            at += jump_true if holds else jump_false


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_call_of_the_list_is_refused_and_a_foreign_architecture_dies(architecture: str) -> None:
    column = 0 if architecture == "x86_64" else 1

    for name, numbers in seccomp._REFUSED.items():
        number = numbers[column]
        if number is not None:
            assert run(architecture, number) == EPERM, name
    assert run(architecture, 0, seen=0x40000003) == KILL


@given(number=st.integers(0, 600), argument=st.integers(0, 2**64 - 1))
def test_calls_that_nobody_named_are_allowed(number: int, argument: int) -> None:
    named = {numbers[0] for numbers in seccomp._REFUSED.values()} | {41, 56, 157, 435}

    if number not in named:
        assert run("x86_64", number, argument) == ALLOW


@pytest.mark.parametrize(
    "flag", [0x10000000, 0x40000000, 0x20000, 0x20000000, 0x8000000, 0x80, 0x2000000, 0x4000000]
)
def test_clone_makes_threads_and_processes_but_no_namespaces(flag: int) -> None:
    assert run("x86_64", 56, 0x3D0F00) == ALLOW  # what pthread_create asks
    assert run("x86_64", 56, 17) == ALLOW  # what fork asks
    assert run("x86_64", 56, 17 | flag) == EPERM
    assert run("x86_64", 435) == ENOSYS


def test_sockets_of_the_families_given_are_allowed_and_no_other() -> None:
    internet = (int(socket.AF_INET), int(socket.AF_INET6))

    assert run("x86_64", 41, int(socket.AF_INET6), families=internet) == ALLOW
    for family in (1, 16, 17, 31, 38, 40):  # unix, netlink, packet, bluetooth, alg, vsock
        assert run("x86_64", 41, family, families=internet) == EPERM
    assert run("x86_64", 41, int(socket.AF_INET), families=()) == EPERM


def test_the_promise_to_die_with_the_keeper_cannot_be_undone() -> None:
    assert run("x86_64", 157, 1) == EPERM
    assert run("x86_64", 157, 15) == ALLOW  # naming a thread


def test_numbers_of_the_x32_table_are_refused() -> None:
    assert run("x86_64", 0x40000000 | 101) == EPERM
