"""The epochs of policy: one committed, at most one prepared beside it."""

from __future__ import annotations

import msgspec

from taut.core.errors import Conflict
from taut.fleet.admission.messages import Bundle


class Epochs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """newest: the highest number that was ever used, by a withdrawn epoch too. since_s: when `prepared` was."""

    committed: Bundle
    prepared: Bundle | None = None
    newest: int = 0
    since_s: float = 0.0

    @property
    def floor(self) -> int:
        return self.committed.epoch

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Return what may be loaded now, the committed one first."""
        return (self.committed,) if self.prepared is None else (self.committed, self.prepared)

    def prepare(self, bundle: Bundle, *, now_s: float) -> Epochs:
        """Raises Conflict while another is prepared, or when the number was used: it could mean two things."""
        if self.prepared is not None:
            raise Conflict(f"epoch {self.prepared.epoch} is being prepared: commit or withdraw it first")
        newest = max(self.newest, self.committed.epoch)
        if bundle.epoch <= newest:
            raise Conflict(f"epoch {bundle.epoch} is not after {newest}: give the next number")
        return msgspec.structs.replace(self, prepared=bundle, newest=bundle.epoch, since_s=now_s)

    def commit(self) -> Epochs:
        committed = self.committed if self.prepared is None else self.prepared
        return msgspec.structs.replace(self, committed=committed, prepared=None)

    def withdraw(self) -> Epochs:
        return msgspec.structs.replace(self, prepared=None)

    def counted_anew(self, now_s: float) -> Epochs:
        return msgspec.structs.replace(self, since_s=now_s)
