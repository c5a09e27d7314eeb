"""What every command shares: where the installation is, how to call it, how to show what came back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from taut.entrypoints.client import Client
    from taut.entrypoints.saved import SavedSessions
    from taut.trust.tls import ClientFiles

Json = dict[str, Any]

_NEEDS_HOME: Final = (
    "data",
    "features",
    "run",
    "model",
    "edge",
    "release",
    "ledger",
    "why",
    "status",
    "batch",
    "stream",
    "session",
    "account",
    "oidc",
)
"""Nouns that have nothing to say, and nothing to begin, where no installation is: a wrong folder stays as it was."""

_OPEN: Final = ("session.start", "session.accept", "oidc.begin", "oidc.finish")
"""What is asked by somebody who is nobody yet."""

View = Callable[[Json], None]


class Session:
    """The global options of one command line."""

    def __init__(
        self,
        *,
        home: Path,
        url: str | None,
        token: str | None,
        json: bool,
        debug: bool,
        break_glass: str,
        tls_ca: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
    ) -> None:
        self._tls: Final = (tls_ca, client_cert, client_key)
        self.home = home.expanduser().absolute()
        self.url = url
        self.token = token
        self.json = json
        self.debug = debug
        self.break_glass = break_glass

    def connect(self, operation: str = "") -> Client:
        """Reach the installation. Raises NotFound where there is none and `operation` could only say so."""
        from taut.core.errors import NotFound
        from taut.entrypoints.client import connect

        if self.url is None and operation.partition(".")[0] in _NEEDS_HOME and not self.home.exists():
            raise NotFound(
                f"there is no installation in {self.home}: go to the project's folder, name its state with --home, or "
                "begin one with `taut apply`"
            )

        token = self.token or self._kept(operation)
        return connect(self.home, url=self.url, token=token, break_glass=self.break_glass, tls=self.tls)

    def sign_in(self, operation: str, request: Json) -> Json:
        """Begin a session and keep it for the commands that follow. Returns what may be shown of it."""
        from taut.entrypoints.reaching import require_private
        from taut.entrypoints.saved import Saved

        if self.url is not None:
            require_private(self.url, self.tls)
        result = self.ask(operation, {**request, "kind": "command"})
        kept = {
            name: result.pop(name) if name == "session" else result[name] for name in Saved.__struct_fields__
        }
        self._saved().put(self._target(), Saved(**kept))
        return result

    def sign_out(self) -> Json:
        """End the session that is kept for this installation, and forget it even where control does not answer."""
        from taut.core.errors import Unauthenticated

        if self._saved().get(self._target()) is None:
            return {"ended": None, "said": "you are not signed in here"}
        try:
            ended = self.ask("session.end", {})["ended"]
        except Unauthenticated:
            ended = None  # it was over already
        finally:
            self.forget()
        return {"ended": ended, "said": "signed out"}

    def forget(self) -> None:
        """Remove what is kept of the session here."""
        self._saved().remove(self._target())

    def _kept(self, operation: str) -> str | None:
        if self.break_glass or operation in _OPEN:
            return None
        found = self._saved().get(self._target())
        return None if found is None else found.session

    def _saved(self) -> SavedSessions:
        from taut.entrypoints.saved import SavedSessions, folder_of

        return SavedSessions(folder_of(self.environ))

    def _target(self) -> str:
        from taut.entrypoints.reaching import address_of

        return f"home:{self.home}" if self.url is None else address_of(self.url, self.tls)

    @property
    def tls(self) -> ClientFiles | None:
        """Whom to trust at `url`, and what to show there."""
        from taut.entrypoints.reaching import client_files

        return client_files(*self._tls)

    def act(self, operation: str, request: Json, view: View) -> None:
        """Carry out an operation, show its result, and end with the gate's exit code if a gate did not admit."""
        self.finish(self.ask(operation, request), view)

    def ask(self, operation: str, request: Json) -> Json:
        """Carry out an operation and return its result, with progress on standard error."""
        from taut.entrypoints.render import watching

        with self.connect(operation) as client, watching(sys.stderr) as progress:
            return client.call(operation, request, progress=progress)

    def show_only(self, operation: str, request: Json, view: View) -> None:
        """Carry out an operation whose verdict was given earlier, so that it is no reason to fail now."""
        self.show(self.ask(operation, request), view)

    def finish(self, result: Json, view: View) -> None:
        """Show a result and end with the exit code that it stands for."""
        from taut.entrypoints.errors import exit_code_of_result

        self.show(result, view)
        code = exit_code_of_result(result)
        if code:
            raise typer.Exit(code)

    def show(self, result: Json, view: View) -> None:
        if not self.json:
            view(result)
            return
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")

    @property
    def environ(self) -> dict[str, str]:
        return dict(os.environ)


def session(context: typer.Context) -> Session:
    """Return the session of a command."""
    found = context.find_root().obj
    assert isinstance(found, Session)
    return found
