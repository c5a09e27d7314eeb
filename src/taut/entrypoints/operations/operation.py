"""One operation: a name, the right that it needs, what it takes, and what does it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taut.core.errors import Denied, InvalidInput, NotFound, StepUp, TautError
from taut.core.room import room_for
from taut.ports.records import transact
from taut.trust.breakglass import is_emergency
from taut.trust.identity.principals import Principal
from taut.trust.ledger import Entry
from taut.trust.policy import DISCLOSING
from taut.workflows.access import ACCESSED

if TYPE_CHECKING:
    from taut.trust.signin import Session

Json = dict[str, Any]

Progress = Callable[[str, float | None], None]
"""Called with a message and the fraction done, 0 to 1, or None where it is unknown."""

Platform = Any
"""What bootstrap composes. Its rooms are typed where they are made; handlers are proved by the flows."""

MAX_BODY_BYTES: Final = 32 * 2**20


FRESH: Final = timedelta(minutes=15)
"""For how long a sign-in is good for what it is asked anew for."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and from where. `local`: over the installation's own socket or inside its process.

    session: by which he signed in; None for tokens, keys and the owner of the files. address: of the machine, empty here.
    part: the SPIFFE id of a part of the platform that showed it over TLS; empty for everybody else.
    """

    principal: Principal
    local: bool = False
    session: Session | None = None
    address: str = ""
    part: str = ""


NOBODY: Final = Principal(id="", kind="human", roles=())
"""Who asks without any identity. Policy permits him nothing; only operations that are `open` look at what he sent."""


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what operations take: unknown words are refused."""


class Nothing(Request, frozen=True):
    """An operation that takes nothing."""


Handler = Callable[[Platform, Caller, Any, Progress], Json]
Facts = Callable[[Platform, Any], Mapping[str, object]]


def _no_facts(_platform: Platform, _request: Any) -> Mapping[str, object]:
    return {}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the command line, the console and the API can do; the API has nothing else.

    name: `noun.verb`, which is its path `/api/v1/noun/verb`. action: the word that policy decides about.
    resource: the thing that it is decided about, `kind:name`, from the request. of: looks up what the request names by an
    id only, as a release of an endpoint; where there is no such thing, `resource` stands. facts: further context for policy.
    reads: it changes nothing, so GET may be used. story: it starts a story and waits for its end.
    open: what is sent proves who asks, as in a sign-in, so that policy is not asked. fresh: where several people work,
    a person must have signed in within `FRESH`. part: parts of the platform alone ask for it, by their identity, and for nothing else.
    """

    name: str
    action: str
    request: type[Request]
    handle: Handler
    summary: str
    resource: Callable[[Any], str]
    of: Callable[[Platform, Any], str] | None = None
    facts: Facts = _no_facts
    reads: bool = False
    story: bool = False
    open: bool = False
    fresh: bool = False
    part: bool = False

    @property
    def discloses(self) -> bool:
        """Whether its result holds rows, or what was made from them, so that each time is a leaf of the ledger."""
        return self.action in DISCLOSING

    @property
    def path(self) -> str:
        return "/api/v1/" + self.name.replace(".", "/")


class OperationTable:
    """Operations by name, each once."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_name: Final[dict[str, Operation]] = {}
        for operation in operations:
            noun, dot, verb = operation.name.partition(".")
            if not (noun and dot and verb) or operation.name in self._by_name:
                raise InvalidInput(f"operation {operation.name!r} is no noun.verb, or is there twice")
            self._by_name[operation.name] = operation

    def __iter__(self) -> Any:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __getitem__(self, name: str) -> Operation:
        try:
            return self._by_name[name]
        except KeyError:
            from taut.project.words import nearest

            raise NotFound(f"no operation {name[:80]!r}{nearest(name, self._by_name)}") from None


def is_single_user(platform: Platform) -> bool:
    """Whether at most one person has an account, on loopback only: what policy calls `single_user`."""
    return not platform.exposed and bool(platform.identity.is_single_user())


