"""The model gate: everything is measured again through the runtime that will answer."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.canonical import digest_bytes, parse_digest
from taut.core.errors import Corrupt, InvalidInput
from taut.core.evidence import Check, Evidence, Gate, Outcome, Scalar, run_checks
from taut.core.graphs import graph_signature, read_plan
from taut.core.probes import Probe
from taut.core.refs import Kind, Ref
from taut.core.schema import ModelSignature
from taut.core.scores import GREATER_IS_BETTER, classification_scores, regression_scores
from taut.lifecycle.registry.artifact import Scan, scan
from taut.lifecycle.registry.examination.estimates import worse_by
from taut.lifecycle.registry.examination.sight import truth_of
from taut.lifecycle.registry.values import Candidate, GateInputs, Loaded
from taut.project.code import open_code
from taut.project.manifest import GateSpec

Array = npt.NDArray[Any]
Look = Callable[[], Check]

PARITY_TOLERANCE: Final = 1e-5
REPORTED_TOLERANCE: Final = 1e-3
_PARITY_ROWS_MIN: Final = 10
_PREDICTION: Final = re.compile(r"p\d+")
DEPENDENCIES: Final = "dependencies"
IMPORTANCE: Final = "importance "
_LEANED: Final = ("auc", "logloss", "rmse")
_ALWAYS: Final = ("signature", "artifact", "schema", "inputs", "holdout", "parity", "latency", "baseline")
_TRAINING: Final = ("leakage", "own_metrics", "conversion")


def gate_for(candidate: Candidate, *, audited: bool = False) -> Gate:
    """Return the gate of a candidate: what always is required, and every rule that its builder declared.

    audited: whether the packages of its run are looked up among known vulnerabilities here.
    """
    rules = [rule.name for rule in candidate.rules if rule.kind != "parity"]
    derived = [] if candidate.variant is None else ["quality"]
    looked_up = [DEPENDENCIES] if audited else []
    return Gate(name="model", required=frozenset([*_ALWAYS, *_TRAINING, *rules, *derived, *looked_up]))


class ModelCheck:
    """Looks at one candidate. What was measured once is kept for the checks that share it."""

    def __init__(
        self,
        candidate: Candidate,
        load: Callable[[], Loaded],
        inputs: GateInputs,
        live: Callable[[], Loaded] | None,
        origin: Callable[[], Loaded] | None = None,
    ) -> None:
        self._candidate = candidate
        self._load = load
        self._inputs = inputs
        self._live = live
        self._origin = origin
        self._loaded: Loaded | None = None
        self._scan: Scan | None = None
        self._metrics: dict[str, float] | None = None
        self._latency_ms: float | None = None

    def evidence(self, subject: str) -> Evidence:
        """Look at everything and return it; a look that breaks is an errored check, which rejects."""
        looks: list[tuple[str, Look]] = [
            ("signature", self._signature), ("artifact", self._artifact), ("schema", self._schema),
            ("inputs", self._named_inputs), ("holdout", self._holdout), ("parity", self._parity),
            ("latency", self._latency), ("baseline", self._baseline),
        ]  # fmt: skip
        looks += [
            (rule.name, self._rule(rule))
            for rule in self._candidate.rules
            if rule.kind in ("metric", "no_regression")
        ]
        if self._candidate.variant is not None:
            looks.append(("quality", self._quality))
        if self._inputs.audit is not None:
            looks.append((DEPENDENCIES, self._inputs.audit))
        checks = run_checks(looks)
        facts: dict[str, Scalar] = {f"metric {name}": value for name, value in (self._metrics or {}).items()}
        facts |= {"latency_ms": self._latency_ms, "size_bytes": self._scan.size_bytes if self._scan else None}
        facts |= {"nodes": self._scan.nodes if self._scan else None, "rows": self._inputs.holdout.height}
        facts |= {f"{IMPORTANCE}{name}": value for name, value in self._importance().items()}
        checks += (*self._candidate.checks, *self._inputs.examined)
        return Evidence(subject=subject, checks=checks, facts=facts)

    def _importance(self) -> dict[str, float]:
        """Return how much worse the first metric is where an input was exchanged among rows: what the model leans on.

        Of inputs that tell the same each counts for little alone. Source: Breiman 2001; Fisher, Rudin and Dominici 2019.
        """
        if self._metrics is None or not self._inputs.shuffled:
            return {}
        loaded, inputs, label = self._model(), self._inputs, self._candidate.label
        answers = np.asarray(inputs.score(loaded.model, loaded.signature, inputs.holdout), dtype=np.float64)
        places = Probe(name="", kind="shuffle").places(inputs.holdout.height)
        truth = inputs.holdout[label][places]
        before = figures(loaded, truth, answers[places])
        metric = next(name for name in _LEANED if name in before)
        found = {
            name: worse_by(metric, figures(loaded, truth, said)[metric], before[metric])
            for name, said in inputs.shuffled.items()
        }
        return {name: round(value, 6) for name, value in sorted(found.items(), key=lambda item: -item[1])}

    def _model(self) -> Loaded:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _signature(self) -> Check:
        loaded = self._model()
        said = f"signed by key {loaded.signed_by}; {len(loaded.files)} files are what was signed"
        return Check(name="signature", outcome=Outcome.PASSED, message=said)

    def _artifact(self) -> Check:
        try:
            if self._model().signature.form == "code":
                return self._code(self._model().model)
            if self._model().signature.form == "graph":
                return self._graph(self._model())
            self._scan = scan(self._model().model)
        except (InvalidInput, Corrupt) as error:
            return Check(name="artifact", outcome=Outcome.FAILED, message=str(error))
        said = f"ONNX of {self._scan.nodes:,} nodes, {', '.join(self._scan.operators[:8])}"
        return Check(name="artifact", outcome=Outcome.PASSED, message=said, observed=self._scan.size_bytes)

    def _code(self, data: bytes) -> Check:
        """The code is that of the run's own bundle, which is signed and recorded; read here, never run."""
        found = open_code(data)
        self._scan = Scan(size_bytes=len(data), nodes=0, operators=(), opsets={})
        if found.bundle_digest != self._candidate.bundle:
            said = f"the code is the bundle {found.bundle_digest}, the run recorded {self._candidate.bundle}"
            return Check(name="artifact", outcome=Outcome.FAILED, message=said)
        needs = ", ".join(f"{name} {version}" for name, version in found.document.requires.items())
        said = f"code {found.entry} of the run's own bundle, with {needs or 'no package'}; it runs in workers and jobs only"
        return Check(name="artifact", outcome=Outcome.PASSED, message=said, observed=len(data))

    def _graph(self, loaded: Loaded) -> Check:
        """The plan names the very artifacts that are signed with it, and each node's was looked into."""
        plan, size = read_plan(loaded.model), len(loaded.model)
        pinned = {name: pin.version for name, pin in plan.pins.items()}
        given = graph_signature(
            plan.nodes, plan.output, {name: pin.signature for name, pin in plan.pins.items()}
        )
        if pinned != self._candidate.nodes or given != loaded.signature:
            said = "the plan is not that of the nodes that were recorded: compose the graph anew"
            return Check(name="artifact", outcome=Outcome.FAILED, message=said)
        nodes = 0
        for name, pin in plan.pins.items():
            data = loaded.parts.get(plan.file(name), b"")
            if digest_bytes(data) != pin.artifact:
                said = (
                    f"node {name!r}: the file {plan.file(name)} is not {pin.artifact}, which the plan names"
                )
                return Check(name="artifact", outcome=Outcome.FAILED, message=said)
            size += len(data)
            if pin.signature.form == "onnx":
                nodes += scan(data).nodes
        self._scan = Scan(size_bytes=size, nodes=nodes, operators=(), opsets={})
        said = f"a graph of {', '.join(f'{name} ({version})' for name, version in pinned.items())}"
        return Check(name="artifact", outcome=Outcome.PASSED, message=said, observed=size)

    def _schema(self) -> Check:
        faults = list(signature_faults(self._model().signature, label=self._candidate.label))
        if faults:
            return Check(name="schema", outcome=Outcome.FAILED, message="; ".join(faults))
        said = f"all {len(self._model().signature.inputs)} inputs are known when the model is asked"
        return Check(name="schema", outcome=Outcome.PASSED, message=said)

    def _named_inputs(self) -> Check:
        """The run can be repeated: code, environment and data are all named by digest."""
        candidate = self._candidate
        for digest in (candidate.bundle, candidate.lock, candidate.data):
            parse_digest(digest)
        if not candidate.snapshots:
            return Check(name="inputs", outcome=Outcome.FAILED, message="the run names no snapshot")
        said = f"code, environment and data are named; snapshots {', '.join(sorted(candidate.snapshots.values()))}"
        return Check(name="inputs", outcome=Outcome.PASSED, message=said)

    def _measured(self) -> dict[str, float]:
        if self._metrics is None:
            loaded = self._model()
            self._metrics = measure(loaded, self._inputs, label=self._candidate.label)
        return self._metrics

    def _holdout(self) -> Check:
        """What training reported is what the runtime gives: the job ran the builder's code, so its word is checked."""
        found = self._measured()
        if not self._candidate.metrics:
            said = "training reported no metric, so there is nothing that the runtime could agree with"
            return Check(name="holdout", outcome=Outcome.FAILED, message=said)
        worst, apart = "", 0.0
        for name, reported in self._candidate.metrics.items():
            gap = abs(found[name] - reported) / max(1.0, abs(reported)) if name in found else float("inf")
            if gap >= apart:
                worst, apart = name, gap
        said = f"{self._inputs.holdout.height:,} held-out rows give the metrics that training reported"
        if apart > REPORTED_TOLERANCE:
            seen = found.get(worst)
            said = f"training reported {worst}={self._candidate.metrics[worst]:.4f}, the runtime gives {seen}"
            return Check(name="holdout", outcome=Outcome.FAILED, message=said)
        return Check(
            name="holdout", outcome=Outcome.PASSED, message=said, observed=apart, limit=REPORTED_TOLERANCE
        )

    def _parity(self) -> Check:
        sample = self._inputs.parity
        rule = next((rule for rule in self._candidate.rules if rule.kind == "parity"), None)
        tolerance = PARITY_TOLERANCE if rule is None or rule.tolerance is None else rule.tolerance
        if sample.height < min(_PARITY_ROWS_MIN, self._inputs.holdout.height) or not sample.height:
            said = f"{sample.height} rows are too few to compare"
            return Check(name="parity", outcome=Outcome.FAILED, message=said)
        loaded = self._model()
        wanted = _said(sample)
        try:
            found = _wide(self._inputs.score(loaded.model, loaded.signature, sample))
        except InvalidInput as error:
            said = f"a held-out row would be refused as a request: {error}"
            return Check(name="parity", outcome=Outcome.FAILED, message=said)
        if found.shape != wanted.shape:
            said = f"training gave the shape {wanted.shape}, the runtime {found.shape}"
            return Check(name="parity", outcome=Outcome.FAILED, message=said)
        apart = np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))
        bad = np.flatnonzero(~(apart.max(axis=1) <= tolerance))  # NaN is no agreement
        worst = float(apart.max()) if np.isfinite(apart).all() else None
        if bad.size:
            said = f"{bad.size} of {sample.height} rows are answered otherwise than in training{_example(sample, bad)}"
            return Check(name="parity", outcome=Outcome.FAILED, message=said, observed=worst, limit=tolerance)
        said = f"{sample.height} rows from their raw request columns agree with training"
        return Check(name="parity", outcome=Outcome.PASSED, message=said, observed=worst, limit=tolerance)

    def _latency(self) -> Check:
        """One row through the scorer, end to end. A figure for people and for capacity, not a limit."""
        self._latency_ms = self._inputs.latency_ms
        if self._latency_ms is None:
            self._latency_ms = self._timed_ms()
        said = f"{self._latency_ms:.2f} ms for one row"
        return Check(name="latency", outcome=Outcome.PASSED, message=said, observed=self._latency_ms)

    def _timed_ms(self) -> float:
        loaded, row = self._model(), self._inputs.holdout.head(1)
        times: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            self._inputs.score(loaded.model, loaded.signature, row)
            times.append((time.perf_counter() - began) * 1000)
        return round(min(times), 3)

    def _baseline(self) -> Check:
        """A model that is no better than a constant needs a person's word."""
        found, constant = self._measured(), self._candidate.baselines.get("constant", {})
        name = next((rule.metric for rule in self._candidate.rules if rule.metric), None)
        name = name or ("auc" if "auc" in found else "logloss" if "logloss" in found else "rmse")
        if name not in found or not isinstance(constant.get(name), int | float):
            said = f"there is no {name} of a constant to compare with"
            return Check(name="baseline", outcome=Outcome.HELD, message=said)
        mine, theirs = found[name], float(constant[name])
        better = mine > theirs if GREATER_IS_BETTER.get(name, True) else mine < theirs
        said = f"{name} is {mine:.4f}, of a constant {theirs:.4f}"
        return Check(
            name="baseline", outcome=Outcome.PASSED if better else Outcome.HELD, message=said, observed=mine
        )

    def _rule(self, rule: GateSpec) -> Look:
        if rule.kind == "metric":
            return lambda: self._metric(rule)
        return lambda: self._no_regression(rule)

    def _metric(self, rule: GateSpec) -> Check:
        name = rule.name
        observed = self._known(rule)
        if rule.minimum is None and rule.maximum is None:
            return Check(
                name=name, outcome=Outcome.FAILED, message="the rule sets neither a minimum nor a maximum"
            )
        if rule.minimum is not None and not observed >= rule.minimum:
            said = f"{rule.metric} is below its minimum"
            return Check(
                name=name, outcome=Outcome.FAILED, message=said, observed=observed, limit=rule.minimum
            )
        if rule.maximum is not None and not observed <= rule.maximum:
            said = f"{rule.metric} is above its maximum"
            return Check(
                name=name, outcome=Outcome.FAILED, message=said, observed=observed, limit=rule.maximum
            )
        limit = rule.minimum if rule.minimum is not None else rule.maximum
        return Check(
            name=name, outcome=Outcome.PASSED, message=f"{rule.metric} holds", observed=observed, limit=limit
        )

    def _no_regression(self, rule: GateSpec) -> Check:
        name, metric, tolerance = rule.name, str(rule.metric), rule.tolerance or 0.0
        observed = self._known(rule)
        if self._live is None:
            return Check(name=name, outcome=Outcome.PASSED, message="nothing is live yet", observed=observed)
        live = self._live()
        missing = [
            item.column.name
            for item in live.signature.inputs
            if item.column.name not in self._inputs.holdout.columns
        ]
        if missing:
            said = f"{live.ref} needs {', '.join(missing)}, which these held-out rows lack: it cannot be compared"
            return Check(name=name, outcome=Outcome.HELD, message=said, observed=observed)
        theirs = measure(live, self._inputs, label=self._candidate.label).get(metric)
        if theirs is None:
            return Check(
                name=name, outcome=Outcome.HELD, message=f"{metric} cannot be measured on {live.ref}"
            )
        greater = GREATER_IS_BETTER.get(metric, rule.greater_is_better)
        limit = theirs - tolerance if greater else theirs + tolerance
        fine = observed >= limit if greater else observed <= limit
        said = f"{metric} of the live {live.ref} on the same rows is {theirs:.4f}"
        outcome = Outcome.PASSED if fine else Outcome.FAILED
        return Check(name=name, outcome=outcome, message=said, observed=observed, limit=limit)

    def _quality(self) -> Check:
        """A variant may be a little worse than what it was made from, by no more than its stated tolerances."""
        made = self._candidate.variant
        if made is None or self._origin is None:
            raise InvalidInput("the version that this one was made from is not there to compare with")
        theirs, mine = measure(self._origin(), self._inputs, label=self._candidate.label), self._measured()
        worst, excess, said = "", float("-inf"), []
        for name, before in sorted(theirs.items()):
            if name not in mine:
                raise InvalidInput(
                    f"{name} of {made.origin} is {before:.4f}, but cannot be measured on {made.name}"
                )
            drop = before - mine[name] if GREATER_IS_BETTER.get(name, True) else mine[name] - before
            allowed = made.tolerances.get(name, 0.0)
            if not drop <= allowed:
                said.append(
                    f"{name} is {mine[name]:.4f}, {drop:.4f} worse than {before:.4f} ({allowed:g} allowed)"
                )
            if drop - allowed > excess:
                worst, excess = name, drop - allowed
        if said:
            return Check(
                name="quality", outcome=Outcome.FAILED, message=f"against {made.origin}: {'; '.join(said)}"
            )
        fine = f"no metric is worse than that of {made.origin} beyond its tolerance; nearest to it is {worst}"
        return Check(
            name="quality", outcome=Outcome.PASSED, message=fine, observed=mine[worst], limit=theirs[worst]
        )

    def _known(self, rule: GateSpec) -> float:
        found = self._measured()
        if rule.metric not in found:
            raise InvalidInput(
                f"metric {rule.metric!r} is not measured: there are {', '.join(sorted(found))}"
            )
        return found[rule.metric]


