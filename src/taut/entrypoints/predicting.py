"""Asking an endpoint, wherever the data plane is: at a URL, in the installation that runs here, or in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from taut.core.errors import InvalidInput, TautError, Unavailable
from taut.entrypoints import errors
from taut.entrypoints.client import Client, InProcess, connect
from taut.entrypoints.reaching import address_of, advice, asking, inside_of, seen_from

if TYPE_CHECKING:
    from taut.trust.tls import ClientFiles

Json = dict[str, Any]

PRINCIPAL: Final = "command-line"
FEEDBACK: Final = "/v1/feedback"
_CODES: Final = {
    400: "invalid_input",
    401: "unauthenticated",
    403: "denied",
    404: "not_found",
    409: "conflict",
    429: "exhausted",
}


def predict(
    client: Client,
    home: Path,
    endpoint: str,
    instances: list[Json],
    *,
    token: str | None = None,
    tls: ClientFiles | None = None,
) -> Json:
    """Ask an endpoint of the installation that `client` reached; see `post`."""
    return post(client, home, _path(endpoint), {"instances": instances}, token=token, tls=tls)


def post(
    client: Client,
    home: Path,
    path: str,
    document: Json,
    *,
    token: str | None = None,
    tls: ClientFiles | None = None,
) -> Json:
    """Send a document to the data plane of the installation that `client` reached; without a token, as the service `command-line`.

    tls: for a data plane that is asked over the network. Returns the answer's JSON. Raises what the data plane refused with.
    """
    bearer = token or _short_token(client)
    body = msgspec.json.encode(document)
    if isinstance(client.transport, InProcess):
        from taut.entrypoints.embedded import ask_embedded

        headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
        status, answered, data = ask_embedded(home, path, headers, body)
        return answer_of(status, answered, data, str(home))
    where = client.call("status.show", {}).get("data_plane")
    if not where:
        raise Unavailable("the platform runs, but no gateway of it listens: look at `taut status`")
    if client.url:
        return post_at(seen_from(where, client.url), path, document, token=bearer, tls=tls)
    return post_at(where, path, document, token=bearer, inside=inside_of(home))


def _short_token(client: Client) -> str:
    """A token for the data plane, which knows no sessions: of who is signed in, or for the owner of the files a service's."""
    if client.call("user.whoami")["kind"] != "owner":
        return str(client.call("token.exchange", {"ttl": "5m"})["token"])
    request = {"principal": PRINCIPAL, "roles": ["predictor"], "ttl": "5m", "enrol": "service"}
    return str(client.call("token.create", request)["token"])


def predict_at(
    url: str,
    endpoint: str,
    instances: list[Json],
    *,
    token: str | None,
    tls: ClientFiles | None = None,
    inside: Path | None = None,
) -> Json:
    """Ask an endpoint at a URL; see `post_at`."""
    return post_at(url, _path(endpoint), {"instances": instances}, token=token, tls=tls, inside=inside)


def post_at(
    url: str,
    path: str,
    document: Json,
    *,
    token: str | None,
    tls: ClientFiles | None = None,
    inside: Path | None = None,
) -> Json:
    """Send a document to the data plane's URL, or to the control plane's, which is asked where its gateways are.

    tls: whom to trust there, and what to show. inside: the gateways' own socket, which is asked in the URL's place.
    """
    import httpx

    url = address_of(url, tls)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    body = msgspec.json.encode(document)
    try:
        with asking(url, tls, inside=inside, headers=headers, timeout=30.0) as http:
            answer = http.post(path, content=body, headers={"content-type": "application/json"})
            if answer.status_code == 404 and http.get("/v2").status_code == 404:
                with connect(Path(), url=url, token=token, tls=tls) as control:
                    where = control.call("status.show").get("data_plane")
                if where:
                    return post_at(seen_from(where, url), path, document, token=token, tls=tls)
                raise Unavailable(f"{url} is a control plane without a gateway: look at `taut status`")
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise Unavailable(
            f"the data plane at {url} does not answer ({error}): start it with `taut up`{advice(error, url)}"
        ) from error
    return answer_of(answer.status_code, dict(answer.headers), answer.content, url)


def _path(endpoint: str) -> str:
    return f"/v1/predict/{quote(endpoint, safe='')}"


def answer_of(status: int, headers: dict[str, str], data: bytes, where: str) -> Json:
    """Return an answer's document. Raises what the data plane refused with, InvalidInput for what is no taut."""
    try:
        document: Json = msgspec.json.decode(data)
        if status in (200, 202):
            return document
        raise _refusal(status, headers, document)
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise InvalidInput(f"{where} answered {status}, not as taut does: check the address") from error


def _refusal(status: int, headers: dict[str, str], document: Json) -> TautError:
    told = document["error"]
    code = told["code"] if told["code"] in errors.TABLE else _CODES.get(status, errors.INTERNAL)
    wait = headers.get("retry-after", "1")
    message = f"{told['message']} ({told['request_id']})"
    return errors.from_document(code, message, retry_after_s=float(wait) if wait.isdigit() else 1.0)
