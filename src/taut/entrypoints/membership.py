"""How a further machine is one: by an invitation once, then by an identity that it renews itself, and by which it reaches control."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec

from taut.bootstrap.joined import Joined
from taut.core.errors import Corrupt, Unavailable
from taut.entrypoints.client import Client, connect, connect_part
from taut.entrypoints.reaching import client_files
from taut.ports.world import Random
from taut.trust.svid import FIRST, Bundle, SpiffeId, Svid, make_request
from taut.trust.svid.held import Held, HeldFiles
from taut.trust.svid.proof import proof_of
from taut.trust.svid.tls import PartTls

Json = dict[str, Any]
_JITTER: Final = 0.2  # of half a life, so that machines which joined together do not renew together
_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"


def digest_of(invitation: str) -> str:
    """Return by what an invitation is known that was taken: not by itself."""
    return hashlib.sha256(invitation.encode()).hexdigest()


def enter(home: Path, joined: Joined, invitation: str, *, now: datetime) -> Joined:
    """Take an invitation; return what is known then. Raises Unauthenticated for one that is none, Unavailable without control."""
    files = HeldFiles(home)
    key = files.next_key()
    with public_way(home, joined) as client:
        answer = client.call("machine.enter", {"invitation": invitation, "csr": make_request(key)})
    return _take(files, joined, key, answer, now=now, invitation=digest_of(invitation))


def public_way(home: Path, joined: Joined, *, silence_s: float | None = None) -> Client:
    """Return the way to control's public port, where nobody knows yet who this is. Raises what is wrong with the files of TLS."""
    tls = client_files(joined.tls_ca or None, joined.client_cert or None, joined.client_key or None)
    return connect(home, url=joined.control, tls=tls, silence_s=silence_s)


class Membership:
    """A machine's identity, and its way to control. Safe for threads. A context manager.

    now: the wall clock. silence_s: how long control may say nothing. Guarantees: every call shows the newest identity and is made
    to the control of the same trust domain alone; an identity is renewed at about half of its life, by this machine's clock or
    by the time that has passed, whichever is sooner; at once where control tells of other authorities, or is not believed
    any more; and after its end, for as long as control allows.
    """

    def __init__(
        self, home: Path, joined: Joined, *, now: Callable[[], datetime], random: Random, silence_s: float
    ) -> None:
        """Raises NotFound, Corrupt, Denied for a home without an identity that can be used."""
        self._home: Final = home
        self._joined: Final = joined
        self._now: Final = now
        self._random: Final = random
        self._silence_s: Final = silence_s
        self._files: Final = HeldFiles(home)
        self._tls: Final = PartTls(self._files, now=now, judge=_believe)
        self._renewing: Final = threading.Lock()
        self._sequence = self._tls.held.bundle.sequence
        self._clients: list[Client] = []
        self._due: tuple[float, float] = (0.0, 0.0)
        self._adopt()

    def __enter__(self) -> Membership:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()

    @property
    def held(self) -> Held:
        """What is shown now."""
        return self._tls.held

    def call(self, name: str, request: Json) -> Json:
        """Carry out an operation of control's. Raises the TautError that it ended with, Unavailable where control is away."""
        if self._now() >= self.held.svid.not_after:
            self.renew()
        try:
            answer = self._clients[-1].call(name, request)
        except Unavailable as error:
            if (
                _UNTRUSTED in error.message
            ):  # control shows what a root issued that is newer than our last word from it
                self.renew()
            raise
        told = answer.get("authorities")
        if isinstance(told, int):
            self._sequence = told
        return answer

    def keep(self) -> None:
        """Renew what is due. To be called each second or so."""
        wall_s, passed_s = self._due
        other = self._sequence != self.held.bundle.sequence
        back = self._now() < self.held.svid.not_before
        if other or back or self._now().timestamp() >= wall_s or time.monotonic() >= passed_s:
            self.renew()

    def renew(self) -> None:
        """Have another key certified. Raises Unauthenticated where control does not, Unavailable where it is away."""
        before = self.held
        with self._renewing:
            if self.held is not before:
                return  # somebody else did meanwhile
            key, machine = self._files.next_key(), before.svid.id.name
            csr = make_request(key)
            request = {"machine": machine, "csr": csr, "proof": proof_of(before.key(), machine, csr)}
            with public_way(self._home, self._joined) as client:
                answer = client.call("machine.renew", request)
            _take(self._files, self._joined, key, answer, now=self._now())
            self._files.forget_next()
            self._tls.look()
            self._adopt()

    def _adopt(self) -> None:
        """Speak with the identity of now. What is under way on the former way ends there; older ones are closed."""
        held = self._tls.held
        control = SpiffeId(domain=held.svid.id.domain, kind="control", name=FIRST)
        self._clients.append(
            connect_part(
                door_of(self._joined), self._tls.client, server_name=control.host, silence_s=self._silence_s
            )
        )
        for old in self._clients[:-2]:
            old.close()
        del self._clients[:-2]
        self._sequence = held.bundle.sequence
        half_s = held.half_s() - held.svid.issued_at.timestamp()
        wait_s = half_s * (1.0 + _JITTER * (self._random.uniform() - 0.5))
        self._due = held.svid.issued_at.timestamp() + wait_s, time.monotonic() + wait_s


def door_of(joined: Joined) -> str:
    """Return where control listens for machines: on the host by which it is known, at the port that it named."""
    host = str(urlsplit(joined.control).hostname)
    return f"https://{f'[{host}]' if ':' in host else host}:{joined.door}"


def _take(
    files: HeldFiles,
    joined: Joined,
    key: ec.EllipticCurvePrivateKey,
    answer: Json,
    *,
    now: datetime,
    invitation: str = "",
) -> Joined:
    """Keep what control issued. Raises Corrupt for an answer that is none."""
    import msgspec

    try:
        chain = [base64.b64decode(der, validate=True) for der in answer["chain"]]
        who, door = SpiffeId.parse(answer["id"]), int(answer["door"])
        bundle = Bundle.from_json(answer["bundle"])
        held = files.write(key, chain, bundle, now=now)
        if held.svid.id != who or who.kind != "machine":
            raise ValueError(f"it is for {held.svid.id}, not for {who}")
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"control's answer holds no identity: {error}") from error
    changed = {"machine": who.name, "door": door, **({"invitation": invitation} if invitation else {})}
    return msgspec.structs.replace(joined, **changed)


def _believe(_shown: Svid) -> None:
    """A machine has nothing to add to what TLS says of control."""
