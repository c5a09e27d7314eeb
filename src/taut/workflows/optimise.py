"""Optimise a version for serving: make variants of it, measure them beside it, bring those that gain before the gate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import msgspec

from taut.core.errors import Conflict, InvalidInput
from taut.core.evidence import Check, Decision, Outcome
from taut.core.refs import VersionRef
from taut.lifecycle.registry import Candidate, Derived, File, ModelState, VersionInfo
from taut.lifecycle.training.variants import Figures, Made, Variant, gain_of, make_variants
from taut.ports.stories import Story
from taut.project.manifest import GateSpec
from taut.workflows.gate import judge_registered
from taut.workflows.rooms import Rooms

DROP_MAX: Final = 0.005
_SCALED: Final = ("rmse", "mae")


class OptimiseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """version: `model@number`. actor: becomes the author of what is registered."""

    version: str
    actor: str


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one variant.

    outcome: `not made`, `no gain`, or the gate's decision: admit, hold or reject. reasons: for it. version: what it was
    registered as, where it gained.
    """

    name: str
    what: str
    outcome: str
    reasons: tuple[str, ...]
    note: str
    figures: Figures | None = None
    apart: float | None = None
    version: str = ""


class OptimiseResult(msgspec.Struct, frozen=True, kw_only=True):
    """kept: the versions that gained and that the gate did not reject; they need the approvals of any other."""

    version: str
    original: Figures
    variants: tuple[Tried, ...]
    kept: tuple[str, ...]
    noise: dict[int, float]
    rounds: dict[int, int]
    holdout_rows: int
    calibration_rows: int
    processor: str


def optimise(rooms: Rooms, story: Story, request: OptimiseRequest) -> OptimiseResult:
    """Tell the story. Each step may run twice and changes nothing the second time."""
    ref = VersionRef.parse(request.version)
    story.progress("looking at the version", 0.0)
    story.step("check", lambda: str(original_of(rooms, ref).ref))
    story.progress("making variants", 0.05)
    made = msgspec.convert(story.step("make", lambda: _make(rooms, story, ref)), Made, strict=False)
    tried = []
    for number, variant in enumerate(made.variants):
        story.progress(f"judging {variant.name}", 0.7 + 0.3 * number / len(made.variants))
        tried.append(_tried(rooms, story, ref, made, variant, actor=request.actor))
    return OptimiseResult(
        version=str(ref), original=made.original, variants=tuple(tried), noise=made.noise, rounds=made.rounds,
        kept=tuple(item.version for item in tried if item.outcome in ("admit", "hold")),
        holdout_rows=made.holdout_rows, calibration_rows=made.calibration_rows, processor=made.environment.processor,
    )  # fmt: skip


def original_of(rooms: Rooms, ref: VersionRef) -> VersionInfo:
    """Return a version that may have variants. Raises NotFound, or Conflict for one that may not."""
    info = rooms.registry.show(ref)
    if info.candidate.variant is not None:
        raise Conflict(f"{ref} is itself a variant: optimise {info.candidate.variant.origin}")
    if info.candidate.signature.form != "onnx":
        raise Conflict(
            f"{ref} is {info.candidate.model_kind}: only ONNX models have variants; make the code itself faster, or optimise the nodes of a graph"
        )
    if info.verdict is None or info.state in (ModelState.REJECTED, ModelState.RETIRED):
        state = "not judged yet" if info.verdict is None else str(info.state)
        raise Conflict(f"{ref} is {state}: only a version that passed its gate is worth optimising")
    return info


def _make(rooms: Rooms, story: Story, ref: VersionRef) -> Any:
    loaded = rooms.registry.load(
        ref
    )  # its signature and every byte are verified before it is anybody's original
    run = rooms.training.get(rooms.registry.show(ref).candidate.run)
    made = make_variants(
        run, loaded.model_digest, blobs=rooms.blobs, tables=rooms.tables, jobs=rooms.jobs, scratch=rooms.scratch,
        progress=lambda message, fraction: story.progress(message, 0.05 + 0.65 * fraction),
    )  # fmt: skip
    return msgspec.to_builtins(made, str_keys=True)


