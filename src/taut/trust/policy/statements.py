"""Policies as they stand in their files: each with its name, its place, and what its scope can match."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import cedarpy
import msgspec

from taut.core.errors import InvalidInput
from taut.project.manifest import PolicySpec
from taut.trust.policy.text import BUILT_IN, SCHEMA

BUILT_IN_FILE: Final = "built-in"
_MAX_FILE_BYTES: Final = 256 * 1024
_MAX_BYTES: Final = 1024 * 1024
_MAX_FILES: Final = 256
_MAX_FAULTS: Final = 8
_MAX_ID: Final = 120
_CHUNK: Final = (
    32  # statements that one call to Cedar turns into data: it holds the interpreter while it does
)
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|;|[^"/;]+|.', re.DOTALL)
_ACTION: Final = re.compile(r'Action::"[^"]*"')


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. id: its `@id`, or else `FILE:LINE`, with `#2` for the second on a line. line: where it begins, counted from 1.

    actions, role, principal, resource: what its scope demands; None where it demands nothing, or nothing that is
    understood here. A question that does not meet them is one that the policy cannot bear on.
    """

    id: str
    effect: Literal["permit", "forbid"]
    file: str
    line: int
    text: str
    actions: frozenset[str] | None = None
    role: str | None = None
    principal: str | None = None
    resource: str | None = None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


class _Piece(NamedTuple):
    text: str
    line: int


@lru_cache(maxsize=1)
def built_in_statements() -> tuple[Statement, ...]:
    """Return the built-in policies."""
    return tuple(_read(PolicySpec(name=BUILT_IN_FILE, text=BUILT_IN)))


@lru_cache(
    maxsize=4
)  # a plan is shown, judged and applied, and a thousand policies take a good part of a second
def read_policies(files: tuple[PolicySpec, ...]) -> tuple[Statement, ...]:
    """Return the policies of a project's files, checked against the schema.

    Raises InvalidInput that names every fault with its file and line: one that does not parse, does not fit the
    schema, is a template, or has the name of another or of a built-in one; and for more than 256 files, 256 KiB in one
    or 1 MiB in all.
    """
    size = sum(len(file.text.encode("utf-8", "surrogateescape")) for file in files)
    if len(files) > _MAX_FILES or size > _MAX_BYTES:
        raise InvalidInput(
            f"the policies are {size} bytes in {len(files)} files, larger than {_MAX_BYTES} bytes in {_MAX_FILES}: write "
            "fewer or shorter ones"
        )
    faults: list[str] = []
    found: list[Statement] = []
    for file in files:
        try:
            found += _read(file)
        except InvalidInput as error:
            faults.append(error.message)
    if not faults:
        faults += _names_twice(found)
    if faults:
        raise InvalidInput("; ".join(faults))
    return tuple(found)


def _names_twice(found: Sequence[Statement]) -> Iterator[str]:
    places = {one.id: one.place for one in built_in_statements()}
    for one in found:
        if one.id in places:
            yield f"{one.place}: a policy of the name {one.id!r} is in {places[one.id]} already: give it another @id"
        places.setdefault(one.id, one.place)


def _read(file: PolicySpec) -> Iterator[Statement]:
    if len(file.text.encode("utf-8", "surrogateescape")) > _MAX_FILE_BYTES:
        raise InvalidInput(
            f"{file.name}: larger than {_MAX_FILE_BYTES} bytes: write fewer or shorter policies"
        )
    pieces = _split(file)
    data = _parsed(file, pieces)
    if file.name != BUILT_IN_FILE:
        _check_schema(file, pieces)
    on_line: Counter[int] = Counter()
    for piece, found in zip(pieces, data, strict=True):
        on_line[piece.line] += 1
        count = on_line[piece.line]
        place = f"{file.name}:{piece.line}" + (f"#{count}" if count > 1 else "")
        yield _statement(file, piece, found, place=place)


