"""Declaring who is told of alerts, and what is done about whom they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, cast
from urllib.parse import urlsplit

from taut.core.errors import InvalidInput
from taut.core.refs import check_name
from taut.project import words
from taut.project.declare import declare
from taut.project.endpoints import Endpoint
from taut.project.manifest import ContainSpec, ReceiverSpec, Severity
from taut.project.words import worded

SEVERITIES: Final = ("info", "warning", "critical")
ACTIONS: Final = ("throttle", "step_up", "quarantine", "revoke")
_KIND: Final = re.compile(r"[a-z][a-z_]*(?:\.[a-z_]+)*")
_MAIL: Final = re.compile(r"[^@\s<>,;]{1,64}@[^@\s<>,;]{1,253}")


class Receiver:
    """Somebody who is told of alerts: a `taut.Webhook` or a `taut.Email`."""

    spec: ReceiverSpec

    @property
    def name(self) -> str:
        return self.spec.name


class Webhook(Receiver):
    """A URL that alerts are posted to, as CloudEvents signed in the form of Standard Webhooks."""

    @worded("Webhook")
    def __init__(
        self,
        name: str,
        *,
        url: str,
        secret: str,
        severity: str = "warning",
        kinds: Sequence[str] = (),
        inside: bool = False,
    ) -> None:
        """url: `https://…`; `http://` on this machine only. secret: name of the secret by which bodies are signed.

        severity: the least that is sent. kinds: such as `share` or `abuse`; all where none is named. inside: whether the URL
        is in a private network, which is refused otherwise.
        """
        what = f"Webhook {name!r}"
        if _scheme(url, what) not in ("https", "http"):
            raise InvalidInput(f"{what}: url is {url!r}: write https://HOST/PATH")
        self.spec = ReceiverSpec(
            name=words.name(name, "receiver"), kind="webhook", url=url, secret=_secret(secret, what),
            severity=_severity(severity, what), kinds=kinds_of(kinds, what), inside=_flag(inside, what),
        )  # fmt: skip
        self.place = declare("receiver", self.name, self)


class Email(Receiver):
    """People who are told of alerts by mail."""

    @worded("Email")
    def __init__(
        self,
        name: str,
        *,
        to: str | Sequence[str],
        sender: str,
        server: str,
        user: str = "",
        secret: str = "",
        severity: str = "warning",
        kinds: Sequence[str] = (),
        inside: bool = False,
    ) -> None:
        """server: `smtps://HOST:465` or `smtp://HOST:587`, which must offer TLS. user, secret: by whom letters are handed in,
        and the name of the secret with his password. severity, kinds, inside: as of a `taut.Webhook`.
        """
        what = f"Email {name!r}"
        if _scheme(server, what) not in ("smtps", "smtp"):
            raise InvalidInput(f"{what}: server is {server!r}: write smtps://HOST:465 or smtp://HOST:587")
        if bool(user) != bool(secret):
            raise InvalidInput(f"{what}: user and secret go together: give both, or none of them")
        receivers = words.texts(to, f"{what}: to")
        for address in (*receivers, sender):
            if not _MAIL.fullmatch(address) or not address.isprintable():
                raise InvalidInput(
                    f"{what}: {address!r} is no address of mail: write for example ops@example.org"
                )
        if not receivers:
            raise InvalidInput(f"{what}: to names nobody: write for example ops@example.org")
        self.spec = ReceiverSpec(
            name=words.name(name, "receiver"), kind="email", url=server, to=receivers, sender=sender, user=user,
            secret=_secret(secret, what) if secret else "", severity=_severity(severity, what),
            kinds=kinds_of(kinds, what), inside=_flag(inside, what),
        )  # fmt: skip
        self.place = declare("receiver", self.name, self)


class Contain:
    """What is done at once, for a time, about a principal whom an alert names."""

    @worded("Contain")
    def __init__(
        self,
        name: str,
        *,
        on: str,
        action: str,
        severity: str = "critical",
        lasts: str = "1h",
        per_s: float | None = None,
        allow: Sequence[Endpoint] = (),
    ) -> None:
        """on: kind of alerts, such as `share`, or `abuse` for all that begin so. severity: the least that counts.

        action: `throttle` to `per_s` requests a second, `step_up` (people sign in again, programs exchange their key),
        `quarantine` to the endpoints in `allow`, `revoke`. lasts: until it ends by itself, at most 30d; people can lift it
        before. The last who administers the installation is never contained.
        """
        what = f"Contain {name!r}"
        chosen = words.one_of(action, ACTIONS, f"{what}: action")
        if (chosen == "throttle") != (per_s is not None):
            raise InvalidInput(
                f"{what}: per_s belongs to a throttle, and only to one: give the requests a second that it leaves"
            )
        allowed = words.instances(
            allow, Endpoint, f"{what}: allow", "name the taut.Endpoint objects that it leaves"
        )
        if allowed and chosen != "quarantine":
            raise InvalidInput(f"{what}: allow belongs to a quarantine: leave it out of a {chosen}")
        self.spec = ContainSpec(
            name=words.name(name, "containment"), on=kinds_of((on,), what)[0], action=chosen,  # type: ignore[arg-type]  # one_of checked it
            severity=_severity(severity, what), lasts=words.duration(lasts, f"{what}: lasts"),
            per_s=words.optional_number(per_s, f"{what}: per_s", low=0.001, high=1e6) or 0.0,
            allow=tuple(endpoint.name for endpoint in allowed),
        )  # fmt: skip
        self.place = declare("containment", self.spec.name, self)


def _scheme(url: str, what: str) -> str:
    try:
        parts = urlsplit(words.text(url, f"{what}: url"))
        sound = bool(parts.hostname) and (parts.port or 1) > 0 and not parts.username and url.isprintable()
    except ValueError:
        sound = False
    if not sound:
        raise InvalidInput(
            f"{what}: {str(url)[:200]!r} is no address: write SCHEME://HOST, without a user in it"
        )
    return parts.scheme


def _secret(name: str, what: str) -> str:
    return "/".join(
        check_name(part, what=f"{what}: secret") for part in words.text(name, f"{what}: secret").split("/")
    )


def _severity(value: str, what: str) -> Severity:
    found = words.one_of(value, SEVERITIES, f"{what}: severity")
    return cast(Severity, found)


def kinds_of(kinds: Sequence[str], what: str) -> tuple[str, ...]:
    """Check kinds of alerts."""
    found = words.texts(kinds, f"{what}: kinds")
    for kind in found:
        if not _KIND.fullmatch(kind):
            raise InvalidInput(
                f"{what}: {kind!r} is no kind of alerts: write for example share, or abuse.inversion"
            )
    return found


def _flag(value: bool, what: str) -> bool:
    return bool(words.optional_flag(value, f"{what}: inside"))