def _tried(rooms: Rooms, story: Story, ref: VersionRef, made: Made, variant: Variant, *, actor: str) -> Tried:
    told: dict[str, Any] = {"name": variant.name, "what": variant.what, "note": variant.note}
    if variant.figures is None:
        return Tried(**told, outcome="not made", reasons=(variant.note,))
    gain = gain_of(made.original, variant.figures, made.noise)
    told |= {"figures": variant.figures, "apart": variant.apart}
    if not gain.gains:
        return Tried(**told, outcome="no gain", reasons=(gain.reason,))
    judge = partial(judge_variant, rooms, ref, variant, made, gain=gain.reason, actor=actor)
    judged = story.step(f"judge {variant.name}", judge)
    reasons = (gain.reason, *judged["reasons"])
    return Tried(**told, outcome=judged["verdict"], reasons=reasons, version=judged["version"])


def judge_variant(
    rooms: Rooms, ref: VersionRef, variant: Variant, made: Made, *, gain: str, actor: str
) -> dict[str, Any]:
    """Register a variant of a version, judge it, and return `{"version", "verdict", "reasons"}`.

    The gate is that of every version: all of its checks and the builder's rules, measured again through the serving
    runtime. Parity is with what the variant itself answered in its job, since it differs from the original by design;
    by how much its quality may is the check `quality`. A variant of the version that was judged before keeps its verdict.
    """
    original = original_of(rooms, ref)
    info = rooms.registry.register(variant_candidate(original, variant, made, gain=gain, actor=actor))
    if info.verdict is None and info.candidate.artifact.digest != variant.model:
        raise Conflict(
            f"{info.ref} is {variant.name} of {ref} from other bytes and was never judged: retire it first"
        )
    run = rooms.training.get(original.candidate.run)
    judged = judge_registered(rooms, info, run, actor=actor, parity=variant.parity)
    state = rooms.registry.show(info.ref).state
    if state in (ModelState.REJECTED, ModelState.RETIRED) and judged["verdict"] != Decision.REJECT:
        judged |= {"verdict": str(Decision.REJECT), "reasons": [f"{info.ref} was {state} by a person before"]}
    return judged


def variant_candidate(
    original: VersionInfo, variant: Variant, made: Made, *, gain: str, actor: str
) -> Candidate:
    """Describe a variant for the registry: the original with another file, its own figures and where it is from."""
    before, figures = original.candidate, variant.figures
    if figures is None:
        raise InvalidInput(f"{variant.name} of {original.ref} was not made: {variant.note}")
    facts = {
        "gain": gain, "note": variant.note, "apart": variant.apart, "figures": msgspec.to_builtins(figures, str_keys=True),
        "original": msgspec.to_builtins(made.original, str_keys=True), "calibration_rows": made.calibration_rows,
    }  # fmt: skip
    derived = Derived(
        origin=str(original.ref), name=variant.name, what=variant.what, facts=facts,
        tolerances=tolerances(before.rules, made.original.metrics),
    )  # fmt: skip
    return msgspec.structs.replace(
        before, author=actor, variant=derived, times=None, metrics=figures.metrics, model_kind=f"{before.model_kind}, {variant.name}",
        files={before.signature.file: File(digest=variant.model, size_bytes=figures.size_bytes)},
        checks=tuple(_conversion(check, original, variant) for check in before.checks),
        environment={**msgspec.to_builtins(made.environment), "isolation": list(made.isolation)},
    )  # fmt: skip


def tolerances(rules: tuple[GateSpec, ...], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each metric of a variant may be worse than the original's on the same rows.

    As much as the builder's own rule `no_regression` allows for the metric; else 0.005, and 0.5 % of its value for an
    error in the label's own unit.
    """
    declared = {
        rule.metric: rule.tolerance
        for rule in rules
        if rule.kind == "no_regression" and rule.tolerance is not None
    }
    found = {name: DROP_MAX * value if name in _SCALED else DROP_MAX for name, value in metrics.items()}
    return {name: declared.get(name, default) for name, default in found.items()}


def _conversion(check: Check, original: VersionInfo, variant: Variant) -> Check:
    """What training looked at holds for the variant too, but not that it answers as the estimator does."""
    if check.name != "conversion":
        return check
    said = f"made from the ONNX form of {original.ref}, whose answers differ by {variant.apart} at most; see quality"
    return Check(name="conversion", outcome=Outcome.PASSED, message=said, observed=variant.apart)
