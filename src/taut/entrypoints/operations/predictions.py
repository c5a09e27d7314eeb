"""Operations that read the prediction log."""

from __future__ import annotations

from collections import deque
from typing import Final

from taut.core.errors import InvalidInput
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)
from taut.serving.predictions import TAKEN

_LIMIT: Final = 100_000


class PredictionRecorded(Request, frozen=True):
    """limit: the newest requests, at most so many, in order of time."""

    endpoint: str
    limit: int = 10_000


def _recorded(platform: Platform, _caller: Caller, request: PredictionRecorded, progress: Progress) -> Json:
    """Requests as they were sent, without who sent them, but with a number that tells one caller from another in this answer.

    Those that were refused before they were read are not among them.
    """
    if not 1 <= request.limit <= _LIMIT:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to {_LIMIT}")
    progress("reading the prediction log", None)
    newest = deque(
        (
            (record.time_us, record)
            for record in platform.predictions.records()
            if record.head.endpoint == request.endpoint and record.rows and record.status != TAKEN
        ),
        maxlen=request.limit,
    )
    found = sorted(newest, key=lambda item: item[0])
    numbers: dict[str, int] = {}
    requests = [
        {
            "at_us": at,
            "caller": numbers.setdefault(record.principal, len(numbers)),
            "instances": to_json(record.requests()),
        }
        for at, record in found
    ]
    return {"endpoint": request.endpoint, "requests": requests}


OPERATIONS: Final = (
    Operation(name="prediction.recorded", action="log.read", request=PredictionRecorded, handle=_recorded, resource=lambda request: f"endpoint:{request.endpoint or 'any'}", reads=True, summary="List what an endpoint was asked, to be asked again"),
)  # fmt: skip
