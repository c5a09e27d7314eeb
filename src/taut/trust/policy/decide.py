"""Decides by Cedar and remembers; whatever goes wrong on the way is a denial with its reason."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import cedarpy
import msgspec

from taut.core.canonical import digest_json
from taut.core.errors import Denied, InvalidInput
from taut.project.manifest import PolicySpec
from taut.trust.identity.principals import ROLES, Principal
from taut.trust.policy.actions import ACTIONS, OWN
from taut.trust.policy.slices import Slice, Slices
from taut.trust.policy.statements import BUILT_IN_FILE, Statement, built_in_statements, read_policies
from taut.trust.policy.text import BUILT_IN, CONTEXT, SCHEMA

_MAX_RESOURCE: Final = 256
_MAX_PAIRS: Final = 4096
_TYPES: Final = {"String": str, "Bool": bool, "Long": int}


class Facts(msgspec.Struct, frozen=True, cache_hash=True):
    """A context that was checked and quantised once, for callers that decide often under the same one."""

    items: tuple[tuple[str, str | int | bool], ...] = ()


_NOTHING: Final = Facts()
_ENCODER: Final = msgspec.json.Encoder()
_Key = tuple[Principal, str, str, Facts]


class Attributes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a resource besides its kind and name; nothing where empty. See `text.ATTRIBUTES`."""

    environment: str = ""
    risk: str = ""
    classification: str = ""
    owner: str = ""
    purpose: tuple[str, ...] = ()


_NO_ATTRIBUTES: Final = Attributes()


class PolicyDecision(msgspec.Struct, frozen=True):
    """Whether, and why: names of the policies that decided, or what was missing.

    policies: the policies that decided, by id. errors: of those that could not be evaluated.
    """

    allow: bool
    reasons: tuple[str, ...]
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def facts(context: Mapping[str, object]) -> Facts:
    """Return a context in the one form in which decisions are remembered.

    `now`, an aware datetime, becomes `hour` and `weekday` (UTC): a finer time would make every question a new one.
    Raises InvalidInput on an attribute that no policy can know, or of another type.
    """
    found: dict[str, str | int | bool] = {}
    for name, value in context.items():
        if name == "now" and isinstance(value, datetime) and value.tzinfo is not None:
            moment = value.astimezone(UTC)
            found["hour"], found["weekday"] = moment.hour, moment.isoweekday()
        elif type(value) is _TYPES.get(CONTEXT.get(name, "")):
            found[name] = value  # type: ignore[assignment]  # one of the types of _TYPES, by the line above
        else:
            raise InvalidInput(f"context attribute {str(name)[:40]!r} is unknown or of a wrong type")
    return Facts(tuple(sorted(found.items())))


