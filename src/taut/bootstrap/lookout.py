"""The thread that reads the prediction log: beside the housekeeper, since that takes longer than its duties may wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

from taut.bootstrap.housekeeping import LogFailure
from taut.bootstrap.platform import Platform

if TYPE_CHECKING:  # it loads numpy
    from taut.workflows.abuse import Lookout
    from taut.workflows.monitor import Monitor

_EVERY_S: Final = 5.0
_PAUSE_S: Final = 60.0
_NOTICES_S: Final = 60.0


class LookoutThread:
    """Looks for abuse, watches models and tells of unusual acts every five seconds, either a minute after a failure, which is said. A context manager."""

    def __init__(self, platform: Platform, *, log: LogFailure) -> None:
        self._platform: Final = platform
        self._log: Final = log
        self._stop: Final = threading.Event()
        self._lookout: Lookout | None = None
        self._monitor: Monitor | None = None
        self._read, self._read_s = -1, float("-inf")
        self._thread: Final = threading.Thread(target=self._run, name="lookout", daemon=True)

    def __enter__(self) -> LookoutThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10.0)
        if self._monitor is not None and not self._thread.is_alive():
            self._try("keep what was seen of models", self._monitor.close)

    def _run(self) -> None:
        if self._stop.wait(_EVERY_S):  # libraries for tables are loaded when there is something to read
            return
        duties = (
            ("look for abuse in the prediction log", self._look),
            ("watch models", self._watch),
            ("tell what the ledger shows", self._tell),
        )
        due = dict.fromkeys((said for said, _ in duties), 0.0)
        now_s = self._platform.clock.monotonic_s
        while not self._stop.is_set():
            for said, duty in duties:
                if now_s() >= due[said]:
                    due[said] = now_s() + (0.0 if self._try(said, duty) else _PAUSE_S)
            self._stop.wait(_EVERY_S)

    def _try(self, said: str, duty: Callable[[], object]) -> bool:
        try:
            duty()
        except Exception as error:  # noqa: BLE001 - whatever fails here must not end the watch; it is said
            self._log(f"could not {said}, will try again", error)
            return False
        return True

    def _look(self) -> None:
        self._lookout = self._lookout or self._platform.watches.lookout(self._platform)
        self._lookout.look()

    def _tell(self) -> None:
        """Read the ledger for what people should look at, once a minute and only where there is something new in it."""
        platform, now_s = self._platform, self._platform.clock.monotonic_s()
        size = platform.ledger.size()
        if size != self._read and now_s >= self._read_s + _NOTICES_S:
            from taut.workflows.notices import tell

            tell(platform)
            self._read, self._read_s = size, now_s

    def _watch(self) -> None:
        self._monitor = self._monitor or self._platform.watches.monitor(self._platform)
        self._monitor.look()
