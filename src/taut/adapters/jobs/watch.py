"""Looking at a job from outside: what its processes use, and what they leave behind."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What a tree of processes uses now. memory_bytes: resident, shared pages counted once where the kernel says."""

    pids: tuple[int, ...]
    tasks: int
    memory_bytes: int


def look(root: int, *, exact_above_bytes: int) -> Use:
    """Look at `root` and everything below it.

    The cheap sum of resident sizes counts shared pages once for each process; above `exact_above_bytes` it is
    replaced by the kernel's proportional sizes.
    """
    if sys.platform != "linux":
        return _look_with_ps(root)
    pids = _tree(root)
    total = sum(_resident(pid) for pid in pids)
    if total > exact_above_bytes:
        total = sum(_proportional(pid) for pid in pids)
    return Use(pids=tuple(pids), tasks=sum(_tasks(pid) for pid in pids), memory_bytes=total)


def _tree(root: int) -> list[int]:
    found, queue = [root], [root]
    while queue and len(found) < 5000:
        parent = queue.pop()
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with suppress(OSError):
                    text = Path(f"/proc/{parent}/task/{task}/children").read_text()
                    children = [int(pid) for pid in text.split()]
                    found += children
                    queue += children
    return found


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _proportional(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return _resident(pid)
    return 0


def _tasks(pid: int) -> int:
    with suppress(OSError):
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    return 0


def _look_with_ps(root: int) -> Use:
    listed = subprocess.run(
        ["/bin/ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True, check=False, timeout=10
    )
    rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines() if len(line.split()) == 3]
    children: dict[int, list[int]] = {}
    for pid, parent, _ in rows:
        children.setdefault(parent, []).append(pid)
    resident = {pid: kib * 1024 for pid, _, kib in rows}
    found, queue = [root], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return Use(pids=tuple(found), tasks=len(found), memory_bytes=sum(resident.get(pid, 0) for pid in found))


def size_of(*folders: Path, entries_max: int = 100_000) -> int:
    """Return the bytes below `folders`, links not followed; more than `entries_max` entries count as endless."""
    total, entries = 0, 0
    queue = list(folders)
    while queue:
        with suppress(OSError), os.scandir(queue.pop()) as found:
            for entry in found:
                entries += 1
                if entries > entries_max:
                    return 2**63
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(Path(entry.path))
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def foreign_entries(folder: Path) -> list[str]:
    """Return what a job must not leave behind: links, sockets, devices, pipes, and files with a second name.

    Whoever reads the folder afterwards has rights that the job had not, so nothing in it may lead elsewhere.
    """
    found: list[str] = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if not (plain or stat.S_ISDIR(status.st_mode)):
                found.append(str(path.relative_to(folder)))
    return sorted(found)
