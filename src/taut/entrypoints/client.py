"""One client of the control plane with three ways to reach it: this process, the installation's socket, a URL."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from taut.core.errors import Conflict, InvalidInput, Unavailable
from taut.entrypoints.home import private_home
from taut.entrypoints.reaching import address_of, advice, open_http

if TYPE_CHECKING:
    import ssl

    import httpx

    from taut.entrypoints.operations import OperationTable
    from taut.entrypoints.operations.operation import Platform
    from taut.trust.tls import ClientFiles

Json = dict[str, Any]
Progress = Callable[[str, float | None], None]

SOCKET: Final = "run/control.sock"
LOCK: Final = "lock"
_NDJSON: Final = "application/x-ndjson"
_PATIENCE_S: Final = 10.0
"""How long a command waits for a database that went away: a person sits in front of it, and the next one carries on."""


class Transport(Protocol):
    """Carries one operation to where it is done, and its progress and result back."""

    def call(self, name: str, request: Json, progress: Progress) -> Json: ...

    def close(self) -> None: ...


class Client:
    """Everything that an operator or builder can do, as calls.

    url: where it was reached, empty for the installation here. Guarantees: the same operations, the same decisions of policy and the same errors over every transport.
    Not guaranteed: that work which was under way when the connection broke did not finish; ask for its state.
    """

    def __init__(self, transport: Transport, *, url: str = "") -> None:
        self.transport: Final = transport
        self.url: Final = url

    def call(self, name: str, request: Json | None = None, *, progress: Progress | None = None) -> Json:
        """Carry out operation `name`, such as `data.ingest`. Raises the TautError that it ended with."""
        return self.transport.call(name, request or {}, progress or _silent)

    def close(self) -> None:
        self.transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(
    home: Path,
    *,
    url: str | None = None,
    token: str | None = None,
    break_glass: str = "",
    tls: ClientFiles | None = None,
    silence_s: float | None = None,
) -> Client:
    """Reach the control plane: at `url`, else over the socket of the installation that runs in `home`, else here.

    tls: whom to trust at `url`, and what to show. Here means that this process takes the home's lock and runs control itself, until the client is closed.
    Raises Conflict when another process works in the home, Unavailable when nothing answers at `url` or the control of
    the platform that runs in the home is away for the moment.
    """
    if url is not None:
        return Client(_url_transport(url, token, tls, silence_s), url=address_of(url, tls))
    from taut.bootstrap.joined import refuse_joined

    refuse_joined(home)
    path = home / SOCKET
    if answers(path):
        return Client(_socket_transport(path, token, break_glass))
    try:
        return Client(InProcess(home, token=token, break_glass=break_glass))
    except Conflict:
        from taut.entrypoints.absent import absent_control

        if why := absent_control(home):
            raise Unavailable(why) from None
        raise


def connect_part(url: str, context: ssl.SSLContext, *, server_name: str, silence_s: float) -> Client:
    """Reach control as a part of the platform. context: what is shown there; server_name: of control's SVID in TLS."""
    import httpx

    http = httpx.Client(base_url=url, verify=context, trust_env=False, timeout=_timeout(silence_s))
    return Client(OverHttp(http, url, ExitStack(), server_name=server_name), url=url)


def answers(path: Path) -> bool:
    """Whether a process listens on the Unix socket."""
    import socket

    from taut.serving.snapshot.wire import socket_address

    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, socket_address(path) as address:
        probe.settimeout(2.0)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


@contextmanager
def home_lock(home: Path) -> Iterator[None]:
    """Hold the home for this process alone; freed by the kernel when it dies, however it dies.

    Raises Conflict when another process holds it, Denied when it is open to other users' hands.
    """
    private_home(home)
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            said = f" (process {holder})" if holder.isdigit() else ""
            raise Conflict(
                f"another process{said} works in {home}: wait until it ends, or name another home with --home"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)


class InProcess:
    """Control in this process, under the home's lock."""

    def __init__(self, home: Path, *, token: str | None = None, break_glass: str = "") -> None:
        self._token: Final = token
        self._break_glass: Final = break_glass
        self._stack: Final = ExitStack()
        self._stack.enter_context(home_lock(home))
        try:
            self._platform, self._table = self._stack.enter_context(_open(home))
            self._platform.patience_s = _PATIENCE_S
        except BaseException:
            self._stack.close()
            raise

    @property
    def platform(self) -> Platform:
        return self._platform

    def call(self, name: str, request: Json, progress: Progress) -> Json:
        import msgspec

        from taut.entrypoints.operations.operation import NOBODY, Caller, perform
        from taut.entrypoints.whose import caller_of, owner_caller

        if not self._table[name].reads:
            self._platform.own_database()
        if self._table[name].open:
            caller = Caller(principal=NOBODY, local=True)
        elif self._token:
            caller = caller_of(self._platform, self._token, local=True)
        else:
            caller = owner_caller(self._platform, break_glass=self._break_glass)
        if self._table[name].story:
            _carry_on(self._platform, progress)
        result = perform(self._table, self._platform, caller, name, request, progress)
        decoded: Json = msgspec.json.decode(
            msgspec.json.encode(result)
        )  # as over the wire, so none can differ
        return decoded

    def close(self) -> None:
        with self._stack:
            if self._platform.reached:
                _settle(self._platform)


