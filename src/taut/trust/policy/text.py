"""The built-in policies and their schema, as Cedar text."""

from __future__ import annotations

from typing import Final

from taut.trust.policy.actions import ACTIONS, ADMIN_ONLY, ROLE_ACTIONS

CONTEXT: Final[dict[str, str]] = {
    "author": "String",  # the principal who made the thing that is decided about
    "single_user": "Bool",  # at most one human principal, no production environment, loopback only
    "environment": "String",  # development, staging or production
    "risk": "String",  # low, medium or high
    "plane": "String",  # data or control
    "local": "Bool",  # the caller is on the machine that holds the installation
    "hour": "Long",  # 0 to 23, UTC
    "weekday": "Long",  # 1, Monday, to 7
}
"""Facts that a policy may look at. All are optional, so a policy asks `context has …` first."""

ATTRIBUTES: Final[dict[str, str]] = {
    "environment": "String",  # of the project: development, staging or production
    "risk": "String",  # low, medium or high
    "classification": "String",  # public, internal, confidential or restricted
    "owner": "String",  # who answers for it
    "purpose": "Set<String>",  # what it may be used for
}
"""What a policy may ask of a resource besides its `kind` and `name`. All are optional, as in the context."""


def _quoted(actions: tuple[str, ...]) -> str:
    return ", ".join(f'"{action}"' for action in actions)


def _schema() -> str:
    context = ", ".join(f"{name}?: {kind}" for name, kind in CONTEXT.items())
    attributes = ", ".join(f"{name}?: {kind}" for name, kind in ATTRIBUTES.items())
    return (
        "entity Role;\n"
        "entity Principal in [Role] { id: String, kind: String };\n"
        f"entity Resource {{ kind: String, name: String, {attributes} }};\n"
        f"action {_quoted(tuple(ACTIONS))} appliesTo {{\n"
        f"  principal: [Principal], resource: [Resource], context: {{ {context} }}\n"
        "};\n"
    )


def _permit(role: str, actions: tuple[str, ...]) -> str:
    named = ", ".join(f'Action::"{action}"' for action in actions)
    return f'@id("role-{role}")\npermit(principal in Role::"{role}", action in [{named}], resource);\n'


SCHEMA: Final = _schema()

_SEPARATION: Final = """
@id("separation-of-duties")
forbid(principal, action == Action::"model.approve", resource)
unless {
  (context has single_user && context.single_user) ||
  (context has author && context.author != principal.id)
};

@id("approval-is-for-people")
forbid(principal, action == Action::"model.approve", resource)
when { principal.kind == "service" }
unless { context has single_user && context.single_user };

@id("production-is-applied-by-operators")
forbid(principal, action == Action::"plan.apply", resource)
when { context has environment && context.environment == "production" }
unless { principal in Role::"operator" || principal in Role::"admin" };

@id("sealed-data-is-for-people")
forbid(principal, action == Action::"data.unseal", resource)
when { principal.kind == "service" };
"""


def _admin_only() -> str:
    named = ", ".join(f'Action::"{action}"' for action in ADMIN_ONLY)
    return (
        f'\n@id("administration-is-for-administrators")\nforbid(principal, action in [{named}], resource)\n'
        'unless { principal in Role::"admin" };\n'
    )


BUILT_IN: Final = (
    "".join(_permit(role, actions) for role, actions in ROLE_ACTIONS.items()) + _SEPARATION + _admin_only()
)
"""What holds without any policy of the project. Its prohibitions win over every permission that a project adds."""
