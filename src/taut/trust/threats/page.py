"""The threat model as a page of Markdown, with the map as a Mermaid diagram."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from taut.trust.threats.stride import Threat
from taut.trust.threats.values import Kind, Map, Zone

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_]")
_SHAPES: Final = {Kind.PARTY: ('["', '"]'), Kind.PROCESS: ('(["', '"])'), Kind.STORE: ('[("', '")]')}


def markdown(drawn: Map, threats: Sequence[Threat]) -> str:
    """Return the page. Equal maps give equal pages: nothing in it depends on when it was written."""
    opened = [threat for threat in threats if threat.state == "open"]
    lines = [
        f"# Threat model of {_cell(drawn.project)} ({drawn.environment})",
        "",
        f"Generated from the project and the installation's setting; map `{drawn.digest}`. {len(drawn.flows)} flows, "
        f"{sum(1 for flow in drawn.flows if drawn.crosses(flow))} of them over a boundary of trust, "
        f"{len(threats)} threats, {len(opened)} open.",
        "",
        "```mermaid",
        *_mermaid(drawn),
        "```",
        "",
        "## Flows",
        "",
        "| from | to | what | by | personal fields | guarded by | crosses |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {flow.source} | {flow.target} | {_cell(flow.what)} | {_cell(flow.way)} | "
            f"{_cell(', '.join(flow.personal))} | {_cell(flow.guard)} | {'yes' if drawn.crosses(flow) else ''} |"
            for flow in drawn.flows
        ),
        "",
        "## Threats",
        "",
        "*stopped*: refused. *visible*: cannot be refused, but is seen. *accepted*: known, and left so. **open**: decide.",
        "",
        "| at | threat | what stands against it | state | shown by |",
        "|---|---|---|---|---|",
        *(
            f"| {_cell(one.at)} | {one.category} | {_cell(one.answer)} | "
            f"{'**open**' if one.state == 'open' else one.state} | {f'`{one.shown_by}`' if one.shown_by else ''} |"
            for one in threats
        ),
        "",
    ]
    return "\n".join(lines)


def _mermaid(drawn: Map) -> Iterator[str]:
    yield "flowchart LR"
    for zone in Zone:
        inside = [element for element in drawn.elements if element.zone is zone]
        if inside:
            yield f'  subgraph {_UNSAFE.sub("_", zone.name.lower())} ["{zone}"]'
            for element in inside:
                begin, end = _SHAPES[element.kind]
                yield f"    {_node(element.id)}{begin}{_label(element.name)}{end}"
            yield "  end"
    for flow in drawn.flows:
        arrow = "==>" if flow.personal else "-->"
        yield f'  {_node(flow.source)} {arrow}|"{_label(flow.what)}"| {_node(flow.target)}'


def _node(id_: str) -> str:
    """Names of the project may hold what Mermaid reads as words of its own, such as `end`."""
    return "n_" + _UNSAFE.sub("_", id_)


def _label(text: str) -> str:
    return re.sub(r'["<>`|]', "'", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
