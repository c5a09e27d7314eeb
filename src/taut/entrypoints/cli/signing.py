"""Commands by which a person signs in and out: login, logout, whoami, account, session."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.session import Session, session

Json = dict[str, Any]

_STDIN = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


def register(app: typer.Typer) -> None:
    app.command("login")(login)
    app.command("logout")(logout)
    app.command("whoami")(whoami)
    account: Verbs = {
        "show": show,
        "password": password,
        "totp": totp,
        "remove-totp": remove_totp,
        "remove-passkey": remove_passkey,
    }
    add_noun(app, "account", "What you sign in with.", account)
    add_noun(app, "session", "Who is signed in.", {"list": sessions, "revoke": revoke})


def login(
    context: typer.Context,
    principal: Annotated[str, typer.Argument(help="Your name here; not with --provider.")] = "",
    provider: Annotated[
        bool, typer.Option("--provider", help="At the identity provider, in a browser.")
    ] = False,
    browser: Annotated[bool, typer.Option(help="Open the browser, or print the address alone.")] = True,
    invitation: Annotated[
        str, typer.Option(help="Of an administrator: sets the password that you give.", show_default=False)
    ] = "",
    code: Annotated[
        str | None, typer.Option(help="Of your authenticator app, or a recovery code.", show_default=False)
    ] = None,
    password_stdin: _STDIN = False,
) -> None:
    """Sign in; commands act as you from then on, until `taut logout` or 12 hours later.

    For example: taut login ada, or taut login --provider

    The session is kept in a file that you alone can read, and ends after an hour in which nothing was done. Approving and releasing ask
    for a sign-in of the last 15 minutes.
    """
    from taut.core.errors import InvalidInput

    here = session(context)
    if provider == bool(principal):
        raise InvalidInput("login takes your name here, or --provider to sign in in a browser")
    if provider:
        here.show(here.sign_in("oidc.finish", _in_browser(here, open_it=browser)), _signed_in)
        return
    typed = not password_stdin and sys.stdin.isatty()
    secret = _secret(
        "New password" if invitation else "Password", stdin=password_stdin, twice=bool(invitation)
    )
    if code is None:
        code = (
            typer.prompt("Code (empty if you have none)", default="", show_default=False, err=True)
            if typed
            else ""
        )
    request = {"principal": principal, "password": secret, "code": code}
    if invitation:
        result = here.sign_in("session.accept", {**request, "invitation": invitation})
    else:
        result = here.sign_in("session.start", request)
    here.show(result, _signed_in)


def logout(context: typer.Context) -> None:
    """Sign out here: the session ends, and what was kept of it is removed."""
    here = session(context)
    here.show(here.sign_out(), lambda result: typer.echo(result["said"]))


def whoami(context: typer.Context) -> None:
    """Say as whom commands act, and until when."""
    from taut.entrypoints import views

    session(context).act("user.whoami", {}, views.fields)


def show(context: typer.Context) -> None:
    """Show what you sign in with, and where you are signed in."""
    from taut.entrypoints import views

    session(context).act("account.show", {}, views.account)


def password(context: typer.Context, password_stdin: _STDIN = False) -> None:
    """Change your password. All your sessions end.

    With --password-stdin the first line is the current password and the second one the new.
    """
    here = session(context)
    current = _secret("Current password", stdin=password_stdin)
    new = _secret("New password", stdin=password_stdin, twice=True)
    result = here.ask("account.password", {"current": current, "new": new})
    here.forget()
    here.show(result, lambda _: typer.echo("changed; sign in again with `taut login`"))


def totp(
    context: typer.Context,
    code: Annotated[str, typer.Option(help="A code of the app that was begun with, to confirm it.")] = "",
) -> None:
    """Sign in with an authenticator app too: first without --code, then with a code that it shows.

    For example: taut account totp
    """
    here = session(context)
    if code:
        here.act("totp.confirm", {"code": code}, _recovery)
    else:
        here.act("totp.begin", {}, _app)


def remove_totp(context: typer.Context) -> None:
    """Sign in without an authenticator app again."""
    session(context).act("totp.remove", {}, lambda _: typer.echo("removed, with the recovery codes"))


def remove_passkey(context: typer.Context, id: str) -> None:
    """Forget a passkey; `taut account show` names them."""
    session(context).act("passkey.remove", {"id": id}, lambda _: typer.echo("removed"))


def sessions(
    context: typer.Context, principal: Annotated[str | None, typer.Option("--principal", "-p")] = None
) -> None:
    """List who is signed in."""
    from taut.entrypoints import views

    session(context).act("session.list", {"principal": principal}, views.sessions)


def revoke(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The session's id.")] = "",
    principal: Annotated[str, typer.Option("--principal", "-p", help="All sessions of this person.")] = "",
) -> None:
    """End a session, or all of a person, from now on."""
    request = {"id": id, "principal": principal}
    session(context).act("session.revoke", request, lambda result: typer.echo(f"ended {result['ended']}"))


def _in_browser(here: Session, *, open_it: bool) -> Json:
    """Let the person prove himself at the provider, and return what came back from there."""
    from taut.entrypoints.loopback import Loopback

    with Loopback() as back:
        begun = here.ask("oidc.begin", {"redirect_uri": back.uri, "kind": "command"})
        typer.echo(f"sign in at {begun['authorization_url']}", err=True)
        if open_it:
            import webbrowser

            webbrowser.open(begun["authorization_url"])
        return {"handle": begun["handle"], **back.wait()}


def _secret(what: str, *, stdin: bool, twice: bool = False) -> str:
    """Ask for a password, never as an argument: others see those, and histories keep them."""
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    found: str = typer.prompt(what, hide_input=True, confirmation_prompt=twice, err=True)
    return found


def _signed_in(result: Json) -> None:
    typer.echo(
        f"signed in as {result['principal']} ({', '.join(result['roles'])}) until {result['expires_at']}"
    )


def _app(result: Json) -> None:
    typer.echo(f"secret  {result['secret']}\naddress {result['uri']}")
    typer.echo("put it into your app, then: taut account totp --code CODE", err=True)


def _recovery(result: Json) -> None:
    typer.echo("\n".join(result["recovery_codes"]))
    typer.echo(
        "keep these recovery codes: each is good once in place of a code, and they are shown only now",
        err=True,
    )
