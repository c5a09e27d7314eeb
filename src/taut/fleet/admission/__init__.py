"""No replica serves before it showed that it enforces, nor longer than its lease: one rule, kept on both sides."""

from typing import TYPE_CHECKING

from taut.fleet.admission.core import Admission, Step
from taut.fleet.admission.delegates import faults_of
from taut.fleet.admission.epochs import Epochs
from taut.fleet.admission.gateway import GatewayView, Pin
from taut.fleet.admission.holder import Holder
from taut.fleet.admission.members import Member
from taut.fleet.admission.messages import (
    Answer,
    Attest,
    Beat,
    Bundle,
    Event,
    Invitation,
    Leaving,
    Loaded,
    Shown,
    Ticket,
    Vouched,
    Worker,
    proof_of,
    worker_svid,
)
from taut.fleet.admission.replica import Lease, ReplicaView, Served
from taut.fleet.admission.seat import Seat
from taut.fleet.admission.terms import Grace, Need, Pool, Risk, Stage, Terms
from taut.fleet.admission.wire import ReplicaKey, open_answer, open_message, sign_answer

if TYPE_CHECKING:
    from taut.fleet.admission.reception import Letters, Reception, is_local
    from taut.fleet.admission.store import AdmissionStore, Alert
    from taut.fleet.admission.tables import metadata

__all__ = [
    "Admission",
    "AdmissionStore",
    "Alert",
    "Answer",
    "Attest",
    "Beat",
    "Bundle",
    "Epochs",
    "Event",
    "GatewayView",
    "Grace",
    "Holder",
    "Invitation",
    "Lease",
    "Leaving",
    "Letters",
    "Loaded",
    "Member",
    "Need",
    "Pin",
    "Pool",
    "Reception",
    "ReplicaKey",
    "ReplicaView",
    "Risk",
    "Seat",
    "Served",
    "Shown",
    "Stage",
    "Step",
    "Terms",
    "Ticket",
    "Vouched",
    "Worker",
    "faults_of",
    "is_local",
    "metadata",
    "open_answer",
    "open_message",
    "proof_of",
    "sign_answer",
    "worker_svid",
]

_CONTROL = {
    "Letters": "reception",
    "Reception": "reception",
    "is_local": "reception",
    "AdmissionStore": "store",
    "Alert": "store",
    "metadata": "tables",
}


def __getattr__(name: str) -> object:
    """Import what control needs on first use: replicas and gateways keep the rule without loading SQLAlchemy."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
