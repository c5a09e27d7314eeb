"""Robustness: what noise, absent values and an attacker do to the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from taut.core.evidence import Check, Outcome
from taut.core.probes import Probe
from taut.lifecycle.registry.examination.estimates import worse_by
from taut.lifecycle.registry.examination.sight import Sight, score
from taut.project.manifest import GateSpec

Array = npt.NDArray[Any]
SHUFFLED: Final = "shuffle "


def probes_for(rule: GateSpec) -> tuple[Probe, ...]:
    """Return how rows are to be changed for a rule."""
    if rule.kind == "attacked":
        return (Probe(name=rule.name, kind="attack", amount=rule.settings["step"]),)
    if rule.kind != "robust":
        return ()
    return (
        Probe(name=f"{rule.name} noise", kind="noise", amount=rule.settings["noise"]),
        Probe(name=f"{rule.name} missing", kind="missing", amount=rule.settings["missing"]),
    )


def shuffles(inputs: Sequence[str]) -> tuple[Probe, ...]:
    """Return a probe for each input that shows how much the model leans on it."""
    return tuple(Probe(name=f"{SHUFFLED}{name}", kind="shuffle", column=name) for name in inputs)


def look(rule: GateSpec, sight: Sight) -> Check:
    """Judge what a metric loses on the same rows under each change: measured, not estimated."""
    metric, limit = str(rule.metric), float(rule.tolerance or 0.0)
    lost, said = float("-inf"), []
    for what in ("noise", "missing"):
        places, answers = sight.probed(f"{rule.name} {what}")
        before = score(metric, sight.signature, sight.truth[places], sight.answers[places])
        after = score(metric, sight.signature, sight.truth[places], answers)
        worse = worse_by(metric, after, before)
        said.append(f"{metric} {before:.4f} becomes {after:.4f} with {rule.settings[what]:g} {what}")
        if what == "missing" and not any(item.column.nullable for item in sight.signature.inputs):
            said[-1] = "no input may be absent"
        lost = max(lost, worse)
    outcome = Outcome.PASSED if lost <= limit else Outcome.FAILED
    return Check(
        name=rule.name, outcome=outcome, message=", ".join(said), observed=round(lost, 6), limit=limit
    )


def attacked(rule: GateSpec, sight: Sight) -> Check:
    """Judge the share of decisions that small changes turned; of values, of those moved by a standard deviation."""
    places, answers = sight.probed(rule.name)
    before, limit = sight.answers[places], float(rule.maximum or 0.0)
    if sight.signature.classes:
        turned = before.argmax(axis=1) != answers.argmax(axis=1)
    else:
        turned = np.abs(answers - before) > max(float(sight.answers.std()), 1e-12)
    share = float(turned.mean())
    moved = np.abs(answers - before).reshape(len(before), -1).max(axis=1)
    said = (
        f"{int(turned.sum())} of {len(turned)} decisions can be turned by {rule.settings['step']:g} standard deviations of "
        f"what a caller sends; answers move by {float(np.median(moved)):.4f} in the median"
    )
    outcome = Outcome.PASSED if share <= limit else Outcome.FAILED
    return Check(name=rule.name, outcome=outcome, message=said, observed=share, limit=limit)
