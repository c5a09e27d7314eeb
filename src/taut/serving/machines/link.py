"""What stands in control's place on a further machine: follows control, and is the publisher of the gateways here."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from taut.core.errors import Conflict, Corrupt, Denied, TautError, Unavailable
from taut.ports.keys import PublicKey
from taut.ports.world import Random
from taut.serving.machines.artifacts import artifacts_of, place
from taut.serving.machines.records import hand_over
from taut.serving.snapshot import Publisher, ServingSnapshot, TrustFile, open_snapshot
from taut.trust.signing import SignedStatement

Json = dict[str, Any]
Call = Callable[[str, Json], Json]
"""Carries out an operation of control and returns its result; raises the TautError that it ended with."""

FOLLOW_S: Final = 10.0
_REPORT_S: Final = 1.0
_HAND_OVER_S: Final = 2.0
_FIRST_S: Final = 0.05
_LAST_S: Final = 0.5  # so that a machine is back within a second of control, as its gateways are
_REFUSED_S: Final = 5.0
_REFUSALS: Final = ("unauthenticated", "denied", "invalid_input")


class _Left(Exception):
    """What was being done is for an epoch that is not the newest any more."""


def carry(call: Call, gateway: str, data: bytes) -> list[tuple[str, bytes]]:
    """Carry what a gateway says to admission in control, and bring back what it is told. Raises what the call raises."""
    answer = call("fleet.admit", {"gateway": gateway, "word": base64.b64encode(data).decode()})
    try:
        return [(gateway, base64.b64decode(word, validate=True)) for word in answer["words"]]
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"control's answer to {gateway} is none: {error}") from error


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine says of itself. instance: of its home. url: of its data plane. gateways: how many run here."""

    instance: str
    url: str
    gateways: int


def keys_of(answer: Json) -> tuple[PublicKey, ...]:
    """Return the keys that sign what is served, from the answer of `fleet.join`. Raises Corrupt where there are none."""
    try:
        found = msgspec.convert(answer.get("keys"), tuple[PublicKey, ...])
    except msgspec.ValidationError as error:
        raise Corrupt(f"control's answer names no keys: {error}") from error
    if not found:
        raise Corrupt("control's answer names no keys: it cannot be followed")
    return found


def take_keys(answer: Json, trust: TrustFile) -> None:
    """Believe the keys that control named, which are those of before and such as it rotated to since.

    Raises Conflict where one of before is missing: that is another installation.
    """
    found = keys_of(answer)
    try:
        known = trust.read()
    except Unavailable:  # joins for the first time
        known = ()
    if not set(known) <= set(found):
        raise Conflict(
            "control does not know the keys that this machine believes: it is another installation. If that is meant, begin "
            "again with an empty --home"
        )
    if set(found) != set(known):
        trust.write(found)