def measure(loaded: Loaded, inputs: GateInputs, *, label: str) -> dict[str, float]:
    """Return the metrics of a model on the held-out rows, through the runtime."""
    said = np.asarray(inputs.score(loaded.model, loaded.signature, inputs.holdout), dtype=np.float64)
    return figures(loaded, inputs.holdout[label], said)


def figures(loaded: Loaded, labels: pl.Series, said: Array) -> dict[str, float]:
    """Return the metrics of answers. Raises InvalidInput for labels that the model does not know, or that are no numbers."""
    truth = truth_of(labels, loaded.signature.classes)
    return (
        classification_scores(truth, said)
        if loaded.signature.classes
        else regression_scores(truth, said.reshape(-1))
    )


def signature_faults(signature: ModelSignature, *, label: str) -> Iterator[str]:
    """Yield why a model could not be asked with what its signature says a caller has."""
    request = {column.name for column in signature.request}
    lookups = {lookup.feature_set: lookup for lookup in signature.lookups}
    if not signature.inputs:
        yield "the model takes no input"
    for item in signature.inputs:
        name = item.column.name
        if name == label:
            yield f"input {name!r} is the label"
        elif item.feature_set is None and name not in request:
            yield f"input {name!r} is neither a request column nor a feature"
        elif item.feature_set is not None and item.feature_set not in lookups:
            yield f"input {name!r} comes from {item.feature_set!r}, which nothing looks up"
    for lookup in lookups.values():
        for key in lookup.keys:
            if key not in request:
                yield f"feature set {lookup.feature_set!r} is looked up by {key!r}, which is no request column"
    if signature.output == "probability" and len(signature.classes) < 2:
        yield "a classifier must name two classes or more"


def subject_of(ref: object) -> str:
    return str(Ref(Kind.MODEL, str(ref)))


def _said(sample: pl.DataFrame) -> Array:
    names = [name for name in sample.columns if _PREDICTION.fullmatch(name)]
    ordered = sorted(names, key=_place)
    return sample.select(ordered).to_numpy().astype(np.float64)


def _place(name: str) -> int:
    return int(name.removeprefix("p"))


def _wide(found: Array) -> Array:
    array = np.asarray(found, dtype=np.float64)
    return array.reshape(len(array), -1)


def _example(sample: pl.DataFrame, bad: Array) -> str:
    """Say which columns are null in the rows that differ, where that is what they share. Never their values."""
    rows = sample.with_row_index("_at").filter(pl.col("_at").is_in(bad.tolist())).drop("_at")
    shared = [name for name in rows.columns if rows[name].null_count() == rows.height]
    return f", all with no {', '.join(shared)}" if shared else ""
