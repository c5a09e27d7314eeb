"""Why a row of a batch result says what it says: what scored it, what was joined to it, which record it was."""

from __future__ import annotations

from typing import Any

from taut.core.errors import InvalidInput, NotFound
from taut.core.refs import Kind, VersionRef
from taut.ports.tables import ROW_ID
from taut.trust.lineage import lineage_as_json
from taut.workflows.rooms import Rooms


def why_result_row(rooms: Rooms, text: str, *, depth: int = 64) -> dict[str, Any]:
    """Explain one row. text: `result:NAME@NUMBER#ROW`, with the row's id as `taut batch get` shows it.

    Returns `{"id", "tree"}`, the tree in the form of `lineage_as_json`.
    Raises InvalidInput for what names no row, NotFound for a row that the result does not have.
    """
    name, _, row = text.removeprefix(f"{Kind.RESULT}:").partition("#")
    if not (row.isascii() and row.isdigit() and len(row) < 20):
        raise InvalidInput(
            f"{text[:80]!r} names no row: write result:NAME@NUMBER#ROW, with the row's _row_id"
        )
    version = VersionRef.parse(name)
    info = rooms.results.show(version.name, version.number)
    found = rooms.results.get(info, {ROW_ID: int(row)}, limit=1)
    if not found.rows and not found.rejects:
        raise NotFound(
            f"{version} has no row {row}: `taut batch get {version} --key …` shows those that it has"
        )
    said = (found.rows or found.rejects)[0]
    dataset = VersionRef.parse(info.new.scored.snapshot).name
    origin = rooms.data.locate(dataset, int(row))
    with rooms.records.read() as tx:
        node = rooms.lineage.why(tx, info.ref, depth=depth)
    steps = lineage_as_json(node).get("made_by", [])
    record = {
        "ref": f"{Kind.SOURCE}:{origin.digest}#{origin.source}",
        "facts": {"file": origin.source, "row": origin.row, "row_id": origin.row_id, "batch": origin.batch},
    }
    made_by = [{**step, "inputs": [record, *step.get("inputs", [])]} for step in steps]
    facts = {
        key: value.isoformat() if hasattr(value, "isoformat") else value
        for key, value in said.items()
        if key != ROW_ID
    }
    tree = {"ref": f"{info.ref}#{row}", "facts": facts, "made_by": made_by}
    return {"id": tree["ref"], "tree": tree}
