"""Values and errors as the journal keeps them: canonical JSON, never anything that could be executed."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core import errors
from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, Exhausted, InvalidInput, TautError, Unavailable
from taut.ports.stories import Json, StoryFailed

VALUE_BYTES_MAX: Final = 2**20

_BY_CODE: Final[dict[str, type[TautError]]] = {
    kind.code: kind
    for kind in [*vars(errors).values(), StoryFailed]
    if isinstance(kind, type) and issubclass(kind, TautError) and kind is not TautError
}


class _Recorded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error on record. `kind` is the code of the class in core.errors, `code` may be a subclass's own."""

    code: str
    kind: str
    message: str
    retry_after_s: float | None = None


def encode(value: Any, *, what: str) -> str:
    """Return `value` as canonical JSON. Raises InvalidInput where it is none, or is larger than 1 MiB."""
    try:
        data = canonical_json(value)
    except InvalidInput as error:
        raise InvalidInput(
            f"{what} is no JSON: {error}; return plain values, or a reference to a blob"
        ) from error
    if len(data) > VALUE_BYTES_MAX:
        raise InvalidInput(
            f"{what} takes {len(data)} bytes, {VALUE_BYTES_MAX} is the limit: keep it in Blobs and return its digest"
        )
    return data.decode()


def decode(text: str, *, what: str) -> Json:
    """Parse JSON. Raises Corrupt on anything else, whatever it asks to be decoded with."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{what} in the journal is no JSON, so it was not written by taut: {error}") from error


def encode_error(error: TautError) -> str:
    known = (base for base in type(error).__mro__ if base in _BY_CODE.values())
    recorded = _Recorded(
        code=error.code,
        kind=getattr(next(known, StoryFailed), "code"),  # noqa: B009 - the search is over plain types
        message=error.message,
        retry_after_s=getattr(error, "retry_after_s", None),
    )
    return msgspec.json.encode(recorded).decode()


def decode_error(text: str) -> TautError:
    """Return the recorded error, of the class in core.errors that it was or derived from."""
    recorded = _recorded(text)
    kind = _BY_CODE.get(recorded.kind, StoryFailed)
    if recorded.retry_after_s is not None and issubclass(kind, Exhausted | Unavailable):
        return kind(recorded.message, retry_after_s=recorded.retry_after_s)
    return kind(recorded.message)


def describe_error(text: str) -> str:
    recorded = _recorded(text)
    return f"{recorded.code}: {recorded.message}"


def _recorded(text: str) -> _Recorded:
    try:
        return msgspec.json.decode(text, type=_Recorded)
    except msgspec.DecodeError as error:
        raise Corrupt(f"an error in the journal was not written by taut: {error}") from error
