"""Errors, named by what the caller can do about them.

Each class carries a stable `code`; the message says what, which, and what to do. HTTP statuses and exit
codes are assigned in one table in `taut.entrypoints`, never here.
"""

from __future__ import annotations

from typing import ClassVar


class TautError(Exception):
    """Base of everything that taut raises on purpose. Never raised itself.

    message: text that UTF-8 can carry, so that it can be recorded and sent; a byte of a file name that is no text
    (half a surrogate in Python) is written as an escape.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str) -> None:
        self.message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(self.message)


class InvalidInput(TautError):
    """The request is wrong as it stands: change it. Retrying cannot help."""

    code = "invalid_input"


class NotFound(TautError):
    """No such thing: check the name, or list what there is."""

    code = "not_found"


class Conflict(TautError):
    """The state is not the one that the request assumed: read it again, then decide again."""

    code = "conflict"


class Denied(TautError):
    """The caller may not do this: ask for the right, or act as somebody who has it."""

    code = "denied"


class Unauthenticated(Denied):
    """No valid identity came with the request: sign in or renew the token."""

    code = "unauthenticated"


class StepUp(Unauthenticated):
    """The identity is right, but was proved too long ago for this: sign in again, then repeat it."""

    code = "step_up"


class Exhausted(TautError):
    """A quota or a bound is used up: wait `retry_after_s`, or ask for more."""

    code = "exhausted"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(TautError):
    """Something that taut needs does not answer now: retry with backoff."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(Unavailable):
    """The caller's deadline passed before the answer was ready: allow more time, or send less."""

    code = "deadline_exceeded"


class Corrupt(TautError):
    """Stored bytes are not what was written: restore them; nothing was served from them."""

    code = "corrupt"
