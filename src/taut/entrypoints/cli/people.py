"""Commands on people and what proves them: user, token, key, secret."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import session

Role = Annotated[
    list[str],
    typer.Option(
        "--role",
        "-r",
        help="admin, operator, builder, approver, predictor, device, responder, machine, auditor.",
    ),
]
Principal = Annotated[str, typer.Option("--principal", "-p", help="Who it is for.")]
Enrol = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="human or service: add the principal as that, and the roles that it lacks. Without it, an administrator's "
        "command adds one that nobody knows as a service, and gives no further role to one that is known.",
    ),
]


def register(app: typer.Typer) -> None:
    user: Verbs = {
        "add": add, "list": users, "show": show, "roles": roles, "disable": disable, "enable": enable, "whoami": whoami, "invite": invite, "reset": reset, "link": link,
    }  # fmt: skip
    add_noun(app, "user", "Who exists, and in which roles.", user)
    token: Verbs = {"create": token_create, "exchange": token_exchange, "revoke": token_revoke}
    add_noun(app, "token", "Short-lived proof of identity.", token)
    key: Verbs = {"create": key_create, "list": keys, "rotate": key_rotate, "revoke": key_revoke}
    add_noun(app, "key", "API keys, shown once and kept as a hash.", key)
    secret: Verbs = {"put": secret_put, "list": secrets, "delete": secret_delete}
    add_noun(app, "secret", "Values that a project needs and never holds.", secret)


def add(
    context: typer.Context,
    principal: str,
    role: Role,
    kind: Annotated[str, typer.Option(help="human or service.")] = "human",
    display: Annotated[str, typer.Option(help="What people read.")] = "",
) -> None:
    """Add a principal.

    For example: taut user add ada --role approver
    """
    request = {"principal": principal, "roles": role, "kind": kind, "display": display}
    session(context).act("user.add", request, _user)


def users(context: typer.Context) -> None:
    """List principals."""
    from taut.entrypoints import views

    session(context).act("user.list", {}, views.users)


def show(context: typer.Context, principal: str) -> None:
    """Show a principal."""
    session(context).act("user.show", {"principal": principal}, _user)


def roles(context: typer.Context, principal: str, role: Role) -> None:
    """Give a principal exactly these roles.

    For example: taut user roles ada -r builder -r approver
    """
    session(context).act("user.roles", {"principal": principal, "roles": role}, _user)


def disable(context: typer.Context, principal: str) -> None:
    """Refuse a principal's credentials from now on."""
    session(context).act("user.disable", {"principal": principal}, _user)


def enable(context: typer.Context, principal: str) -> None:
    """Accept a principal's credentials again."""
    session(context).act("user.enable", {"principal": principal}, _user)


def whoami(context: typer.Context) -> None:
    """Say as whom commands act."""
    from taut.entrypoints import views

    session(context).act("user.whoami", {}, views.fields)


def invite(
    context: typer.Context,
    principal: str,
    ttl: Annotated[str, typer.Option(help="How long it holds, up to 7d.")] = "24h",
) -> None:
    """Let a person set his password, at first or anew; he gives it to `taut login`.

    For example: taut user invite ada
    """

    def view(result: dict[str, object]) -> None:
        typer.echo(result["invitation"])
        typer.echo(
            f"good once until {result['expires_at']}: taut login {principal} --invitation CODE", err=True
        )

    session(context).act("user.invite", {"principal": principal, "ttl": ttl}, view)


def link(
    context: typer.Context,
    principal: str,
    subject: Annotated[str, typer.Option(help="The provider's `sub` of the person.")],
) -> None:
    """Let an account of the identity provider be a person who exists here.

    For example: taut user link ada --subject 00u1a2b3
    """
    request = {"principal": principal, "subject": subject}
    session(context).act("user.link", request, lambda _: typer.echo(f"linked to {principal}"))


def reset(context: typer.Context, principal: str) -> None:
    """Take a person's second factor away and end his sessions, after he lost his device and his recovery codes."""
    session(context).act("user.reset", {"principal": principal}, lambda _: typer.echo(f"reset {principal}"))


