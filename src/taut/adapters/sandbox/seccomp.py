"""A seccomp filter: system calls that a job never needs are refused with EPERM, whatever it runs.

A list of refusals and not of permissions, since numerical libraries use hundreds of calls; Landlock, namespaces and
dropped capabilities are the walls, this closes doors in them (keyrings, ptrace, io_uring, sockets of any family).
"""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from taut.adapters.sandbox.syscalls import LINUX, PR_SET_PDEATHSIG, PR_SET_SECCOMP, machine, prctl

_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name -> number on (x86_64, aarch64); None where that architecture has no such call
_REFUSED: Final[dict[str, tuple[int | None, int]]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "mount_setattr": (442, 442), "move_mount": (429, 429), "open_tree": (428, 428),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "setns": (308, 268), "unshare": (272, 97), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "open_by_handle_at": (304, 265),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "fanotify_init": (300, 262),
    "sched_setaffinity": (203, 122),
}  # fmt: skip
# Of a process that is to stay alone: no further process, none adjusted, nothing that is left when it is gone.
_ALONE: Final[dict[str, tuple[int | None, int | None]]] = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "tkill": (200, 130),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "setpriority": (141, 140),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
}  # fmt: skip
# … and these with its own number only, the first argument of each.
_OWN: Final[dict[str, tuple[int, int]]] = {
    "kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
}  # fmt: skip
# … and no descriptor whose events signal somebody else: commands of these, their second argument.
_SIGNALLING: Final[dict[str, tuple[int, int, tuple[int, ...]]]] = {
    "fcntl": (72, 25, (8, 10, 15)), "ioctl": (16, 29, (0x8901, 0x8902)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP
}  # fmt: skip
_CLONE_THREAD: Final = 0x10000
_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_CLONE3: Final = 435
_SOCKET: Final = {"x86_64": 41, "aarch64": 198}
_PRCTL: Final = {"x86_64": 157, "aarch64": 167}
_NEW_NAMESPACES: Final = 0x7E020080  # every CLONE_NEW* flag that clone(2) takes, CLONE_NEWTIME included

_LOAD, _JUMP_EQUAL, _JUMP_SET, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_true", ctypes.c_uint8),
        ("jump_false", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def program(
    architecture: str, *, families: tuple[int, ...], alone: int | None = None
) -> list[tuple[int, int, int, int]]:
    """Return the filter as (code, jump_true, jump_false, k) instructions.

    families: address families that socket(2) may still make; socketpair stays possible, it reaches nobody else. alone: the
    process that is to make, signal and adjust no other; None for one that may.
    """
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    lines: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, _ARCH[architecture]),
        (_RETURN, 0, 0, _KILL),  # a 32-bit call would have other numbers
        (_LOAD, 0, 0, 0),
    ]
    if architecture == "x86_64":
        lines += [(_JUMP_GREATER_EQUAL, 0, 1, 0x40000000), refuse]  # x32 numbers
    column = 0 if architecture == "x86_64" else 1
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            lines += [(_JUMP_EQUAL, 0, 1, number), refuse]
    # clone3 hides its flags behind a pointer; ENOSYS makes the C library fall back to clone.
    lines += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    thread = [] if alone is None else [(_JUMP_SET, 1, 0, _CLONE_THREAD), refuse]
    lines += [(_JUMP_EQUAL, 0, 4 + len(thread), _CLONE[architecture]), (_LOAD, 0, 0, 16)]
    lines += [(_JUMP_SET, 0, 1, _NEW_NAMESPACES), refuse, *thread, (_RETURN, 0, 0, _ALLOW)]
    if alone is not None:
        lines += _stay_alone(column, alone, refuse)
    # A job must not undo the promise that it dies with its keeper.
    lines += [(_JUMP_EQUAL, 0, 4, _PRCTL[architecture]), (_LOAD, 0, 0, 16)]
    lines += [(_JUMP_EQUAL, 0, 1, PR_SET_PDEATHSIG), refuse, (_RETURN, 0, 0, _ALLOW)]
    lines += [(_JUMP_EQUAL, 0, 2 + 2 * len(families), _SOCKET[architecture]), (_LOAD, 0, 0, 16)]
    for family in families:
        lines += [(_JUMP_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    lines += [refuse, (_RETURN, 0, 0, _ALLOW)]
    return lines


def _stay_alone(column: int, pid: int, refuse: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    lines: list[tuple[int, int, int, int]] = []
    for numbers in _ALONE.values():
        number = numbers[column]
        if number is not None:
            lines += [(_JUMP_EQUAL, 0, 1, number), refuse]
    allow = (_RETURN, 0, 0, _ALLOW)
    for name, own in _OWN.items():
        # for prlimit64 zero is the caller; for the others it is a whole group, or nobody
        itself = [(_JUMP_EQUAL, 1, 0, 0)] if name == "prlimit64" else []
        lines += [(_JUMP_EQUAL, 0, 4 + len(itself), own[column]), (_LOAD, 0, 0, 16), *itself]
        lines += [(_JUMP_EQUAL, 0, 1, pid), allow, refuse]
    for *own_number, commands in _SIGNALLING.values():
        tests = [line for one in commands for line in ((_JUMP_EQUAL, 0, 1, one), refuse)]
        lines += [(_JUMP_EQUAL, 0, 2 + len(tests), own_number[column]), (_LOAD, 0, 0, 24), *tests, allow]
    return lines


def install(*, families: tuple[int, ...], alone: int | None = None) -> bool:
    """Install the filter for this process and its children; return whether the kernel took it.

    Needs no_new_privs to be set, and a single thread.
    """
    if not LINUX or machine() not in _ARCH:
        return False
    lines = program(machine(), families=families, alone=alone)
    instructions = (_Instruction * len(lines))(*[_Instruction(*line) for line in lines])
    filter_ = _Program(len(lines), ctypes.cast(instructions, ctypes.POINTER(_Instruction)))
    try:
        prctl(PR_SET_SECCOMP, 2, ctypes.byref(filter_))
    except OSError:
        return False
    return True