class Policy:
    """The built-in policies and a project's own, as one decision function.

    project: Cedar policies that are added to the built-in ones, in files or as one text; a `forbid` wins over every
    `permit`, whoever wrote it. resources: `kind:name` -> what is known of it; what is known of "" holds for every
    resource that is not named. cache_size: bound on remembered decisions; when it is reached the oldest goes.

    Guarantees: the same question has the same answer as long as `digest` is the same; an unknown action, role or
    context attribute, a principal without role, and any error of evaluation are denied.
    Not guaranteed: that the facts in the context are true; they are the caller's word.

    Raises InvalidInput when the policies do not parse or do not fit the schema, naming each fault with its place.
    """

    def __init__(
        self,
        project: str | Sequence[PolicySpec] = (),
        *,
        resources: Mapping[str, Attributes] | None = None,
        cache_size: int = 65_536,
    ) -> None:
        if cache_size < 1:
            raise InvalidInput(f"cache_size is {cache_size}: give at least 1")
        files = (PolicySpec(name="project", text=project),) if isinstance(project, str) else tuple(project)
        self.files: Final = files
        self.text: Final = "\n".join((BUILT_IN, *(file.text for file in files)))
        self.resources: Final = dict(resources or {})
        self.statements: Final = (*built_in_statements(), *read_policies(files))
        self.digest: Final = digest_json(
            {"schema": SCHEMA, "built_in": BUILT_IN, "files": files, "resources": self.resources}
        )
        self._slices: Final = Slices(self.statements)
        self._pairs: Final[dict[tuple[Principal, str], cedarpy.Entities]] = {}
        self._cache: Final[dict[_Key, PolicyDecision]] = {}
        self._cache_size: Final = cache_size
        self._lock: Final = threading.Lock()

    def attributes(self, resource: str) -> Attributes:
        """Return what is known of a resource; a version is known as what it is a version of."""
        found = self.resources.get(resource) or self.resources.get(resource.partition("@")[0])
        return found or self.resources.get("", _NO_ATTRIBUTES)

    def looks_at_callers(self, action: str) -> bool:
        """Whether a policy of the project bears on an action, so that callers of the same roles may differ in rights."""
        own = (one for one in self.statements if one.file != BUILT_IN_FILE)
        return any(one.actions is None or action in one.actions for one in own)

    def statement(self, id: str) -> Statement | None:
        """Return the policy of a decision by its id."""
        return next((one for one in self.statements if one.id == id), None)

    def decide(
        self,
        principal: Principal,
        action: str,
        resource: str,
        context: Facts | Mapping[str, object] = _NOTHING,
    ) -> PolicyDecision:
        """Decide; never raises.

        resource: `kind:name`, such as `endpoint:delay` or `model:delay@3`.
        context: attributes of `text.CONTEXT`, or what `facts` made of them.
        """
        if type(context) is not Facts:
            try:
                context = facts(context)  # type: ignore[arg-type]  # what is not Facts is a Mapping
            except InvalidInput as error:
                return PolicyDecision(False, (str(error),))
        key = (principal, action, resource, context)
        hit = self._cache.get(key)
        return hit if hit is not None else self._miss(key)

    def require(
        self,
        principal: Principal,
        action: str,
        resource: str,
        context: Facts | Mapping[str, object] = _NOTHING,
    ) -> PolicyDecision:
        """Return the decision when it allows. Raises Denied with who, what and why otherwise."""
        decision = self.decide(principal, action, resource, context)
        if not decision.allow:
            raise Denied(
                f"{principal.id} may not {action} on {resource}: {'; '.join(decision.reasons)}. "
                "Ask for a role that may, or act as somebody who has it"
            )
        return decision

    def _miss(self, key: _Key) -> PolicyDecision:
        refusal = _refusal(*key[:3])
        if refusal:  # not remembered: whoever may ask anything at all could fill the memory with long names
            return PolicyDecision(False, (refusal,))
        decision = self._evaluate(*key)
        with self._lock:  # readers need none: a dict's get is atomic
            if len(self._cache) >= self._cache_size:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = decision
        return decision

    def _evaluate(self, principal: Principal, action: str, resource: str, known: Facts) -> PolicyDecision:
        bearing = self._slices.of(principal, action, resource)
        try:  # without the schema: the policies fit it, and what is asked is made of the types that it names
            request = {
                "principal": _uid("Principal", principal.id),
                "action": _uid("Action", action),
                "resource": _uid("Resource", resource),
                "context": _json(dict(known.items)),
            }
            result = cedarpy.is_authorized(request, bearing.parsed, self._pair(principal, resource))
        except (ValueError, TypeError, RuntimeError) as error:
            said = (f"the policies could not be evaluated: {error}",)
            return PolicyDecision(False, said, errors=said)
        return _decision(result, bearing)

    def _pair(self, principal: Principal, resource: str) -> cedarpy.Entities:
        """Return who asks and what for, parsed: the same two meet again with other facts, each hour at the least."""
        found = self._pairs.get((principal, resource))
        if found is None:
            about = _json(_entities(principal, resource, self.attributes(resource)))
            found = cedarpy.Entities.from_json_str(about)
            with self._lock:
                if len(self._pairs) >= _MAX_PAIRS:
                    del self._pairs[next(iter(self._pairs))]
                self._pairs[principal, resource] = found
        return found


def _json(value: object) -> str:
    """Return the JSON that Cedar reads; made here it costs a third of what it costs there."""
    return _ENCODER.encode(value).decode()


def _refusal(principal: Principal, action: str, resource: str) -> str:
    """Return why there is nothing to evaluate, or an empty text."""
    unknown = [role for role in principal.roles if role not in ROLES]
    if not principal.id or not principal.roles:
        return "the caller has no identity or no role"
    if unknown:
        return f"role {unknown[0][:40]!r} is unknown"
    if action not in ACTIONS:
        return f"action {action[:40]!r} is unknown"
    kind, colon, name = resource.partition(":")
    if not (kind and colon and name) or len(resource) > _MAX_RESOURCE:
        return f"resource {resource[:80]!r} is not written KIND:NAME"
    if action == OWN:  # a narrowed credential may be exchanged for a token that is as narrow
        return ""
    if principal.scopes and not any(scope in (action, f"{action}@{resource}") for scope in principal.scopes):
        return f"the credential's scopes do not cover {action} on {resource}"
    return ""


def _entities(principal: Principal, resource: str, known: Attributes) -> list[dict[str, Any]]:
    kind, _, name = resource.partition(":")
    about = {word: value for word, value in msgspec.structs.asdict(known).items() if value}
    return [
        {
            "uid": _uid("Principal", principal.id),
            "attrs": {"id": principal.id, "kind": principal.kind},
            "parents": [_uid("Role", role) for role in principal.roles],
        },
        {"uid": _uid("Resource", resource), "attrs": {"kind": kind, "name": name, **about}, "parents": []},
    ]


def _uid(kind: str, id_: str) -> dict[str, str]:
    return {"type": kind, "id": id_}


def _decision(result: cedarpy.AuthzResult, bearing: Slice) -> PolicyDecision:
    """Translate. Cedar skips a policy that fails to evaluate; a skipped `forbid` would open what it guards, so deny."""
    errors = tuple(f"the policies could not be evaluated: {error}" for error in result.diagnostics.errors)
    names = tuple(sorted(bearing.statements[_number(id_)].id for id_ in result.diagnostics.reasons))
    if errors:
        return PolicyDecision(False, errors, names, errors)
    if result.decision is cedarpy.Decision.Allow:
        return PolicyDecision(True, names, names)
    said = tuple(f"forbidden by {name}" for name in names) or ("no policy permits it",)
    return PolicyDecision(False, said, names)


def _number(policy_id: str) -> int:
    return int(policy_id.removeprefix("policy"))