def _carry_on(platform: Platform, progress: Progress) -> None:
    """Finish what a killed command left half done: nobody else works in this home, so nobody else will.

    How it ends is kept with the story, and is no failure of the command that comes after it.
    """
    from taut.ports.stories import StoryState

    for status in platform.stories.list(state=StoryState.RUNNING):
        progress(f"carrying on with {status.name}, which was interrupted ({status.id})", None)
        platform.stories.work(until_idle=True)


def _settle(platform: Platform) -> None:
    """Give what was done its place in the ledger and sign it, as control's housekeeper does where one runs.

    What was done is acknowledged and stays, so that a failure here is said and is no failure of the command; the next
    command, and the housekeeper, try again.
    """
    from taut.core.errors import TautError

    try:
        if (
            platform.ledger.sequence() or not platform.ledger.is_signed()
        ):  # a killed command may have left it so
            platform.ledger.checkpoint()
    except TautError as error:
        sys.stderr.write(f"note: the ledger is not signed up to here ({error.code}): {error.message}\n")


@contextmanager
def _open(home: Path) -> Iterator[tuple[Platform, OperationTable]]:
    from taut.bootstrap import open_platform
    from taut.entrypoints.operations import operation_table

    with open_platform(home, environ=os.environ) as platform:
        yield platform, operation_table()


class OverHttp:
    """The control API over HTTP, on a socket or at a URL."""

    def __init__(self, http: httpx.Client, where: str, held: ExitStack, *, server_name: str = "") -> None:
        """server_name: by which TLS knows who answers, where that is not the host of the address."""
        self._extensions: Final = {"sni_hostname": server_name} if server_name else {}
        self._http: Final = http
        self._where: Final = where
        self._held: Final = held

    def call(self, name: str, request: Json, progress: Progress) -> Json:
        import httpx

        try:
            return self._call(name, request, progress)
        except httpx.TransportError as error:
            raise Unavailable(
                f"the control plane at {self._where} does not answer ({str(error) or type(error).__name__}): "
                f"look at `taut status`, or start it with `taut up`{advice(error, self._where)}"
            ) from error

    def _call(self, name: str, request: Json, progress: Progress) -> Json:
        import msgspec

        from taut.entrypoints.errors import INTERNAL, from_document

        path = "/api/v1/" + name.replace(".", "/")
        sent = self._http.stream(
            "POST", path, json=request, headers={"accept": _NDJSON}, extensions=self._extensions
        )
        with sent as answer:
            if not answer.headers.get("content-type", "").startswith(_NDJSON):
                answer.read()
                raise _refusal(answer, self._where)
            for line in answer.iter_lines():
                told = msgspec.json.decode(line)
                if "progress" in told:
                    progress(told["progress"]["message"], told["progress"]["fraction"])
                elif "error" in told:
                    raise from_document(told["error"]["code"], _with_id(told["error"]))
                else:
                    result: Json = told["result"]
                    return result
        raise from_document(
            INTERNAL, f"the control plane at {self._where} ended {name} without a word: look into its log"
        )

    def close(self) -> None:
        self._http.close()
        self._held.close()


def _refusal(answer: httpx.Response, where: str) -> Exception:
    import msgspec

    from taut.entrypoints.errors import from_document

    try:
        told = msgspec.json.decode(answer.content)["error"]
        wait = float(answer.headers.get("retry-after", "1"))
        return from_document(told["code"], _with_id(told), retry_after_s=wait)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return InvalidInput(f"{where} answered {answer.status_code}, not as taut does: check --url")


def _with_id(told: Json) -> str:
    from taut.entrypoints.errors import INTERNAL

    return str(told["message"]) if told["code"] != INTERNAL else f"{told['message']} ({told['request_id']})"


def _socket_transport(path: Path, token: str | None, break_glass: str) -> OverHttp:
    import httpx

    from taut.serving.snapshot.wire import socket_address

    headers = {"authorization": f"Bearer {token}"} if token else {}
    if break_glass:
        headers["taut-break-glass"] = break_glass
    held = ExitStack()  # a long path's short address is valid only while this is open
    carrier = httpx.HTTPTransport(uds=held.enter_context(socket_address(path)))
    return OverHttp(
        httpx.Client(transport=carrier, base_url="http://control", headers=headers, timeout=_timeout()),
        str(path),
        held,
    )


def _url_transport(url: str, token: str | None, tls: ClientFiles | None, silence_s: float | None) -> OverHttp:
    address = address_of(url, tls)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    http = open_http(address, tls, headers=headers, timeout=_timeout(silence_s))
    return OverHttp(http, address, ExitStack())


def _timeout(silence_s: float | None = None) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(
        10.0, read=silence_s
    )  # long work sends progress, and a dead peer closes the connection


def _silent(_message: str, _fraction: float | None) -> None:
    """Nobody watches."""