def _split(file: PolicySpec) -> list[_Piece]:
    """Cut a text at the semicolons that end policies: those outside of strings and comments."""
    pieces: list[_Piece] = []
    line, begun, parts = 1, 0, []
    for match in _TOKEN.finditer(file.text):
        found = match.group()
        if found == '"':
            raise InvalidInput(f"{file.name}:{line}: a string begins here and does not end: close it")
        said = not found.startswith("//") and found.strip()
        if said and not begun:
            begun = line + found[: len(found) - len(found.lstrip())].count("\n")
        if begun:
            parts.append(found)
        if found == ";":
            pieces.append(_Piece("".join(parts), begun))
            begun, parts = 0, []
        line += found.count("\n")
    if begun:
        raise InvalidInput(f"{file.name}:{begun}: this policy does not end: close it with a semicolon")
    return pieces


def _parsed(file: PolicySpec, pieces: Sequence[_Piece]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for start in range(0, len(pieces), _CHUNK):
        chunk = pieces[start : start + _CHUNK]
        try:
            data = json.loads(cedarpy.policies_to_json_str("\n".join(piece.text for piece in chunk)))
        except ValueError:
            raise InvalidInput("; ".join(_faults_of_parsing(file, chunk))) from None
        policies = data["staticPolicies"]
        for number, piece in enumerate(chunk):
            if f"policy{number}" not in policies:
                raise InvalidInput(
                    f"{file.name}:{piece.line}: a template (?principal, ?resource) is not understood here: name whom it is "
                    "about"
                )
            found.append(policies[f"policy{number}"])
    return found


def _faults_of_parsing(file: PolicySpec, pieces: Sequence[_Piece]) -> Iterator[str]:
    faults = 0
    for piece in pieces:
        try:
            cedarpy.PolicySet.from_str(piece.text)
        except ValueError as error:
            faults += 1
            if faults <= _MAX_FAULTS:
                yield f"{file.name}:{piece.line}: {str(error)[:300]}"
    if not faults:  # each is well alone and not together: none that is known, and no reason to take them
        yield f"{file.name}: the policies do not parse together"


def _check_schema(file: PolicySpec, pieces: Sequence[_Piece]) -> None:
    text = "\n".join(piece.text for piece in pieces)
    result = cedarpy.validate_policies(text, SCHEMA, release_gil=True) if pieces else None
    if result is None or result.validation_passed:
        return
    said: dict[tuple[int, str], str] = {}
    for fault in result.errors:
        number = int(fault.policy_id.removeprefix("policy") or 0)
        name = result.id_annotations_by_policy_id.get(fault.policy_id)
        message = fault.error.removeprefix(f"for policy `{fault.policy_id}`, ")
        message = f"{name}: {message}" if name else message
        said.setdefault((pieces[number].line, _ACTION.sub("Action", message)), message[:300])
    lines = sorted(said.items())
    more = f"; and {len(lines) - _MAX_FAULTS} more" if len(lines) > _MAX_FAULTS else ""
    raise InvalidInput(
        "; ".join(f"{file.name}:{line}: {message}" for (line, _), message in lines[:_MAX_FAULTS]) + more
    )


def _statement(file: PolicySpec, piece: _Piece, data: dict[str, Any], *, place: str) -> Statement:
    name = (data.get("annotations") or {}).get("id") or place
    if len(name) > _MAX_ID or not name.isprintable():
        raise InvalidInput(
            f"{file.name}:{piece.line}: @id is {name[:40]!r}…: use at most {_MAX_ID} printable characters"
        )
    principal, action, resource = data["principal"], data["action"], data["resource"]
    return Statement(
        id=name, effect=data["effect"], file=file.name, line=piece.line, text=piece.text,
        actions=_actions(action), role=_one(principal, "Role", ("in",)),
        principal=_one(principal, "Principal", ("==", "in")), resource=_one(resource, "Resource", ("==", "in")),
    )  # fmt: skip


def _one(scope: dict[str, Any], kind: str, operators: Sequence[str]) -> str | None:
    """Return the one entity of a kind that a scope names; an entity is `in` itself."""
    entity = scope.get("entity")
    if scope.get("op") not in operators or not isinstance(entity, dict) or entity.get("type") != kind:
        return None
    return str(entity["id"])


def _actions(scope: dict[str, Any]) -> frozenset[str] | None:
    entities = scope.get("entities", [scope["entity"]] if "entity" in scope else None)
    if scope.get("op") not in ("==", "in") or entities is None:
        return None
    return frozenset(str(entity["id"]) for entity in entities)
