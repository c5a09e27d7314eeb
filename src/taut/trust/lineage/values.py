"""The lineage of a thing, as a tree that people and JSON can read."""

from __future__ import annotations

from typing import Any

import msgspec

from taut.core.evidence import Scalar
from taut.core.refs import Ref
from taut.core.times import from_us


class LineageStep(msgspec.Struct, frozen=True, kw_only=True):
    """One activity that made the node above it, with what it read.

    repeated: it is shown in full elsewhere in this tree. omitted: inputs left out by the bound on nodes.
    """

    activity: str
    at_us: int
    facts: dict[str, Scalar] = {}
    inputs: tuple[LineageNode, ...] = ()
    repeated: bool = False
    omitted: int = 0


class LineageNode(msgspec.Struct, frozen=True, kw_only=True):
    """A thing, what is known about it and how it was made; a source has no steps.

    repeated: it is shown in full elsewhere in this tree. deeper: more lies above than the depth asked for.
    """

    ref: Ref
    facts: dict[str, Scalar] = {}
    steps: tuple[LineageStep, ...] = ()
    repeated: bool = False
    deeper: bool = False


def lineage_as_json(node: LineageNode) -> dict[str, Any]:
    """Return the tree as JSON; fields that say nothing are left out."""
    shown: dict[str, Any] = {"ref": str(node.ref)}
    if node.facts:
        shown["facts"] = dict(node.facts)
    if node.steps:
        shown["made_by"] = [_step_as_json(step) for step in node.steps]
    return _flagged(shown, repeated=node.repeated, deeper=node.deeper)


def _step_as_json(step: LineageStep) -> dict[str, Any]:
    shown: dict[str, Any] = {"activity": step.activity, "at": iso(step.at_us)}
    if step.facts:
        shown["facts"] = dict(step.facts)
    if step.inputs:
        shown["inputs"] = [lineage_as_json(node) for node in step.inputs]
    if step.omitted:
        shown["omitted"] = step.omitted
    return _flagged(shown, repeated=step.repeated)


def _flagged(shown: dict[str, Any], **flags: bool) -> dict[str, Any]:
    return {**shown, **{name: True for name, value in flags.items() if value}}


def iso(at_us: int) -> str:
    return from_us(at_us).isoformat(timespec="microseconds").replace("+00:00", "Z")
