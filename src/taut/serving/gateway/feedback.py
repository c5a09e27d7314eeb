"""Outcomes that callers tell of later: checked, bounded, and written into the prediction log beside the answers.

The log is where they are sealed, survive this process, and are proved by their segment's root in the ledger; control reads
them there, joins them with the answers, and keeps them.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from taut.core.errors import Exhausted, InvalidInput, NotFound
from taut.serving.errors import Malformed
from taut.serving.gateway.compiled import Endpoint
from taut.serving.gateway.pages import Visit, open_gateway
from taut.serving.predictions import OUTCOMES, TAKEN, PredictionLog, RecordHead, encode_head, encode_record

FEEDBACK: Final = "/v1/feedback"
_RATE_PER_S: Final = 1000.0
_BURST: Final = 20_000.0
_MOST: Final = 10_000
_CALLERS: Final = 1024

_Text = Annotated[str, msgspec.Meta(max_length=200)]
_Label = bool | int | float | _Text


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became true of one answer: of row `row` of a request, or of the newest answer about an entity before a time.

    label: the class of a classifier, the value of a regressor. at: ISO 8601 with its offset.
    """

    label: _Label
    request_id: _Text = ""
    row: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    entity: Annotated[dict[_Text, _Label], msgspec.Meta(max_length=16)] = {}
    at: _Text = ""


class Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request."""

    endpoint: _Text
    outcomes: Annotated[tuple[Outcome, ...], msgspec.Meta(min_length=1, max_length=_MOST)]


_DECODER: Final = msgspec.json.Decoder(Told)


class Allowance:
    """How many outcomes callers may still tell of: a bucket each, of those 1,024 who told of some last."""

    def __init__(self) -> None:
        self._left: Final[dict[str, tuple[float, float]]] = {}

    def __len__(self) -> int:
        return len(self._left)

    def spend(self, principal: str, count: int, now_s: float) -> None:
        """Let a caller tell of `count` outcomes. Raises Exhausted."""
        left, at_s = self._left.pop(principal, (_BURST, now_s))
        left = min(_BURST, left + (now_s - at_s) * _RATE_PER_S)
        refused = left < count
        self._left[principal] = (left if refused else left - count, now_s)
        if len(self._left) > _CALLERS:
            del self._left[next(iter(self._left))]  # who told of something longest ago
        if refused:
            raise Exhausted(
                f"{principal} told of more outcomes than {_RATE_PER_S:,.0f} a second: send the rest later",
                retry_after_s=(count - left) / _RATE_PER_S,
            )


class Feedback:
    """Takes outcomes for one gateway: 1,000 a second of each caller, 20,000 at once.

    Guarantees: what was taken is in the log before it is acknowledged, and survives this process. Not guaranteed: that an answer is
    found for it; control says of how many none was.
    """

    def __init__(self, log: PredictionLog) -> None:
        self._log: Final = log
        self._allowance: Final = Allowance()

    def take(self, visit: Visit, body: bytes, request_id: str, *, now_s: float) -> int:
        """Write outcomes and return how many. Raises Unauthenticated, Denied, NotFound, Malformed, InvalidInput, Exhausted when a caller
        told of too many, Unavailable when the log cannot be written."""
        active, guard, session = open_gateway(visit)
        told = _decode(body)
        endpoint = active.endpoints.get(told.endpoint)
        if endpoint is None:
            raise NotFound(
                f"endpoint {told.endpoint!r} is not served here: check its name, and that it was released"
            )
        guard.require(session, "feedback", endpoint, visit.now_us)
        _check(told, endpoint)
        self._allowance.spend(session.principal.id, len(told.outcomes), now_s)
        live = endpoint.config.live
        head = RecordHead(endpoint.name, live.version, live.release, active.epoch, OUTCOMES)
        rows = [(one.request_id, one.row, one.label, one.entity, one.at) for one in told.outcomes]
        self._log.append(
            encode_record(
                request_id, visit.now_us, encode_head(head), session.principal.id, "", TAKEN, 0, rows
            )
        )
        return len(rows)


def _decode(body: bytes) -> Told:
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f'{error}: send {{"endpoint", "outcomes": [{{"request_id", "row", "label"}}]}}, at most {_MOST:,} at once'
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the body is not JSON: {error}") from error


def _check(told: Told, endpoint: Endpoint) -> None:
    """Refuse what could never be joined, naming the first of it."""
    signature = endpoint.signature
    columns, classes = {column.name for column in signature.request}, signature.classes
    for at, one in enumerate(told.outcomes):
        if bool(one.request_id) == bool(one.entity):
            raise InvalidInput(f"outcome {at}: name the request_id, or an entity with a time")
        if one.entity and (not one.at or not set(one.entity) <= columns):
            raise InvalidInput(f"outcome {at}: an entity is named by request columns, with the time `at`")
        if signature.output == "value":
            if isinstance(one.label, bool | str) or not abs(one.label) < 1e300:
                raise InvalidInput(f"outcome {at}: label is {one.label!r}, wanted a finite number")
        elif not any(one.label == known and type(one.label) is type(known) for known in classes):
            shown = ", ".join(repr(known) for known in classes[:10])
            raise InvalidInput(f"outcome {at}: label is {one.label!r}, wanted one of {shown}")
