"""Renews the leases of the stories that run in this process; costs nothing while none does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from taut.adapters.stories.journal import Fenced, Journal
from taut.adapters.stories.run import Run
from taut.core.errors import TautError


class Leases:
    """A thread that lives while stories run and renews each lease at a third of its length."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._every_s = journal.lease_us / 3_000_000
        self._changed = threading.Condition()
        self._runs: dict[str, Run] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def renewing(self, run: Run) -> Iterator[None]:
        with self._changed:
            self._runs[run.id] = run
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew_all, name="story-leases", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._runs.pop(run.id, None)
                self._changed.notify_all()

    def _renew_all(self) -> None:
        while True:
            with self._changed:
                # Many short stories in a row share one thread: it ends only after a while without any.
                self._changed.wait_for(lambda: not self._runs, timeout=self._every_s)
                if not self._runs and not self._changed.wait_for(
                    lambda: bool(self._runs), timeout=self._every_s
                ):
                    self._thread = None
                    return
                runs = list(self._runs.values())
            for run in runs:
                self._renew(run)

    def _renew(self, run: Run) -> None:
        try:
            self._journal.insist(lambda tx: self._journal.hold(tx, run.claim), patient=False)
        except Fenced:
            run.lost = True
        except TautError:
            return  # the next round tries again; the run asks for itself when its lease grows old
        else:
            run.renewed()