def require_fresh(platform: Platform, caller: Caller, what: str) -> None:
    """Raise StepUp for a person who did not prove within `FRESH` who he is; services and the owner cannot sign in."""
    if caller.principal.kind != "human":
        return
    proved_at = None if caller.session is None else caller.session.proved_at
    if proved_at is None:
        raise StepUp(
            f"{what} is done by people who have just signed in, and this identity does not say when that was: sign in "
            "with `taut login`, then repeat it"
        )
    age = platform.clock.now() - proved_at
    if not timedelta(seconds=-10) <= age <= FRESH:
        raise StepUp(
            f"{what} asks for a sign-in of the last {FRESH.seconds // 60} minutes, and yours is {age.total_seconds() / 60:.0f} "
            "minutes old: sign in again with `taut login`, then repeat it"
        )


def perform(
    table: OperationTable, platform: Platform, caller: Caller, name: str, body: object, progress: Progress
) -> Json:
    """Decode, authorise, do: the one way in which an operation is carried out, whoever asks.

    Raises InvalidInput for a body that does not fit, Denied when policy refuses, and whatever the operation raises.
    """
    operation = table[name]
    if operation.part != bool(caller.part):
        raise Denied(
            f"{name} is for machines, which show their identity: `taut machine invite NAME` lets one join"
            if operation.part
            else f"{caller.part or 'a part'} asks for {name}, which is for people and programs with a bearer"
        )
    request = decode(operation, body)
    if operation.open:
        with room_for(operation.name):
            return operation.handle(platform, caller, request, progress)
    context: dict[str, object] = {
        "single_user": is_single_user(platform),
        "plane": "control",
        "local": caller.local,
        "now": platform.clock.now(),
    }
    resource = _resource(operation, platform, request)
    try:
        context |= operation.facts(platform, request)
    except TautError:
        # what it is about is not there: said only to whoever might do it, were it there and somebody else's
        _require(platform, caller.principal, operation.action, resource, {**context, "author": ""})
        raise
    _require(platform, caller.principal, operation.action, resource, context)
    if operation.fresh and not is_single_user(platform):
        require_fresh(platform, caller, operation.name)
    if is_emergency(caller.principal):
        progress("EMERGENCY: the built-in policies decide alone, and what is done is recorded", None)
        if not operation.reads:
            platform.policy.glass.note(caller.principal, operation.name, resource)
    with room_for(operation.name):
        result = operation.handle(platform, caller, request, progress)
    if operation.discloses:
        note_access(platform, caller, operation.action, resource, operation=operation.name)
    return result


def _resource(operation: Operation, platform: Platform, request: Request) -> str:
    if operation.of is not None:
        with contextlib.suppress(NotFound):
            return operation.of(platform, request)
    return operation.resource(request)


def _require(
    platform: Platform, principal: Principal, action: str, resource: str, context: Mapping[str, object]
) -> None:
    """Ask policy, and count against a known principal what it denies him. Raises Denied."""
    try:
        platform.policy.require(principal, action, resource, context)
    except Denied:
        if principal.id:
            platform.watches.denials.note(principal.id, action, resource)
        raise


def note_access(platform: Platform, caller: Caller, action: str, resource: str, *, operation: str) -> None:
    """Leave a leaf about rows that are handed out, before they are."""
    entry = Entry(ACCESSED, resource, caller.principal.id, {"action": action, "operation": operation})
    transact(platform.records, lambda tx: platform.ledger.append(tx, entry))


def decode(operation: Operation, body: object, *, strict: bool = True) -> Request:
    """Turn JSON into the operation's request. Raises InvalidInput that names the word that does not fit.

    strict: with False, texts stand for numbers and booleans, as in a query string.
    """
    fields = {field.encode_name for field in msgspec.structs.fields(operation.request)}
    if isinstance(body, Mapping):
        unknown = [str(word) for word in body if word not in fields]
        if unknown:
            from taut.project.words import nearest

            raise InvalidInput(f"{operation.name} takes no {unknown[0][:80]!r}{nearest(unknown[0], fields)}")
    try:
        return msgspec.convert(body, operation.request, strict=strict)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"{operation.name}: {error}: it takes {', '.join(sorted(fields)) or 'nothing'}"
        ) from error


def to_json(value: object) -> Any:
    """Turn a room's value into plain JSON types."""
    return msgspec.to_builtins(value, str_keys=True)
