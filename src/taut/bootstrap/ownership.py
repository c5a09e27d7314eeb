"""One database, one installation: two that shared one would change its project and sign its ledger past each other."""

from __future__ import annotations

from typing import Final

from taut.core.errors import Conflict
from taut.ports.keys import Keys
from taut.ports.records import Records, transact
from taut.trust.ledger import Entry, Ledger

KIND: Final = "installation.begun"
SUBJECT: Final = "installation:records"


def own_database(records: Records, ledger: Ledger, keys: Keys, *, home: str) -> None:
    """Write into the ledger of a new database whose it is, or prove that it is this installation's.

    An installation is known by its keys, the earlier ones included. Raises Conflict for another's database.
    """
    own = [key.key_id for key in keys.public_keys(purpose="ledger")]
    if not _begun(ledger):
        entry = Entry(kind=KIND, subject=SUBJECT, actor="control", body={"ledger_key": own[0]})
        transact(records, lambda tx: ledger.append(tx, entry))
    owner = _begun(ledger)[0]  # read anew: another installation may have begun at the same moment
    if owner not in own:
        raise Conflict(
            f"the database belongs to another installation, whose ledger key is {owner}; the keys in {home} are others: "
            "name a database of its own with TAUT_RECORDS, or bring back the keys that it was begun with"
        )


def _begun(ledger: Ledger) -> list[str]:
    """Keys of those who began with this database, the first one first."""
    found = sorted(ledger.show(kind=KIND, subject=SUBJECT), key=lambda leaf: leaf.id)
    return [str(leaf.body.get("ledger_key", "")) for leaf in found]
