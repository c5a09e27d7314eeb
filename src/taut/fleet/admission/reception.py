"""Admission's end of every connection: who comes, who speaks, who has ended, and what is to be told to whom."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Final

from taut.core.errors import Conflict, Denied, NotFound
from taut.fleet.admission.messages import Bundle
from taut.fleet.admission.store import AdmissionStore
from taut.fleet.admission.words import Answered, Join, Refused, Said, Welcome, decode_up, encode
from taut.fleet.log import ScaleLog
from taut.ports.keys import PublicKey
from taut.ports.records import Records, transact

Letters = list[tuple[str, bytes]]
"""Replica -> what it is to be told, in order."""


class Reception:
    """Admits the replicas of one pool by what comes over their connections. Safe for threads.

    trusted: admission's public keys now. credentials: makes the bearers that a joining replica is probed with. runs: whether a
    process of this machine lives.

    Guarantees: a replica is provisioned only where the scale log asks for it; a second process is not let in under the name of
    one that lives; a process that has ended holds nothing any more, as soon as that is seen.
    """

    def __init__(
        self,
        store: AdmissionStore,
        *,
        pool: str,
        records: Records,
        log: ScaleLog,
        trusted: Callable[[], tuple[PublicKey, ...]],
        credentials: Callable[[], dict[str, str]],
        runs: Callable[[int], bool],
    ) -> None:
        self.store: Final = store
        self._pool: Final = pool
        self._records: Final = records
        self._log: Final = log
        self._trusted: Final = trusted
        self._credentials: Final = credentials
        self._runs: Final = runs
        self._pids: dict[
            str, tuple[int, int]
        ] = {}  # replica -> incarnation, process; of those that joined here
        self._lock: Final = threading.Lock()
        self._saying: Final = threading.Lock()
        self._told = self._mark()
        store.follow(log)

    def expect(self, n: int, *, reason: str, actor: str) -> None:
        """Say on the scale log how many there shall be, where that is news; then take what is on it."""
        with self._saying:  # else two who say the same would both find it to be news
            target = self.store.state.targets.get(self._pool)
            if target is None or target.n != n:
                transact(
                    self._records,
                    lambda tx: self._log.append(tx, pool=self._pool, n=n, reason=reason, actor=actor),
                )
            self.store.follow(self._log)

    def only(self, replicas: Collection[str], *, of: Callable[[str], bool]) -> None:
        """Take those of a parent's replicas for ended that it has no place for: it ended them before it began anew."""
        for member in tuple(self.store.state.members.values()):
            if of(member.replica) and member.lives and member.replica not in replicas:
                self._gone(member.replica, member.incarnation)

    def hear(self, replica: str, pid: int | None, data: bytes) -> Letters:
        """Take what came over a replica's connection and return what is to be told, to it and to others.

        pid: of its process, where it is one of this machine. Raises Corrupt for what is no word, and what Records raise; then
        nothing has changed.
        """
        word = decode_up(data)
        told: Letters = []
        match word:
            case Join():
                told.append((replica, encode(self._invite(replica, pid))))
            case Said():
                answer = self._answer(replica, word)
                if answer is not None:
                    told.append((replica, encode(answer)))
        return told + (self.tick() if self.store.state.epochs.prepared is not None else [])

    def offer(self, epoch: int, policy: str, *, least: int = 0) -> Letters:
        """Prepare an epoch of policy where it is another one; what was being prepared is withdrawn.

        least: the highest epoch that a replica may have heard committed, where admission's own state may be older, as a database
        that was restored is; an epoch below that no replica would take any more.
        """
        epochs = self.store.state.epochs
        newest = epochs.prepared or epochs.committed
        if newest.policy == policy and newest.epoch >= least:
            return []
        if epochs.prepared is not None:
            self.store.step(lambda it, _: it.withdraw())
        if epochs.committed.policy != policy or epochs.committed.epoch < least:
            bundle = Bundle(epoch=epoch, policy=policy)
            self.store.step(lambda it, now_s: it.prepare(bundle, now_s=now_s))
        return self.tick()

    def revoke(self, identity: str) -> Letters:
        """Revoke a replica's name, key or SVID for ever; see `Admission.revoke`."""
        self.store.step(lambda it, _: it.revoke(identity))
        return self.tick()

    def tick(self) -> Letters:
        """Do what is due, and return what all must be told: another floor, another revocation."""
        with self._lock:
            for replica, (incarnation, pid) in tuple(self._pids.items()):
                if not self._runs(pid):
                    self._gone(replica, incarnation)
                    del self._pids[replica]
            self.store.step(lambda it, now_s: it.tick(now_s=now_s))
            mark = self._mark()
            if mark == self._told:
                return []
            self._told = mark
            return self._pushes()

    def _mark(self) -> object:
        state = self.store.state
        return state.epochs.bundles, state.revoked

    def _pushes(self) -> Letters:
        found: Letters = []
        for member in tuple(self.store.state.members.values()):
            if member.pool == self._pool and member.beat:
                answer = self.store.push(member.replica)
                found.append((member.replica, encode(Answered(data=answer))))
        return found

    def _invite(self, replica: str, pid: int | None) -> Welcome | Refused:
        with self._lock:
            try:
                self._make_room(replica, pid)
                invitation = self.store.provision(replica, self._pool)
            except (Conflict, Denied, NotFound) as error:
                return Refused(message=error.message, over=False)
            if pid is not None:
                self._pids[replica] = (invitation.incarnation, pid)
        return Welcome(
            invitation=invitation, terms=self.store.state.terms, trusted=self._trusted(), credentials=self._credentials()
        )  # fmt: skip

    def _make_room(self, replica: str, pid: int | None) -> None:
        """See the process end that had the name before. Raises Conflict while it lives."""
        member = self.store.state.members.get(replica)
        if member is None or pid is None:
            return
        _, before = self._pids.get(replica, (0, 0))
        if before and before != pid and self._runs(before):
            raise Conflict(f"{replica} runs already, as process {before}: end that first")
        self._gone(
            replica, member.incarnation
        )  # the supervisor starts another only when the former has ended

    def _answer(self, replica: str, word: Said) -> Answered | Refused | None:
        try:
            data = self.store.hear(word.data, of=replica)
        except (Denied, NotFound) as error:
            return Refused(message=error.message, over=True)
        except Conflict:
            return None  # it came again, or too late: what came before was answered
        return Answered(data=data) if data else None

    def _gone(self, replica: str, incarnation: int) -> None:
        try:
            self.store.step(lambda it, _: it.gone(replica, incarnation))
        except (Denied, NotFound):
            return  # another incarnation took its place, or it is forgotten: nothing of it is left


def is_local(replica: str) -> bool:
    """Tell whether a replica runs on the first machine: those of others carry their machine's name."""
    return "@" not in replica
