"""The model card: what a version is, was made from, was measured at, who approved it, and what it is not fit for.

Source of the headings: Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.evidence import Outcome
from taut.lifecycle.registry.gate import IMPORTANCE
from taut.lifecycle.registry.values import VersionInfo

_LISTED: Final = 20
_UNEXAMINED: Final = (
    ("groups of rows", {"slices"}), ("fairness", {"fairness"}), ("calibration", {"calibrated"}), ("noise and absent values", {"robust"}),
    ("attacks", {"attacked"}), ("memorisation", {"memorised"}), ("wrong labels", {"clean_labels"}),
)  # fmt: skip


def card_json(info: VersionInfo) -> dict[str, Any]:
    """Return the card as JSON: everything that the Markdown says, by name."""
    candidate = info.candidate
    return {
        "version": str(info.ref),
        "state": str(info.state),
        "description": candidate.description,
        "kind": candidate.model_kind,
        "risk": candidate.risk,
        "author": candidate.author,
        "created_at": info.created_at.isoformat(),
        "run": candidate.run,
        "variant": None if candidate.variant is None else msgspec.to_builtins(candidate.variant),
        "artifact": candidate.artifact.digest,
        "form": candidate.signature.form,
        "nodes": candidate.nodes,
        "data": {
            "label": candidate.label, "snapshots": candidate.snapshots, "features": candidate.features,
            "split": candidate.split, "digest": candidate.data,
        },
        "code": {"bundle": candidate.bundle, "lock": candidate.lock, "seed": candidate.seed, "params": candidate.params},
        "signature": msgspec.to_builtins(candidate.signature),
        "metrics": candidate.metrics,
        "baselines": candidate.baselines,
        "verdict": None if info.verdict is None else msgspec.to_builtins(info.verdict),
        "checks": [] if info.evidence is None else msgspec.to_builtins(info.evidence.checks),
        "facts": {} if info.evidence is None else dict(info.evidence.facts),
        "approvals": msgspec.to_builtins(info.approvals),
        "environment": candidate.environment,
        "importance": importance(info),
        "limits": limits(info),
    }  # fmt: skip


def limits(info: VersionInfo) -> list[str]:
    """Return what a reader must not conclude from the card."""
    candidate = info.candidate
    found = []
    if candidate.split:
        until, since = candidate.split.get("train_until"), candidate.split.get("test_from")
        found.append(
            f"Learned from what happened before {until}, tested from {since} on; later change was not seen."
        )
    if candidate.signature.lookups:
        sets = ", ".join(lookup.feature_set for lookup in candidate.signature.lookups)
        found.append(
            f"Needs the feature sets {sets} online; rows of them that are missing or too old count as absent."
        )
    if candidate.signature.form == "code":
        found.append(
            f"Is code of the project ({candidate.model_kind}), not data: it runs in confined workers and jobs only, with the "
            "packages that it was trained with; what it does was tried, not read."
        )
    words = [item.column.name for item in candidate.signature.inputs if item.column.dtype == "string"]
    if words:
        found.append(
            f"Values of {', '.join(words)} that training never saw are answered, but were not tested."
        )
    examined = {rule.kind for rule in candidate.rules}
    missing = [what for what, kinds in _UNEXAMINED if not examined & kinds]
    if missing:
        found.append(f"Nobody declared that it is examined for {', '.join(missing)}: it was not.")
    return found


def importance(info: VersionInfo) -> dict[str, float]:
    """Return by how much the first metric was worse with each input exchanged among rows, the most first."""
    facts = {} if info.evidence is None else info.evidence.facts
    found = {
        name.removeprefix(IMPORTANCE): float(value)
        for name, value in facts.items()
        if name.startswith(IMPORTANCE) and isinstance(value, int | float)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def card_markdown(info: VersionInfo) -> str:
    """Return the card for people."""
    candidate = info.candidate
    lines = [
        f"# {info.ref}",
        "",
        candidate.description or "(no description was declared)",
        "",
        f"State **{info.state}**, risk {candidate.risk}, {candidate.model_kind}, trained by {candidate.author} "
        f"({info.created_at:%Y-%m-%d %H:%M} UTC, run `{candidate.run}`).",
        "",
        *_form(info),
        *_derived(info),
        "## What it takes and gives",
        "",
        "| input | type | from |",
        "|---|---|---|",
        *[
            f"| {item.column.name} | {item.column.dtype}{', may be absent' if item.column.nullable else ''} | "
            f"{item.feature_set or 'the caller'} |"
            for item in candidate.signature.inputs
        ],
        "",
        f"Gives {_gives(info)}.",
        "",
        "## Data",
        "",
        f"Label `{candidate.label}`. Snapshots: {_pairs(candidate.snapshots)}. Features: {_pairs(candidate.features)}.",
        _split(candidate.split),
        "",
        "## How good it is",
        "",
        *_metrics(info),
        "",
        *_importance(info),
        "## Gate",
        "",
        *_gate(info),
        "",
        "## Approvals",
        "",
        *(_approvals(info) or ["None yet."]),
        "",
        "## Limits",
        "",
        *[f"- {item}" for item in limits(info)],
        "",
    ]
    return "\n".join(lines)


def _form(info: VersionInfo) -> list[str]:
    """Of code: that it is, and which. Of a graph: the versions that it is made of."""
    candidate = info.candidate
    if candidate.nodes:
        nodes = "; ".join(f"`{name}` is {version}" for name, version in candidate.nodes.items())
        return [f"Composed of {nodes}. What holds for them holds for it.", ""]
    if candidate.signature.form != "code":
        return []
    return [
        f"This model is **{candidate.model_kind}** of the bundle `{candidate.bundle}`, run in confined worker processes.",
        "",
    ]


def _derived(info: VersionInfo) -> list[str]:
    """Of a variant: what it was made from, and what that gained and cost."""
    made = info.candidate.variant
    if made is None:
        return []
    told = f"Made from **{made.origin}** by `taut model optimise`: {made.what} (`{made.name}`)"
    gained = f": {made.facts['gain']}" if "gain" in made.facts else ""
    return [f"{told}{gained}. It answers a little differently; the check *quality* bounds by how much.", ""]


def _gives(info: VersionInfo) -> str:
    signature = info.candidate.signature
    if signature.output == "value":
        return "a value"
    return f"the probability of {', '.join(map(str, signature.classes))}"


def _pairs(found: dict[str, str]) -> str:
    return ", ".join(f"{name} `{value}`" for name, value in sorted(found.items())) or "none"


def _split(split: dict[str, Any]) -> str:
    if not split:
        return ""
    return (
        f"{split.get('train', 0):,} rows to learn from, {split.get('test', 0):,} held out; {split.get('gap', 0):,} in "
        f"the gap, {split.get('embargoed', 0):,} embargoed, {split.get('unlabelled', 0):,} without a label."
    )


def _metrics(info: VersionInfo) -> list[str]:
    candidate = info.candidate
    constant = candidate.baselines.get("constant", {})
    one = candidate.baselines.get("one_input", {})
    lines = ["| metric | model | constant | best single input |", "|---|---|---|---|"]
    for name, value in sorted(candidate.metrics.items()):
        single = f"{_number(one[name])} ({one.get('input')})" if name in one else ""
        lines.append(f"| {name} | {_number(value)} | {_number(constant.get(name))} | {single} |")
    return lines


def _importance(info: VersionInfo) -> list[str]:
    found = list(importance(info).items())
    if not found:
        return []
    more = [f"Of {len(found)} inputs the first {_LISTED}.", ""] if len(found) > _LISTED else []
    return [
        "## What it leans on",
        "",
        "By how much the metric (AUC, else log loss or RMSE) is worse on held-out rows whose values of one input were exchanged "
        "among them. Inputs that tell the same stand in for one another: each counts for little then.",
        "",
        "| input | worse by |",
        "|---|---|",
        *[f"| {name} | {value:.4f} |" for name, value in found[:_LISTED]],
        "",
        *more,
    ]


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else ""


def _gate(info: VersionInfo) -> list[str]:
    if info.verdict is None or info.evidence is None:
        return ["Not judged yet."]
    marks = {Outcome.PASSED: "passed", Outcome.HELD: "**held**"}
    return [
        f"Verdict: **{info.verdict.decision}**.",
        "",
        "| check | outcome | what was seen |",
        "|---|---|---|",
        *[
            f"| {check.name} | {marks.get(check.outcome, f'**{check.outcome}**')} | {check.message.replace('|', '/')} |"
            for check in info.evidence.checks
        ],
    ]


def _approvals(info: VersionInfo) -> list[str]:
    return [
        f"- {item.principal}: {'yes' if item.approved else 'no'}, {item.at:%Y-%m-%d %H:%M} UTC"
        f"{' (self-approved, single user)' if item.self_approved else ''}: {item.reason}"
        for item in info.approvals
    ]
