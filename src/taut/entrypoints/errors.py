"""The one table of HTTP statuses and exit codes, by an error's stable code."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from taut.core.errors import (
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Denied,
    Exhausted,
    InvalidInput,
    NotFound,
    StepUp,
    TautError,
    Unauthenticated,
    Unavailable,
)

INTERNAL: Final = "internal"
"""Code of a failure that is ours: nothing that the caller sent explains it."""


class Answer(NamedTuple):
    """How an error looks from outside. rpc: the name of gRPC's status code."""

    status: int
    exit_code: int
    rpc: str


TABLE: Final[dict[str, Answer]] = {
    InvalidInput.code: Answer(400, 2, "INVALID_ARGUMENT"),
    NotFound.code: Answer(404, 3, "NOT_FOUND"),
    Denied.code: Answer(403, 4, "PERMISSION_DENIED"),
    Unauthenticated.code: Answer(401, 4, "UNAUTHENTICATED"),
    StepUp.code: Answer(401, 4, "UNAUTHENTICATED"),
    Conflict.code: Answer(409, 5, "ABORTED"),
    Exhausted.code: Answer(429, 6, "RESOURCE_EXHAUSTED"),
    Unavailable.code: Answer(503, 7, "UNAVAILABLE"),
    DeadlineExceeded.code: Answer(504, 7, "DEADLINE_EXCEEDED"),
    Corrupt.code: Answer(500, 8, "DATA_LOSS"),
    INTERNAL: Answer(500, 1, "INTERNAL"),
    # of the data plane
    "malformed": Answer(400, 2, "INVALID_ARGUMENT"),
    "too_large": Answer(413, 2, "RESOURCE_EXHAUSTED"),  # as gRPC itself says of a message beyond its bound
    "method_not_allowed": Answer(405, 3, "UNIMPLEMENTED"),
    "unsupported_encoding": Answer(415, 2, "UNIMPLEMENTED"),
    "bad_answer": Answer(503, 7, "UNAVAILABLE"),
    "not_admitted": Answer(503, 7, "UNAVAILABLE"),
}

DATA_PLANE: Final[dict[str, int]] = {
    **{code: answer.status for code, answer in TABLE.items()},
    InvalidInput.code: 422,  # well-formed, and against the signature; what is not even that has codes of its own
    Corrupt.code: 503,
}
"""HTTP statuses of the data plane; they differ from control's where a request is judged by a signature."""

GRPC: Final[dict[str, str]] = {code: answer.rpc for code, answer in TABLE.items()}
"""Names of gRPC's status codes."""

REJECTED: Final = 10
HELD: Final = 11


class TooLarge(InvalidInput):
    """The request has more bytes than are taken at once: send less."""

    code = "too_large"


_CLASSES: Final[dict[str, type[TautError]]] = {
    kind.code: kind
    for kind in (
        InvalidInput, NotFound, Denied, Unauthenticated, StepUp, Conflict, Exhausted, Unavailable, DeadlineExceeded, Corrupt,
        TooLarge,
    )
}  # fmt: skip


def answer_of(error: TautError) -> Answer:
    """Return how an error looks from outside; one with a code of its own looks like its nearest base."""
    codes = (getattr(kind, "code", "") for kind in type(error).__mro__)
    return next((TABLE[code] for code in codes if code in TABLE), TABLE[INTERNAL])


def status_of(error: TautError) -> int:
    return answer_of(error).status


def exit_code_of(error: TautError) -> int:
    return answer_of(error).exit_code


def retry_after(error: TautError) -> str | None:
    """Value of the `Retry-After` header, in whole seconds, for errors that waiting mends."""
    if isinstance(error, Exhausted | Unavailable):
        return str(max(1, math.ceil(error.retry_after_s)))
    return None


def document(code: str, message: str, request_id: str) -> dict[str, object]:
    """The shape of every error that leaves a process."""
    return {"error": {"code": code, "message": message, "request_id": request_id}}


class Internal(TautError):
    """Something in taut itself failed: look into the log under the request id, and report it."""

    code = INTERNAL


def from_document(code: str, message: str, *, retry_after_s: float = 1.0) -> TautError:
    """Make the error again that a process on the other side raised."""
    kind = _CLASSES.get(code, Internal)
    if issubclass(kind, Exhausted | Unavailable):
        return kind(message, retry_after_s=retry_after_s)
    return kind(message)


def exit_code_of_result(result: object) -> int:
    """Return 10 when a gate rejected, 11 when it holds, 0 otherwise.

    result: a JSON document; its `verdict` is a decision or an object with one, `rejected` marks a refused batch.
    """
    if not isinstance(result, dict):
        return 0
    verdict = result.get("verdict")
    decision = verdict.get("decision") if isinstance(verdict, dict) else verdict
    if decision == "reject" or result.get("rejected") is True:
        return REJECTED
    return HELD if decision == "hold" else 0
