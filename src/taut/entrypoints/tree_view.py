"""The answer to `taut why`, as a tree for people."""

from __future__ import annotations

import re
from typing import Any, Final

from taut.entrypoints import render
from taut.entrypoints.views import second

Json = dict[str, Any]
_APART: Final = 1e-3


def why(result: Json) -> None:
    """The tree of what something was made from."""
    root = result["tree"]
    unfolded: set[str] = set()

    def node_label(node: Json) -> str:
        ref = node["ref"]
        if node.get("repeated"):
            return _node(node, " (see above)" if ref in unfolded else " (see below)")
        unfolded.add(ref)
        return _node(node, " (more lies behind it: raise --depth)" if node.get("deeper") else "")

    def children(thing: Json) -> list[Json]:
        if "ref" in thing:
            return list(thing.get("made_by", []))
        more = [{"more": thing["omitted"]}] if thing.get("omitted") else []
        return [*sorted(thing.get("inputs", []), key=_order), *more]

    def label(thing: Json) -> str:
        if "more" in thing:
            return f"… and {thing['more']:,} more"
        return node_label(thing) if "ref" in thing else _step(thing)

    render.tree(label, children, root)
    if result.get("made_from_it"):
        render.line("it begins here; made from it:")
    for ref in result.get("made_from_it", []):
        render.line(f"  {_brief(_named(ref))}")
    if "moved" in result:
        _moved(result["moved"])


def _moved(found: Json) -> None:
    """What moved an answer, the furthest first."""
    if found["why_not"]:
        render.line(f"what moved the answer: {found['why_not']}")
        return
    render.line(
        f"what moved {found['of']} from {found['base']:.4f}, its mean over training rows, to {found['answer']:.4f}:"
    )
    for share in found["shares"]:
        given = "" if share["value"] is None else f" = {share['value']}"
        render.line(f"  {share['moved']:+.4f} ± {2 * share['error']:.4f}  {share['name']}{given}")
    render.line(found["method"])
    if found["apart"] > _APART:
        render.line(f"asked again the model answers {found['apart']:.4f} apart from what was logged")


def _order(node: Json) -> str:
    """Source files by name, not by digest; everything else as the lineage has it."""
    kind, _, rest = str(node["ref"]).partition(":")
    return rest.partition("#")[2] if kind == "source" else ""


def _node(node: Json, mark: str) -> str:
    return f"{_brief(_named(node['ref']))}{_facts(node)}{mark}"


def _named(ref: str) -> str:
    """A source by its file; its digest stands behind."""
    kind, _, rest = ref.partition(":")
    digest, _, file = rest.partition("#")
    return f"source:{file} ({digest})" if kind == "source" and file else ref


def _step(step: Json) -> str:
    return f"{step['activity']} at {second(step['at'])}{_facts(step)}{' (see above)' if step.get('repeated') else ''}"


def _facts(thing: Json) -> str:
    return f"  [{_brief(render.text(thing['facts']))}]" if thing.get("facts") else ""


def _brief(said: str) -> str:
    """Digests cut to what tells them apart; the whole ones are in the JSON."""
    return re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1…", said)
