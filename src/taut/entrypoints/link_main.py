"""The process that stands in control's place on a further machine: `python -m taut.entrypoints.link_main --home DIR --url URL`.

It follows control over the network and is the publisher of the gateways here, which know no difference.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from taut.bootstrap.gateway import system_random
from taut.bootstrap.joined import Joined, read_joined
from taut.core.errors import NotFound, TautError, Unauthenticated
from taut.entrypoints.errors import exit_code_of
from taut.entrypoints.logs import Log, install
from taut.entrypoints.membership import Membership
from taut.fleet.admission.words import Refused, encode
from taut.serving.machines import FOLLOW_S, Link, Member, carry
from taut.serving.snapshot import Heard, Publisher, SnapshotStore, TrustFile

_SILENCE_S: Final = FOLLOW_S + 5.0
_LOOK_S: Final = 0.5


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="taut-link", description="follows an installation's control from here"
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--url", required=True, help="of the data plane here, as others reach it")
    parser.add_argument("--gateways", type=int, default=1, help="how many run here")
    parser.add_argument(
        "--ready-fd", type=int, default=-1, help="told `ready` once gateways can be given snapshots"
    )
    arguments = parser.parse_args(argv)
    log = Log("link")
    install(log)
    try:
        _run(arguments, arguments.home.resolve(), log)
    except TautError as error:
        log.last_word(error)
        return exit_code_of(error)
    return 0


def _run(arguments: argparse.Namespace, home: Path, log: Log) -> None:
    joined = read_joined(home)
    if joined is None:
        raise NotFound(f"{home} joined no installation: use `taut up --join URL`")
    member = Member(instance=joined.instance, url=arguments.url, gateways=arguments.gateways)
    trust = TrustFile(home / "serving" / "trust.json")
    store = SnapshotStore(home / "serving", trust)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()

    def say(event: str, error: BaseException | None) -> None:
        if error is None:
            log.info(event)
        else:
            log.failure(event, error)

    with ExitStack() as stack:
        membership = stack.enter_context(member_of(home, joined))
        heard = _carrier(membership, say)
        publisher = stack.enter_context(
            Publisher(store, home / "run" / "stream.sock", heard=heard, lends=False)
        )
        link = Link(
            membership.call, publisher, keep=membership.keep, home=home, trust=trust, member=member, epoch=store.issued(),
            random=system_random(), say=say,
        )  # fmt: skip
        stack.enter_context(link)
        log.info("ready", pid=os.getpid())
        if arguments.ready_fd >= 0:
            with suppress(OSError):  # nobody listens any more
                os.write(arguments.ready_fd, b"ready\n")
                os.close(arguments.ready_fd)
        while (
            not stop.wait(_LOOK_S) and os.getppid() == parent
        ):  # without its supervisor the next one starts another
            pass
        link.finish()
    log.info("stopped")


def _carrier(membership: Membership, say: Callable[[str, BaseException | None], None]) -> Heard:
    """Return what carries words between the gateways here and admission in control; what keeps it is said once."""
    trouble = ""

    def heard(gateway: str, _pid: int, data: bytes) -> list[tuple[str, bytes]]:
        nonlocal trouble
        try:
            told = carry(membership.call, gateway, data)
        except (
            Unauthenticated
        ) as error:  # this machine is none any more: its gateways must not go on by grace
            told = [(gateway, encode(Refused(message=error.message, over=True)))]
            if trouble != error.message:
                say(f"control refuses this machine, and {gateway} serves no more", error)
            trouble = error.message
            return told
        except TautError as error:
            if trouble != error.message:
                trouble = error.message
                say(f"what {gateway} says to admission cannot be carried, it asks again", error)
            return []
        trouble = ""
        return told

    return heard


def member_of(home: Path, joined: Joined) -> Membership:
    """Return this machine's identity, and its way to control. Raises what is wrong with the identity."""
    return Membership(
        home, joined, now=lambda: datetime.now(UTC), random=system_random(), silence_s=_SILENCE_S
    )


if __name__ == "__main__":
    sys.exit(main())
