"""Telling one receiver of one change of an alert: tried again for a day, then given up where people see it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taut.core.cloudevents import STRUCTURED, Event, encode_event
from taut.core.errors import Denied, InvalidInput, NotFound, TautError
from taut.ports.mail import Letter, Mail, MailServer
from taut.ports.secrets import Secrets
from taut.ports.stories import Story
from taut.ports.web import Web
from taut.project.manifest import Manifest, ReceiverSpec
from taut.trust.deliveries import Deliveries, Delivery, Outcome
from taut.trust.findings import Finding
from taut.trust.incidents import Incident

if TYPE_CHECKING:
    from taut.workflows.rooms import Rooms

PAUSES: Final = tuple(
    timedelta(seconds=one) for one in (5, 30, 120, 600, 3600, 4 * 3600, 8 * 3600, 12 * 3600)
)
"""Between the attempts: about a day in all."""

About = Finding | Incident
_OK: Final = range(200, 300)
_GONE: Final = 410
_FINAL: Final = (Denied, InvalidInput)
_KEY: Final = "whsec_"


class Tell(msgspec.Struct, frozen=True, kw_only=True):
    delivery: str


def tell(rooms: Rooms, story: Story, request: Tell) -> dict[str, Any]:
    """Tell of a delivery; return how it ended. Whoever is told may hear it twice, under one id."""
    deliveries: Deliveries = rooms.alarms.deliveries
    for attempt in range(1, len(PAUSES) + 2):
        found = story.step(
            f"attempt {attempt}", lambda: msgspec.to_builtins(rooms.alarms.attempt(request.delivery))
        )
        outcome = msgspec.convert(found, Outcome)
        last = outcome.final or attempt > len(PAUSES)
        state: Any = "delivered" if outcome.ok else "dead" if last else "waiting"

        def note(tx: Any, *, attempts: int = attempt, state: Any = state, said: str = outcome.said) -> None:
            deliveries.tried(tx, request.delivery, attempts=attempts, state=state, said=said)

        story.commit(f"outcome {attempt}", note)
        if state != "waiting":
            break
        story.wait(f"pause {attempt}", timeout=PAUSES[attempt - 1])
    return {"delivery": request.delivery, "state": state, "attempts": attempt}


class Teller:
    """Sends deliveries to where the project says now, so that an address that was mended is used by the next attempt."""

    def __init__(self, *, web: Web, mail: Mail, secrets: Secrets) -> None:
        self._web: Final = web
        self._mail: Final = mail
        self._secrets: Final = secrets

    def send(self, delivery: Delivery, about: About, manifest: Manifest, *, now: datetime) -> Outcome:
        """Send once. Never raises for what another attempt may mend, or what people must."""
        receiver = next((one for one in manifest.receivers if one.name == delivery.receiver), None)
        if receiver is None:
            return Outcome(
                ok=False, final=True, said=f"the project declares no receiver {delivery.receiver!r} any more"
            )
        try:
            if receiver.kind == "webhook":
                return self._post(receiver, delivery, about, now=now)
            self._mail.send(
                MailServer(
                    url=receiver.url, user=receiver.user, inside=receiver.inside,
                    password=self._secrets.get(receiver.secret) if receiver.secret else "",
                ),
                letter_of(receiver, delivery, about),
            )  # fmt: skip
        except NotFound as error:
            return Outcome(ok=False, said=f"{error.message} (`taut secret put {receiver.secret}`)")
        except TautError as error:
            return Outcome(ok=False, final=isinstance(error, _FINAL), said=f"{error.code}: {error.message}")
        return Outcome(ok=True, said="taken by the mail server")

    def _post(self, receiver: ReceiverSpec, delivery: Delivery, about: About, *, now: datetime) -> Outcome:
        body = body_of(delivery, about)
        headers = signed(delivery.id, body, self._secrets.get(receiver.secret), now=now)
        answer = self._web.send(receiver.url, body, headers, inside=receiver.inside)
        ok = answer.status in _OK
        return Outcome(ok=ok, final=answer.status == _GONE, said=f"HTTP {answer.status}")


def body_of(delivery: Delivery, about: About) -> bytes:
    """Return a delivery as a CloudEvent in its structured JSON form; `data` is the alert, or the incident with the words about it."""
    if isinstance(about, Incident):
        data: Any = {**msgspec.to_builtins(about), "words": delivery.words}
        kind, subject = "incident", about.endpoint or about.principal
    else:
        data, kind, subject = about, "alert", about.principal or about.group
    return encode_event(
        Event(
            id=delivery.id, source="taut", type=f"taut.{kind}.{delivery.change}", time=delivery.made_at.isoformat(),
            subject=subject or about.id, data=msgspec.json.encode(data),
        )
    )  # fmt: skip


def signed(id_: str, body: bytes, secret: str, *, now: datetime) -> dict[str, str]:
    """Return the headers of Standard Webhooks 1.0.0: HMAC-SHA256 over id, time and body.

    secret: its bytes, or `whsec_` and base64 of them. Raises InvalidInput for one that begins so and is none.
    """
    try:
        key = (
            base64.b64decode(secret.removeprefix(_KEY), validate=True)
            if secret.startswith(_KEY)
            else secret.encode()
        )
    except binascii.Error as error:
        raise InvalidInput(
            "the webhook's secret begins with whsec_, and is no base64 after it: put it again"
        ) from error
    stamp = str(int(now.timestamp()))
    digest = hmac.new(key, f"{id_}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": STRUCTURED,
        "webhook-id": id_,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def letter_of(receiver: ReceiverSpec, delivery: Delivery, about: About) -> Letter:
    """Return a delivery as a letter."""
    if isinstance(about, Incident):
        return Letter(
            id=f"<{delivery.id}@taut.invalid>", sender=receiver.sender, to=receiver.to, text=f"{delivery.words}\n",
            subject=f"[taut] {about.severity}: {delivery.change} {about.endpoint or about.principal}".rstrip(),
        )  # fmt: skip
    finding = about
    who = finding.principal or finding.group
    figures = "\n".join(f"  {name}: {value}" for name, value in finding.evidence.items())
    ends = f"It ends with: {finding.closes}.\n" if finding.closes else ""
    text = (
        f"{finding.summary or finding.kind}\n\n{figures}\n\nSince {finding.since:%Y-%m-%d %H:%M:%S} UTC. {ends}"
        f"Look at it with `taut alerts show {finding.id}`.\n"
    )
    return Letter(
        id=f"<{delivery.id}@taut.invalid>", sender=receiver.sender, to=receiver.to, text=text,
        subject=f"[taut] {finding.severity}: {finding.kind} {who} {delivery.change}",
    )  # fmt: skip