def token_create(
    context: typer.Context,
    principal: Principal,
    role: Role,
    ttl: Annotated[str, typer.Option(help="How long it lives, up to 24h.")] = "15m",
    scope: Annotated[list[str] | None, typer.Option(help="Narrow it: ACTION or ACTION@RESOURCE.")] = None,
    enrol: Enrol = None,
) -> None:
    """Issue a token.

    For example: taut token create --principal app --role predictor --ttl 15m
    """
    request = {"principal": principal, "roles": role, "ttl": ttl, "scopes": scope or [], "enrol": enrol}
    session(context).act("token.create", request, lambda result: _credential(result, "token"))


def token_exchange(
    context: typer.Context,
    ttl: Annotated[str, typer.Option(help="How long it lives, 1m to 15m.")] = "15m",
    scope: Annotated[list[str] | None, typer.Option(help="Narrow it: ACTION or ACTION@RESOURCE.")] = None,
) -> None:
    """Get a token for yourself in exchange for what you act with: a session, or an API key as --token.

    For example: taut --token "$KEY" token exchange
    """
    request = {"ttl": ttl, "scopes": scope or []}
    session(context).act("token.exchange", request, lambda result: _credential(result, "token"))


def token_revoke(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The token's id.")] = "",
    principal: Annotated[str, typer.Option("--principal", "-p", help="All tokens of this principal.")] = "",
) -> None:
    """Refuse a token, or all tokens and sessions of a principal, from now on."""
    request = {"id": id, "principal": principal}
    session(context).act("token.revoke", request, lambda result: typer.echo(f"revoked {result['revoked']}"))


def key_create(
    context: typer.Context,
    principal: Principal,
    role: Role,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    ttl: Annotated[
        str | None, typer.Option(help="How long it lives; without it, until it is revoked.")
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Narrow it: ACTION or ACTION@RESOURCE.")] = None,
    enrol: Enrol = None,
) -> None:
    """Make an API key, shown once.

    For example: taut key create --principal app --role predictor
    """
    request = {
        "principal": principal, "roles": role, "name": name, "ttl": ttl, "scopes": scope or [], "enrol": enrol,
    }  # fmt: skip
    session(context).act("key.create", request, lambda result: _credential(result, "key"))


def keys(
    context: typer.Context, principal: Annotated[str | None, typer.Option("--principal", "-p")] = None
) -> None:
    """List API keys, never their secrets."""
    from taut.entrypoints import views

    session(context).act("key.list", {"principal": principal}, views.keys)


def key_rotate(
    context: typer.Context,
    id: str,
    overlap: Annotated[str, typer.Option(help="How long the former key goes on, up to 30d.")] = "24h",
) -> None:
    """Make an API key that takes the place of another, which goes on for a while.

    For example: taut key rotate 3f2a… --overlap 1h
    """
    session(context).act(
        "key.rotate", {"id": id, "overlap": overlap}, lambda result: _credential(result, "key")
    )


def key_revoke(context: typer.Context, id: str) -> None:
    """Refuse an API key from now on."""
    session(context).act("key.revoke", {"id": id}, lambda result: typer.echo(f"revoked {result['id']}"))


def secret_put(
    context: typer.Context,
    name: str,
    value: Annotated[str | None, typer.Option(help="The value; without it, standard input is read.")] = None,
) -> None:
    """Keep a secret; give it on standard input, so that no history holds it.

    For example: taut secret put db/password
    """
    text = sys.stdin.read().rstrip("\n") if value is None else value
    session(context).act(
        "secret.put", {"name": name, "value": text}, lambda result: typer.echo(f"kept {result['secret']}")
    )


def secrets(context: typer.Context) -> None:
    """List names of secrets, never their values."""
    session(context).act(
        "secret.list", {}, lambda result: typer.echo("\n".join(result["secrets"]) or "no secrets")
    )


def secret_delete(context: typer.Context, name: str) -> None:
    """Delete a secret."""
    session(context).act(
        "secret.delete", {"name": name}, lambda result: typer.echo(f"deleted {result['secret']}")
    )


def _credential(result: dict[str, object], field: str) -> None:
    """The credential alone on standard output, so that `$(taut token create …)` works; the rest beside it."""
    typer.echo(result[field])
    if result["enrolled"]:
        typer.echo(f"added {result['principal']}, a {result['enrolled']} that was not known before", err=True)
    if result["expires_at"]:
        typer.echo(f"valid until {result['expires_at']}", err=True)
    if field == "key":
        typer.echo("keep it: it is shown only now", err=True)


def _user(result: dict[str, object]) -> None:
    from taut.entrypoints import views

    views.fields({key: value for key, value in result.items() if key not in ("tokens_from_us",)})
