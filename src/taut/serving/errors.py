"""Errors of the data plane that the rest of taut has no word for."""

from __future__ import annotations

from typing import ClassVar

from taut.core.errors import InvalidInput, NotFound, TautError, Unavailable


class Malformed(InvalidInput):
    """The request is not even well-formed: mend the client."""

    code: ClassVar[str] = "malformed"


class TooLarge(InvalidInput):
    """The request is beyond a bound of the gateway: send less at once."""

    code: ClassVar[str] = "too_large"


class UnsupportedEncoding(InvalidInput):
    """The body is compressed in a way that the gateway does not read: use one that is named."""

    code: ClassVar[str] = "unsupported_encoding"


class BadAnswer(Unavailable):
    """The model answered what its signature rules out, so the answer was not passed on: roll the model back."""

    code: ClassVar[str] = "bad_answer"


class WorkerLost(Unavailable):
    """The process that scored this request died over it: try again."""


class MethodNotAllowed(NotFound):
    """The path is right and the method is not: use the one that is named."""

    code: ClassVar[str] = "method_not_allowed"


class Internal(TautError):
    """Something in taut itself failed."""

    code: ClassVar[str] = "internal"

    def __init__(self) -> None:
        super().__init__("something failed in the gateway itself: look into its log under this request id")


class Shed(Unavailable):
    """There is more to do than can be done in time: come back when it says."""


class BreakerOpen(Unavailable):
    """What is needed failed too often of late and is left alone for a moment: try again when it says."""


class MissingFeature(InvalidInput):
    """A feature that the model cannot do without has no value for this row."""


class FeaturesLost(Unavailable):
    """Features cannot be read now: try again."""


class NotAdmitted(Unavailable):
    """The process that was asked has no leave to serve now: another may have; try again shortly."""

    code: ClassVar[str] = "not_admitted"
