"""The thread that looks for abuse: beside the housekeeper, since reading a log takes longer than its duties may wait."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Final

from taut.bootstrap.housekeeping import LogFailure
from taut.bootstrap.platform import Platform

if TYPE_CHECKING:  # it loads numpy
    from taut.workflows.abuse import Lookout

_EVERY_S: Final = 5.0
_PAUSE_S: Final = 60.0


class LookoutThread:
    """Looks every five seconds, and a minute after a failure, which is said. A context manager."""

    def __init__(self, platform: Platform, *, log: LogFailure) -> None:
        self._platform: Final = platform
        self._log: Final = log
        self._stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="lookout", daemon=True)

    def __enter__(self) -> LookoutThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        if self._stop.wait(_EVERY_S):  # libraries for tables are loaded when there is something to read
            return
        lookout: Lookout | None = None
        while not self._stop.is_set():
            pause_s = _EVERY_S
            try:
                lookout = lookout or self._platform.watches.lookout(self._platform)
                lookout.look()
            except Exception as error:  # noqa: BLE001 - whatever fails here must not end the watch; it is said
                self._log("could not look for abuse in the prediction log, will try again", error)
                pause_s = _PAUSE_S
            self._stop.wait(pause_s)
