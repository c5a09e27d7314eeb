"""What a process has to say: one JSON object a line, without secrets and without what people sent.

Of an unexpected failure its type and its places in the code are said, not its message: messages of others quote what
they were given. Words of our own errors and of the system stay, with what looks like a credential blotted out.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from taut.core.errors import TautError

MAX_TEXT: Final = 2000
_FRAMES: Final = 25
_CHAIN: Final = 5
_JOURNAL_BYTES: Final = 16 * 2**20
_BLOT: Final = "[secret]"
_SECRETS: Final = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*"),  # a token
    re.compile(r"\btaut_[0-9A-Za-z]+_[\w-]{6,}"),  # an API key
    re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*(?=@)"),  # user and password of a URL
    re.compile(r"(?i)(?<=bearer )[^\s,;\"']+"),
    re.compile(r"(?i)(?:password|passphrase|passwd|secret|api[_-]?key|authorization)[\w-]*[\"']?\s*[=:]\s*[\"']?[^\s\"',;&]+"),
)  # fmt: skip

Write = Callable[[str], object]


def clean(text: str) -> str:
    """Return a text with what looks like a credential blotted out, cut to a bound."""
    for pattern in _SECRETS:
        text = pattern.sub(_BLOT, text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


class Log:
    """Writes the lines of one process. Never raises: a full disk must not stop what works.

    process: who speaks. write: takes a whole line; standard error where none is given.
    """

    def __init__(self, process: str, write: Write | None = None) -> None:
        self._process: Final = process
        self._write: Final = write or _to_stderr
        self._lock: Final = threading.Lock()

    def info(self, event: str, **fields: Any) -> None:
        self._say("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._say("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._say("error", event, fields)

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """Say that something failed: an error of ours with its words, another with its type and its places."""
        self._say("error", event, {**fields, **_described(error)})

    def last_word(self, error: TautError) -> None:
        """Say why the process ends."""
        self._say("error", "ended", {"code": error.code, "message": error.message})

    def _say(self, level: str, event: str, fields: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        record = {"time": now, "level": level, "process": self._process, "event": clean(event)}
        record |= {name: _cleaned(value) for name, value in fields.items() if value is not None}
        with suppress(OSError, ValueError), self._lock:  # ValueError: the stream is closed at the very end
            self._write(json.dumps(record) + "\n")


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value if isinstance(value, int | float | bool | None) else clean(str(value))


def _described(error: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = {"error": type(error).__name__}
    if isinstance(error, TautError):
        found |= {"code": error.code, "message": error.message}
    elif isinstance(error, OSError):
        found["message"] = str(error)
    causes: list[str] = []
    places: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(causes) <= _CHAIN:
        causes.append(type(seen).__name__)
        places += _places(seen.__traceback__)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    if len(causes) > 1:
        found["causes"] = causes[1:]
    found["places"] = places[-_FRAMES:]
    return found


def _places(trace: TracebackType | None) -> list[str]:
    return [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.StackSummary.extract(
            traceback.walk_tb(trace), limit=-_FRAMES, lookup_lines=False
        )
    ]


def install(log: Log) -> None:
    """Send what libraries log, and what nobody caught, through `log` as well. For a process's own main."""
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # the first line of the template, without what it is filled with: that may be anything
            whole = record.getMessage() if record.name == "py.warnings" else str(record.msg)
            said = whole.partition("\n")[0]
            about = _described(record.exc_info[1]) if record.exc_info and record.exc_info[1] else {}
            say = log.error if record.levelno >= logging.ERROR else log.warning
            say("library", logger=record.name, said=said, **about)

    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [Handler(logging.WARNING)]
    root.setLevel(logging.WARNING)

    def uncaught(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        log.failure("crashed", error)

    def uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            log.failure("thread crashed", found.exc_value, thread=found.thread.name if found.thread else None)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread


class Journal:
    """A file that takes lines; opened with the first, so that its folder may be made meanwhile.

    Beyond 16 MiB it is put aside as `.log.1`, which replaces the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def __call__(self, line: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            if self._path.lstat().st_size > _JOURNAL_BYTES:
                self._path.replace(self._path.with_suffix(".log.1"))
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self._path, flags, 0o600), "a", encoding="utf-8") as file:
            file.write(line)
