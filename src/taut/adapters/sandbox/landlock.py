"""Landlock: a process gives up the file system but for what it names. Source: landlock(7), kernel 5.13 and later."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from taut.adapters.sandbox.syscalls import LINUX, syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_O_PATH: Final = 0o10000000

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
MAKE_SOCK, REFER, TRUNCATE, IOCTL_DEV = 1 << 9, 1 << 13, 1 << 14, 1 << 15

_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ: Final = READ_FILE | READ_DIR
READ_AND_RUN: Final = READ | EXECUTE
DEVICE: Final = READ | EXECUTE | WRITE_FILE | IOCTL_DEV
# No links, sockets, devices: whoever reads the folder afterwards must not be led elsewhere.
WRITE: Final = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """Return the version of Landlock that the kernel offers, 0 where there is none."""
    if not LINUX:
        return 0
    try:
        return syscall(_CREATE_RULESET, 0, 0, 1)
    except OSError:
        return 0


def restrict(allowed: Iterable[tuple[Path, int]]) -> int:
    """Give up every file, TCP port, abstract socket and foreign process but `allowed`; return the ABI, 0 when absent.

    allowed: paths with their rights, of which those that the kernel does not know are left out; paths that do not
    exist are skipped. Needs no_new_privs to be set. Irreversible, inherited by children.
    """
    version = abi()
    if version == 0:
        return 0
    handled_fs = (1 << 13) - 1
    handled_fs |= (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    handled_fs |= IOCTL_DEV if version >= 5 else 0
    ruleset = _Ruleset(handled_fs, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    descriptor = syscall(_CREATE_RULESET, ctypes.byref(ruleset), size, 0)
    try:
        for path, rights in allowed:
            _allow(descriptor, path, rights & handled_fs)
        syscall(_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)
    return version


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, _O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return  # nothing there to be allowed
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = _PathBeneath(rights, descriptor)
        syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)
