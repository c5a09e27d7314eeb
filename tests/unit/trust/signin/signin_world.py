"""Where people sign in, on stores and clocks of a test's own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from taut.adapters.keys.file import FileKeys
from taut.ports.records import Records
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.identity import Identity
from taut.trust.identity import metadata as identity_metadata
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata
from taut.trust.signin import Accounts, Cost, Passwords, Sessions, metadata

CHEAP = Cost(time=1, memory_kib=64, lanes=1)
PASSWORD = "correct horse battery"


class World:
    """ada, who may build and approve, and has no password yet."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
        self.keys = FileKeys(folder, random=SeededRandom(1))
        self.records: Records = memory_records(identity_metadata, ledger_metadata, metadata)
        self.ids = SequenceIds()
        self.random = SeededRandom(2)
        self.ledger = Ledger(self.records, self.keys, self.clock, self.ids, origin="test.example/taut")
        self.identity = Identity(self.records, self.keys, self.ledger, self.clock, self.ids, self.random)
        self.sessions = Sessions(self.records, self.ledger, self.clock, self.ids, self.random)
        self.passwords = Counting(self.random, cost=CHEAP)
        self.accounts = Accounts(
            self.records, self.keys, self.ledger, self.clock, self.random,
            sessions=self.sessions, passwords=self.passwords,
        )  # fmt: skip
        self.identity.create_principal("ada", kind="human", roles=["builder", "approver"], actor="owner")

    def enrol(self, principal: str = "ada") -> str:
        """Give a person `PASSWORD`; returns a session."""
        code, _ = self.accounts.invite(principal, actor="owner")
        return self.accounts.accept(principal, code, PASSWORD, kind="command").secret

    def sign_in(self, password: str = PASSWORD, *, code: str = "", address: str = "192.0.2.1") -> str:
        found = self.accounts.sign_in("ada", password, code=code, address=address, kind="command")
        return found.secret

    def kinds(self) -> list[str]:
        """Kinds of what the ledger holds about sign-ins, the oldest first."""
        self.ledger.sequence()
        return [leaf.kind for leaf in reversed(self.ledger.show(kind="identity.", limit=1000))]


class Counting(Passwords):
    """Passwords that say how often they were compared, and with what cost."""

    compared = 0

    def verify(self, stored: str | None, password: str) -> bool:
        self.compared += 1
        return super().verify(stored, password)
