"""Releases of a feature set and a model together: the set is online once, so whoever reads it has to mean the same by it."""

from __future__ import annotations

from taut.core.errors import Conflict
from taut.core.refs import VersionRef
from taut.ports.records import Tx
from taut.workflows.rooms import Rooms


def refuse_torn(rooms: Rooms, endpoint: str, version: VersionRef, *, beside: bool) -> None:
    """Raise Conflict where a version would answer beside one that was trained with another definition of a feature set.

    beside: whether what is live at the endpoint stays so; a direct release takes the set along, and replaces it.
    """
    mine = rooms.registry.show(version).candidate.features
    if not mine:
        return
    with rooms.records.read() as tx:
        routes, tried = rooms.releases.routes(tx), tried_beside(rooms, tx)
    others = {route.version for route in routes if beside or route.endpoint != endpoint}
    for other in sorted(others | tried, key=str):
        theirs = rooms.registry.show(other).candidate.features
        for name in sorted(mine.keys() & theirs.keys()):
            if not rooms.features.alike(name, mine[name], theirs[name]):
                raise Conflict(
                    f"{version} was trained with another definition of feature set {name} than {other}, which answers too, and a set is "
                    "online once: give the new definition a name of its own, or release directly what uses it, so that set and "
                    "model change together"
                )


def tried_beside(rooms: Rooms, tx: Tx) -> set[VersionRef]:
    """Return the versions of releases that are under way: those that answer a part of the callers, and those that only listen."""
    arms = {arm.version for share in rooms.releases.shares(tx) for arm in share.arms}
    return arms | {share.version for share in rooms.releases.shadows.shares(tx)}


def out_of_step(rooms: Rooms, version: VersionRef, name: str) -> str | None:
    """Return the materialisation of a set that has to be online for a version, where one of another definition is; None where all is well."""
    trained = rooms.registry.show(version).candidate.features.get(name)
    if trained is None or not rooms.features.redefined(name, trained):
        return None
    newest = rooms.features.materialisation(name).id
    return newest if rooms.features.alike(name, newest, trained) else trained
