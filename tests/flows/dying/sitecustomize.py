"""Loaded at the start of a Python process that is to die: it counts edges and kills at the one that is asked for.

Only where a test put this folder on PYTHONPATH; nothing of the product knows it. Edges are the moments just before and
just after an effect becomes durable: a commit that changed a database, a file that is moved or linked into place.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_APART = ("housekeeper", "story-leases")
"""Threads that work by the clock: their edges are counted apart, so that those of a command are the same each time."""
_lock = threading.Lock()


class Edges:
    """Counts what this process passes since it was armed.

    The file `armed` says whose edges count, at which of them to kill, which process (0: this one), and the arming.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self._folder = folder
        self._role = role
        self._arming = ""
        self._passed = 0

    def __call__(self, what: str) -> None:
        try:
            arming = (self._folder / "armed").read_text()
        except FileNotFoundError:
            return
        thread = threading.current_thread().name
        here = thread if thread in _APART else self._role
        role, edge, victim, _ = arming.split()
        if role != here:
            return
        with _lock:
            self._passed = 1 if arming != self._arming else self._passed + 1
            self._arming = arming
            self._say(f"{self._passed} {what}")
            if self._passed == int(edge):
                _rename(self._folder / "armed", self._folder / "fired")  # who comes after it lives
                os.kill(int(victim) or os.getpid(), signal.SIGKILL)

    def _say(self, line: str) -> None:
        descriptor = os.open(self._folder / "passed", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


class Watched(sqlite3.Connection):
    """A connection whose commits are edges, where they change something."""

    edges: Callable[[str], None]
    changes = 0
    name = ""

    def commit(self) -> None:
        self._committing(super().commit)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        done: list[sqlite3.Cursor] = []
        if sql != "COMMIT":
            return super().execute(sql, *parameters)
        self._committing(lambda: done.append(super(Watched, self).execute(sql)))
        return done[0]

    def _committing(self, commit: Callable[[], object]) -> None:
        if self.total_changes == self.changes or not self.in_transaction:
            commit()
            return
        self.edges(f"before the commit to {self.name}")
        commit()
        self.changes = self.total_changes
        self.edges(f"after the commit to {self.name}")


_connect = sqlite3.connect
_rename = os.rename


def _install(edges: Callable[[str], None]) -> None:
    def connect(database: Any, *rest: Any, **more: Any) -> sqlite3.Connection:
        connection: Watched = _connect(database, *rest, **{**more, "factory": Watched})
        connection.name = os.path.basename(os.fspath(database)).partition("?")[0]
        connection.edges = edges
        return connection

    def around(name: str) -> None:
        real = getattr(os, name)

        def moved(source: Any, target: Any, **more: Any) -> Any:
            what = f"{name} to {os.path.basename(os.path.dirname(os.fspath(target)))}"
            edges(f"before the {what}")
            result = real(source, target, **more)
            edges(f"after the {what}")
            return result

        setattr(os, name, moved)

    for module in (sqlite3, sqlite3.dbapi2):
        setattr(module, "connect", connect)  # noqa: B010 - another type than the real one, which is overloaded
    for name in ("replace", "rename", "link"):
        around(name)


def _role(words: list[str]) -> str:
    line = " ".join(words)
    for name in ("control", "gateway"):
        if f"taut.entrypoints.{name}_" in line:  # gateway_zygote too: what it forks is a gateway
            return name
    return "supervisor" if "up" in words else "command"


if "DYING" in os.environ:
    _install(Edges(Path(os.environ["DYING"]), _role(sys.orig_argv)))
