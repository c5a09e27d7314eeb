"""Holders that are slow, down, full of nonsense or closed to us: said as what it is, and nothing lost."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
import msgspec
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from taut.adapters.keys.held import HeldKeys
from taut.adapters.keys.kms import KmsHolder
from taut.adapters.keys.remote import Limits
from taut.adapters.keys.sigv4 import Credentials, signed_headers
from taut.adapters.keys.vault import VaultHolder
from taut.core.errors import Corrupt, Denied, InvalidInput, Unavailable
from taut.ports.keys import Keys
from taut.testing.world import ManualClock, SeededRandom

SECRET = "hvs.never-shown"


class Server:
    """Answers as it is told; `asked` is what came."""

    def __init__(self, answer: Callable[[httpx.Request, int], httpx.Response]) -> None:
        self.asked: list[httpx.Request] = []
        self._answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self._answer(request, len(self.asked))


def vault(server: Server) -> Keys:
    holder = VaultHolder(
        "http://127.0.0.1:1/transit", token=SECRET, clock=ManualClock(), random=SeededRandom(),
        transport=httpx.MockTransport(server),
    )  # fmt: skip
    return HeldKeys(holder, prefix="t", kind="Vault")


def kms(server: Server) -> Keys:
    holder = KmsHolder(
        "http://127.0.0.1:1", region="eu-west-1", credentials=Credentials("AKID", SECRET), clock=ManualClock(),
        random=SeededRandom(), limits=Limits(budget_s=2.0), transport=httpx.MockTransport(server),
    )  # fmt: skip
    return HeldKeys(holder, prefix="t", kind="KMS")


BOTH = pytest.mark.parametrize("holder", [vault, kms])


@BOTH
def test_one_that_is_down_is_unavailable_after_the_budget_and_not_before(
    holder: Callable[[Server], Keys],
) -> None:
    def down(request: httpx.Request, _turn: int) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    server = Server(down)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        holder(server).wrap(b"key", purpose="data", context=b"")
    assert 4 <= len(server.asked) <= 20
    assert SECRET not in str(caught.value)


@BOTH
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_fault_that_passes_is_tried_again(holder: Callable[[Server], Keys], status: int) -> None:
    server = Server(lambda _request, turn: httpx.Response(status if turn == 1 else 403, json=REFUSAL))
    with pytest.raises(Denied) as caught:
        holder(server).public_keys(purpose="token")
    assert len(server.asked) == 2
    assert SECRET not in str(caught.value)


REFUSAL = {"errors": ["permission denied"], "__type": "AccessDeniedException"}
NONSENSE = [
    b"", b"null", b"{}", b"[]", b"<html>", b"\xff\xfe", b'{"data": null}', b'{"data": {"latest_version": "one"}}',
    b"[" * 100_000, b'{"data": {"latest_version": 1, "keys": {}}}', b'{"KeyMetadata": 7}',
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_never_taken_for_a_key(holder: Callable[[Server], Keys], body: bytes) -> None:
    server = Server(lambda _request, _turn: httpx.Response(200, content=body))
    with pytest.raises((Unavailable, Corrupt)):
        holder(server).public_keys(purpose="token")
    with pytest.raises((Unavailable, Corrupt)):
        holder(server).wrap(b"key", purpose="data", context=b"")


def test_an_answer_without_end_is_cut_off() -> None:
    server = Server(lambda _request, _turn: httpx.Response(200, content=bytes(2 << 20)))
    with pytest.raises(Unavailable, match="without end"):
        vault(server).public_keys(purpose="token")


def test_an_answer_that_drips_is_given_up_when_the_budget_is_spent() -> None:
    clock = ManualClock()

    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(1000):
                clock.advance(1.0)
                yield b" "

    server = Server(lambda _request, _turn: httpx.Response(200, stream=Drip()))
    holder = VaultHolder(
        "http://127.0.0.1:1/transit", token=SECRET, clock=clock, random=SeededRandom(),
        transport=httpx.MockTransport(server),
    )  # fmt: skip
    with pytest.raises(Unavailable, match="too slowly"):
        holder.newest("t-data")
    assert clock.monotonic_s() < 15


def test_a_wrapped_key_that_does_not_open_again_is_not_handed_out() -> None:
    """A Vault that seals and opens something else: the data key under which one would write is never returned."""

    def answer(request: httpx.Request, _turn: int) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": {"latest_version": 1}})
        if "/encrypt/" in str(request.url):
            return httpx.Response(200, json={"data": {"ciphertext": "vault:v1:AAAA"}})
        return httpx.Response(200, json={"data": {"plaintext": base64.b64encode(b"another").decode()}})

    with pytest.raises(Unavailable, match="does not open again"):
        vault(Server(answer)).wrap(b"key", purpose="data", context=b"")


def test_a_damaged_wrapped_key_costs_no_call() -> None:
    server = Server(lambda _request, _turn: httpx.Response(500))
    with pytest.raises(Corrupt):
        vault(server).unwrap(b"\x02\x00\x00\x00\x01vault:v1:AAAA12345678", purpose="data", context=b"")
    assert not server.asked


def test_throttling_by_kms_is_waited_for() -> None:
    throttled = {"__type": "ThrottlingException"}
    server = Server(
        lambda _request, turn: httpx.Response(
            400, json=throttled if turn < 3 else {"__type": "NotFoundException"}
        )
    )
    holder = KmsHolder(
        "http://127.0.0.1:1", region="eu-west-1", credentials=Credentials("AKID", SECRET), clock=ManualClock(),
        random=SeededRandom(), transport=httpx.MockTransport(server),
    )  # fmt: skip
    assert holder.newest("t-data") == 0
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "url", ["http://vault.example:8200/transit", "ftp://x/transit", "https://vault:8200"]
)
def test_an_address_that_gives_keys_away_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        VaultHolder(url, token="t", clock=ManualClock(), random=SeededRandom())


@pytest.mark.parametrize("text", ["", "only", ":x", "a:", "a:b\n"])
def test_a_malformed_access_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Credentials.parse(text)
    assert "only" not in str(caught.value)


def test_what_we_sign_is_what_the_vendor_signs() -> None:
    """botocore, which is in the tests for moto, signs the same request the same way."""
    now = datetime.now(UTC)
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "TrentService.Encrypt"}
    body = msgspec.json.encode({"KeyId": "alias/x"})
    url = "https://kms.eu-west-1.amazonaws.com/"
    theirs = AWSRequest("POST", url, headers=headers, data=body)
    SigV4Auth(BotoCredentials("AKID", SECRET, "token"), "kms", "eu-west-1").add_auth(theirs)
    stamp = datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs((stamp - now).total_seconds()) < 60
    ours = signed_headers(
        url, headers, body, credentials=Credentials("AKID", SECRET, "token"), region="eu-west-1", service="kms", now=stamp
    )  # fmt: skip
    assert ours["authorization"] == theirs.headers["Authorization"]
