"""Namespaces of users, network, mounts, processes and IPC, entered without root where the kernel permits."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from taut.adapters.sandbox.syscalls import (
    LINUX,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    mount,
    prctl,
    unshare,
)

_NEW: Final = {
    "userns": 0x10000000, "netns": 0x40000000, "mountns": 0x00020000, "pidns": 0x20000000, "ipcns": 0x08000000,
}  # fmt: skip
# Tried in order: a container may permit some of them and not others.
_SETS: Final = (
    ("userns", "netns", "mountns", "pidns", "ipcns"),
    ("userns", "netns", "ipcns"),
    ("netns", "mountns", "pidns", "ipcns"),
    ("netns", "ipcns"),
    ("netns",),
)
_MS_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_MS_REC_PRIVATE: Final = 0x4000 | 0x40000


def enter_namespaces(*, processes: bool = True) -> tuple[str, ...]:
    """Enter as many new namespaces as the kernel permits and return their names.

    processes: one of processes too. Without it the caller may go on to make threads, and children that do not depend
    on the first of them.

    `pidns` holds for children that are forked afterwards, the first of which is its init: when it dies, the kernel
    kills everything inside. User and group ids stay what they were. Must be called while single-threaded.
    """
    if not LINUX:
        return ()
    uid, gid = os.geteuid(), os.getegid()
    for wanted in _SETS:
        names = tuple(name for name in wanted if processes or name != "pidns")
        flags = 0
        for name in names:
            flags |= _NEW[name]
        try:
            unshare(flags)
        except OSError:
            continue  # this set is not permitted here; the next is smaller
        if "userns" in names:
            # A map must be written by the process itself, and groups only after setgroups is denied (user_namespaces(7)).
            with suppress(FileNotFoundError):
                Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        return names
    return ()


def prepare_mounts(*, shm_bytes: int, max_tasks: int) -> tuple[str, ...]:
    """Inside new mount and process namespaces: a /proc of our own, a private /dev/shm, a bound on tasks.

    Returns the names of what held: `procfs`, `shm`, `task-limit`.
    """
    held: list[str] = []
    try:
        mount("none", "/", "", _MS_REC_PRIVATE)
    except OSError:
        return ()
    with suppress(OSError):
        mount("proc", "/proc", "proc", _MS_NOSUID_NODEV_NOEXEC)
        held.append("procfs")
    with suppress(OSError):
        mount("tmpfs", "/dev/shm", "tmpfs", _MS_NOSUID_NODEV_NOEXEC, f"size={shm_bytes},mode=0700")  # noqa: S108 - the mount point itself
        held.append("shm")
    if "procfs" in held:
        with suppress(OSError):  # per process namespace since Linux 6.14; before, the watcher counts
            if Path("/proc/self/ns/pid_for_children").exists():
                Path("/proc/sys/kernel/pid_max").write_text(str(max_tasks))
                held.append("task-limit")
    return tuple(held)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> bool:
    """Ask the kernel for a signal when the parent's thread ends; return whether it will.

    A change of credentials clears it: call it after namespaces were entered.
    """
    if not LINUX:
        return False
    try:
        prctl(PR_SET_PDEATHSIG, int(number))
    except OSError:  # refused by a filter that somebody else installed
        return False
    return True


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent dies, so that they can be found and ended; return whether it worked."""
    if not LINUX:
        return False
    try:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    except OSError:  # refused by a filter that somebody else installed
        return False
    return True