class Link:
    """Five threads, each with one duty that it does for ever: follow, place what was followed, report, hand records over, and keep
    this machine's identity. A context manager.

    call: reaches control. keep: renews the identity when that is due; called each second. home: of this machine. epoch: that it has already, from disk. say: hears what changed, in words.

    Guarantees: a snapshot reaches the gateways only when a key of `trust` signed it and every artifact that it names lies here
    with its digest; the newest one goes first, also where another one's artifacts are still under way; records are kept until
    control has them. Control may go away and come back: gateways serve on meanwhile, and every duty goes on within a second.
    Not guaranteed: that a machine which control refuses (`unauthenticated`, `denied`) stops before its snapshot's `max_age_s`.
    """

    def __init__(
        self,
        call: Call,
        publisher: Publisher,
        *,
        keep: Callable[[], None],
        home: Path,
        trust: TrustFile,
        member: Member,
        epoch: int,
        random: Random,
        say: Callable[[str, BaseException | None], None],
    ) -> None:
        self._call: Final = call
        self._keep_identity: Final = keep
        self._publisher: Final = publisher
        self._home: Final = home
        self._trust: Final = trust
        self._member: Final[Json] = msgspec.to_builtins(member)
        self._random: Final = random
        self._say: Final = say
        self._stop: Final = threading.Event()
        self._news: Final = threading.Condition()
        self._wanted: tuple[ServingSnapshot, SignedStatement] | None = None
        self._followed = self._placed = epoch
        self._joined = False
        self._troubles: dict[str, str] = {}
        duties = {
            "follow control": self._follow, "place a snapshot": self._place, "report to control": self._report,
            "hand records over": self._hand_over, "renew this machine's identity": self._identity,
        }  # fmt: skip
        self._threads: Final = [
            threading.Thread(target=self._keep, args=(name, duty), name=name, daemon=True)
            for name, duty in duties.items()
        ]

    def __enter__(self) -> Link:
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> None:
        """Hand over what gateways closed as they ended, once the duties have stopped. What control does not take now stays
        here for the next start."""
        self.__exit__()
        try:
            hand_over(self._home / "log" / "predictions", self._send)
        except TautError as error:
            self._say("records stay here until the next start", error)

    def __exit__(self, *_: object) -> None:
        """Stop; a duty that waits for control is left to end by itself."""
        self._stop.set()
        with self._news:
            self._news.notify_all()
        deadline_s = time.monotonic() + _LAST_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline_s - time.monotonic()))

    def _keep(self, name: str, duty: Callable[[], None]) -> None:
        """Do a duty again and again. What keeps it is said once, and again when it is another; then tried again."""
        pause_s = _FIRST_S
        while not self._stop.is_set():
            try:
                duty()
            except Exception as error:  # noqa: BLE001 - whatever it is must not end the duty; it is said
                if self._stop.is_set():
                    return
                self._trouble(name, error)
                pause_s = min(_LAST_S, pause_s * 2)
                if isinstance(error, TautError) and error.code in _REFUSALS:
                    pause_s = _REFUSED_S  # asking again at once would not change it
                self._stop.wait(pause_s * (0.5 + self._random.uniform()))
            else:
                pause_s = _FIRST_S
                if self._troubles.pop(name, ""):
                    self._say(f"can {name} again", None)

    def _trouble(self, name: str, error: Exception) -> None:
        said = f"{type(error).__name__}: {error}"
        if self._troubles.get(name) != said:
            self._troubles[name] = said
            self._say(f"cannot {name}, will try again", error)

    def _join(self) -> None:
        """Say who is here, and be sure that it is the same installation. Raises Conflict where it is not."""
        answer = self._call("fleet.join", self._member)
        take_keys(answer, self._trust)
        self._joined = True

    def _follow(self) -> None:
        """Ask for what is newer than what is known; control answers as soon as there is something."""
        if not self._joined:
            self._join()
        asked_s = time.monotonic()
        answer = self._call("fleet.follow", {"epoch": self._followed, "wait_s": FOLLOW_S})
        data = answer.get("snapshot")
        if data is None:
            if time.monotonic() - asked_s < FOLLOW_S / 2:
                self._stop.wait(_LAST_S)  # control is stopping, and lets nobody wait
            return
        statement = SignedStatement.from_json(data)
        try:
            snapshot = open_snapshot(statement.to_json(), self._trust.read())
        except Denied:  # by a key that is newer than the last time that this machine asked
            self._join()
            snapshot = open_snapshot(statement.to_json(), self._trust.read())
        if snapshot.epoch <= self._followed:
            raise Conflict(f"control sent epoch {snapshot.epoch} after {self._followed}: it is not used")
        with self._news:
            self._wanted, self._followed = (snapshot, statement), snapshot.epoch
            self._news.notify_all()

    def _place(self) -> None:
        """Fetch what the newest snapshot needs, then give it to the gateways here."""
        with self._news:
            while not self._stop.is_set() and (self._wanted is None or self._wanted[0].epoch <= self._placed):
                self._news.wait()
            wanted = self._wanted
        if wanted is None or self._stop.is_set():
            return
        snapshot, statement = wanted
        try:
            for digest, path in artifacts_of(snapshot).items():
                if place(self._home, digest, path, partial(self._part, snapshot.epoch, digest)):
                    self._say(f"fetched {path}", None)
        except _Left:
            return
        self._publisher.publish(statement)
        self._placed = snapshot.epoch

    def _part(self, epoch: int, digest: str, offset: int) -> tuple[bytes, int]:
        """Ask for a part. Raises _Left where a newer snapshot came meanwhile, which may not need it."""
        if self._stop.is_set() or self._followed != epoch:
            raise _Left
        answer = self._call("fleet.artifact", {"digest": digest, "offset": offset})
        try:
            return base64.b64decode(answer["data"], validate=True), int(answer["size_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"control's answer about {digest} is none: {error}") from error

    def _report(self) -> None:
        """Say what became of snapshots as soon as it is known, and that this machine lives, every second."""
        now_s, told = time.monotonic(), self._publisher.gateways()
        silences = [msgspec.structs.replace(state, heard_s=now_s - state.heard_s) for state in told]
        answer = self._call(
            "fleet.report",
            {
                **self._member,
                "states": msgspec.json.encode(silences).decode(),
                "ended": self._publisher.ended(),
            },
        )
        leases = answer.get("leases")
        if isinstance(leases, dict):
            self._publisher.deliver({str(one): str(lease).encode() for one, lease in leases.items()})
        self._publisher.news(told, timeout_s=_REPORT_S)

    def _identity(self) -> None:
        self._keep_identity()
        self._stop.wait(_REPORT_S)

    def _hand_over(self) -> None:
        hand_over(self._home / "log" / "predictions", self._send)
        self._stop.wait(_HAND_OVER_S)

    def _send(self, segment: str, size_bytes: int, sha256: str, offset: int, data: bytes) -> int:
        request = {
            "segment": segment, "size_bytes": size_bytes, "sha256": sha256, "offset": offset,
            "data": base64.b64encode(data).decode(),
        }  # fmt: skip
        return int(self._call("fleet.deliver", request)["here"])
