"""The order in which a process gives up its rights, and the report of which it really gave up."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from taut.adapters.sandbox import landlock, seccomp
from taut.adapters.sandbox.syscalls import (
    LINUX,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    prctl,
)

# What the dynamic linker, the C library, time zones and CPU detection read. Nothing of the user's.
_SYSTEM: Final = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
    "/usr/share/zoneinfo", "/etc/ssl/openssl.cnf", "/sys/devices/system/cpu", "/sys/devices/system/node",
    "/nix/store",
)  # fmt: skip
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")
_PROC_WITHOUT_NAMESPACE: Final = (
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/version",
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a confined process may still do.

    readable, writable: files and folders, besides Python's own. memory_bytes, file_bytes: of one process and one
    file, the hard stop behind whoever watches the tree. cpu_seconds: of one process. max_tasks: processes and threads.
    cpus: the processors that it may run on; empty leaves them as they are. alone: it makes no other process, only threads, and
    signals and adjusts none; for who shares a process namespace with others. nice: how far it stands back for others that
    want the same processor, 0 to 19. devices: nodes of accelerators, and what their drivers read.
    """

    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    memory_bytes: int
    file_bytes: int
    cpu_seconds: int
    max_tasks: int = 1024
    max_files: int = 1024
    cpus: tuple[int, ...] = ()
    alone: bool = False
    nice: int = 0
    devices: tuple[str, ...] = ()


def confine(rules: Rules, *, entered: tuple[str, ...]) -> tuple[str, ...]:
    """Give up everything but `rules`, for ever, and return the names of what holds, `entered` first.

    entered: what `enter_namespaces` and `prepare_mounts` returned. Call it with one thread and no open file that the
    code to come must not have.
    """
    held = [*entered, "rlimits"]
    _set_limits(rules, in_user_namespace="userns" in entered)
    if rules.cpus and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, rules.cpus)
            held.append("cpu-affinity")
    if rules.nice:
        os.nice(rules.nice)
        held.append("nice")
    if not LINUX:
        return tuple(held)
    with suppress(OSError):  # the first to go when the machine itself runs out
        Path("/proc/self/oom_score_adj").write_text("900")
    if _drop_capabilities():
        held.append("no-capabilities")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    held.append("no-new-privs")
    version = landlock.restrict(_paths(rules, entered))
    if version:
        held.append(f"landlock-{version}")
    # In a network namespace of its own even the loopback interface is down, so internet sockets reach nobody.
    families = (int(socket.AF_INET), int(socket.AF_INET6)) if "netns" in entered else ()
    if seccomp.install(families=families, alone=os.getpid() if rules.alone else None):
        held.append("seccomp")
    return tuple(held)


def _paths(rules: Rules, entered: tuple[str, ...]) -> list[tuple[Path, int]]:
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, sysconfig.get_path("stdlib")}
    python |= {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    package = str(
        Path(__file__).parents[2]
    )  # taut itself, also where it is installed as a link to its source
    allowed = [(Path(path), landlock.READ_AND_RUN) for path in (*sorted(python), package, *_SYSTEM)]
    allowed += [(Path(path), landlock.READ_FILE | landlock.WRITE_FILE) for path in _DEVICES]
    allowed += [(Path(path).resolve(), landlock.READ) for path in rules.readable]
    allowed += [(Path(path).resolve(), landlock.WRITE) for path in rules.writable]
    allowed += [(Path(path), landlock.DEVICE) for path in rules.devices]
    proc = ("/proc",) if "procfs" in entered else _PROC_WITHOUT_NAMESPACE
    allowed += [(Path(path), landlock.READ) for path in proc]
    if "shm" in entered:
        allowed.append((Path("/dev/shm"), landlock.WRITE))  # noqa: S108 - a private one, mounted for this process
    return allowed


def _set_limits(rules: Rules, *, in_user_namespace: bool) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: rules.file_bytes,
        resource.RLIMIT_NOFILE: rules.max_files,
        resource.RLIMIT_CPU: rules.cpu_seconds,
    }
    if LINUX:
        # Of private writable memory, reserved or not; the address space itself says nothing about use.
        limits[resource.RLIMIT_DATA] = rules.memory_bytes
    if in_user_namespace:  # elsewhere it would count the user's other processes too
        limits[resource.RLIMIT_NPROC] = rules.max_tasks
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (bounded, bounded))


def _drop_capabilities() -> bool:
    """Empty every capability set of this process; return whether all of them are empty now."""
    for capability in range(64):
        with suppress(OSError):  # past the last one, or not ours to drop
            prctl(PR_CAPBSET_DROP, capability)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.capset(ctypes.byref(header), ctypes.byref(data)) == 0)
