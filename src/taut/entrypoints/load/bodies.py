"""What is asked: given instances, values made up from the endpoint's signature, or requests that were recorded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from taut.core.errors import InvalidInput

Json = dict[str, Any]
Uniform = Callable[[], float]

_MADE_UP: Final = 256
_WORDS: Final = ("a", "b", "c", "d")
_TIMES: Final = {"date": "2020-01-01", "datetime": "2020-01-01T00:00:00Z"}
_LEFT_OUT: Final = ""


def rendered(endpoint: str, body: bytes, *, host: str, token: str) -> bytes:
    """Return the whole HTTP/1.1 request, ready to be written: nothing is left to do when its time comes."""
    if not token.isprintable() or not token.isascii():
        raise InvalidInput("the token has characters that no HTTP header can carry: check it")
    head = (
        f"POST /v1/predict/{quote(endpoint, safe='')} HTTP/1.1\r\n"
        f"host: {host}\r\n"
        f"authorization: Bearer {token}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def from_instances(instances: Sequence[Json], *, rows: int) -> list[bytes]:
    """Return bodies of `rows` instances each, in order; the last begins again with the first ones."""
    if rows < 1:
        raise InvalidInput(f"{rows} rows a request: give at least 1")
    count = -(-len(instances) // rows)
    endless = itertools.cycle(instances)
    return [msgspec.json.encode({"instances": list(itertools.islice(endless, rows))}) for _ in range(count)]


def from_metadata(metadata: Json, *, rows: int, uniform: Uniform) -> list[bytes]:
    """Return bodies with made-up values for an endpoint's inputs, as `/v2/models/{endpoint}` lists them.

    The values are of the right types and mean nothing: they load the endpoint, they do not judge its model.
    """
    try:
        inputs = [_input(item) for item in metadata["inputs"]]
    except (KeyError, TypeError) as error:
        raise InvalidInput("the address does not list the endpoint's inputs: is it a data plane?") from error
    # where all columns are numbers the last input is the same again as one tensor
    columns = [item for item in inputs if item[0] != "input"] or inputs
    columns = [(name, kind) for name, kind in columns if kind != _LEFT_OUT]
    made = [{name: _value(kind, uniform) for name, kind in columns} for _ in range(_MADE_UP)]
    return from_instances(made, rows=rows)


def _input(item: Json) -> tuple[str, str]:
    """Return an input's name and what to make up for it: nothing for a time that may be left out, it means now."""
    said = item.get("parameters") or {}
    kind, column = str(item["datatype"]), str(said.get("type", ""))
    if column in _TIMES:
        kind = _LEFT_OUT if said.get("nullable") else column
    return str(item["name"]), kind


def _value(kind: str, uniform: Uniform) -> bool | int | float | str:
    if kind == "BOOL":
        return uniform() < 0.5
    if kind in _TIMES:
        return _TIMES[kind]
    if kind.startswith(("INT", "UINT")):
        return int(uniform() * 100)
    return _WORDS[int(uniform() * len(_WORDS))] if kind == "BYTES" else round(uniform() * 100, 3)


def from_recorded(requests: Sequence[Json], *, speed: float) -> Iterator[tuple[float, int, bytes]]:
    """Yield (seconds from the start, caller, body) of recorded requests, `speed` times as fast as they came.

    requests: `at_us`, `caller` and `instances` of each, in order of time.
    """
    if not 0 < speed <= 1e6:
        raise InvalidInput(f"speed {speed:g}: choose more than 0, for example 10")
    if not requests:
        raise InvalidInput(
            "no request of this endpoint was recorded: drive it with --rate, or ask it something first"
        )
    first = requests[0]["at_us"]
    for request in requests:
        body = msgspec.json.encode({"instances": request["instances"]})
        yield (request["at_us"] - first) / 1e6 / speed, int(request["caller"]), body
