"""Commands on rights: policy, and break-glass."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from taut.entrypoints.cli.nouns import Verbs, add_noun
from taut.entrypoints.cli.project import Environment, File
from taut.entrypoints.cli.session import session

REJECTED = 10


def register(app: typer.Typer) -> None:
    rules: Verbs = {"show": show, "explain": explain, "test": try_cases, "review": review}
    add_noun(app, "policy", "Who may do what, in Cedar: the built-in policies and the project's own.", rules)
    glass: Verbs = {"start": start, "end": end}
    add_noun(
        app,
        "break-glass",
        "Acting in an emergency, under the built-in policies alone; all of it recorded.",
        glass,
    )


def show(
    context: typer.Context,
    text: Annotated[bool, typer.Option("--text", help="The Cedar text itself, as it holds.")] = False,
) -> None:
    """Show the policies that hold, by name and place."""
    from taut.entrypoints import policy_view

    view = (lambda result: typer.echo(result["text"])) if text else policy_view.shown
    session(context).act("policy.show", {}, view)


def explain(
    context: typer.Context,
    principal: Annotated[str, typer.Argument(help="Who asks; `owner` is the owner of the files.")],
    action: Annotated[str, typer.Argument(help="For what, such as model.approve.")],
    resource: Annotated[str, typer.Argument(help="On what, as KIND:NAME, such as model:delay@3.")],
    fact: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A fact that policies may look at, such as author=ada."),
    ] = None,
) -> None:
    """Say whether a principal may do something, and which policies decide it, with file and line.

    For example: taut policy explain ada model.approve model:delay@1
    """
    from taut.entrypoints import policy_view

    request = {"principal": principal, "action": action, "resource": resource, "context": _facts(fact or [])}
    session(context).act("policy.explain", request, policy_view.explained)


def try_cases(
    context: typer.Context,
    cases: Annotated[Path, typer.Argument(help="A file of cases, in YAML or JSON.")] = Path(
        "policies/tests.yaml"
    ),
    project: File = None,
    environment: Environment = None,
) -> None:
    """Try the project's policies, as they lie in its folder, on cases; exit 10 when one does not come out as expected.

    For example: taut policy test policies/tests.yaml
    """
    from taut.core.errors import InvalidInput, NotFound
    from taut.entrypoints import policy_view
    from taut.entrypoints.cli.project import load_here
    from taut.entrypoints.operations.operation import to_json
    from taut.lifecycle.plans import policy_of
    from taut.trust.policy.cases import read_cases, run_cases

    here = session(context)
    try:
        data = cases.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no file {cases}: name the file of cases, or write it there") from None
    except OSError as error:
        raise InvalidInput(f"{cases} cannot be read ({error.strerror}): name a file of cases") from error
    asked = read_cases(data, what=cases.name)
    policy = policy_of(load_here(project, environment).manifest)
    results = run_cases(policy, asked)
    failed = sum(1 for one in results if one.fault)
    result: dict[str, Any] = {
        "ok": not failed,
        "failed": failed,
        "digest": policy.digest,
        "cases": to_json(results),
    }
    here.show(result, policy_view.tested)
    if failed:
        raise typer.Exit(REJECTED)


def review(
    context: typer.Context,
    days: Annotated[int, typer.Option(help="How far back use is counted.", min=1, max=3660)] = 90,
) -> None:
    """Set everybody's rights beside their use: who could do what, who did, and which rights nobody used."""
    from taut.entrypoints import policy_view

    session(context).act("policy.review", {"days": days}, policy_view.reviewed)


def start(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; it is recorded for ever.")],
    ttl: Annotated[str, typer.Option(help="When it ends by itself, 1m to 8h.")] = "30m",
) -> None:
    """Begin an emergency: until it ends, who owns the files acts as owner without a sign-in.

    For example: taut break-glass start --reason "nobody can sign in" --ttl 30m

    The project's policies are put aside, the built-in ones hold. Every act is a leaf of the ledger, and the state is shown
    by `taut status`, `taut doctor`, each command and the figures of control until it ends.
    """
    from taut.entrypoints import policy_view

    here = session(context)
    here.break_glass = reason
    here.act("break-glass.start", {"reason": reason, "ttl": ttl}, policy_view.emergency)


def end(context: typer.Context) -> None:
    """End the emergency that holds."""
    from taut.entrypoints import policy_view

    session(context).act("break-glass.end", {}, policy_view.emergency)


def _facts(said: list[str]) -> dict[str, str | int | bool]:
    """Facts as policies know them: true and false are words, hour and weekday numbers, all else text."""
    from taut.core.errors import InvalidInput

    found: dict[str, str | int | bool] = {}
    for fact in said:
        name, equals, value = fact.partition("=")
        if not equals or not name:
            raise InvalidInput(
                f"--fact {fact[:80]!r} is not understood: write NAME=VALUE, for example author=ada"
            )
        plain: str | int | bool = int(value) if value.isascii() and value.isdigit() else value
        found[name] = value == "true" if value in ("true", "false") else plain
    return found
