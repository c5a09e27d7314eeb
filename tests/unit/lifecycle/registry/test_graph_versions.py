"""Graphs in the registry: the plan and its nodes' bytes are one version, which nobody changes in part."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from registry_room import BEN, House, as_onnx, candidate, fitted, gate_inputs, rows

from taut.core.canonical import digest_bytes
from taut.core.errors import Conflict, Corrupt, Denied
from taut.core.evidence import Decision, Outcome
from taut.core.graphs import GraphPlan, Node, Pin, check_shape, graph_signature
from taut.core.refs import VersionRef
from taut.core.schema import ModelSignature
from taut.core.scores import classification_scores
from taut.lifecycle.registry import Candidate, File, GateInputs, ModelState, VersionInfo, verify_export
from taut.ports.records import transact
from taut.serving.runtime import load_graph, score_rows

NODES = (
    Node(name="one", kind="model", model="delay"),
    Node(name="other", kind="model", model="delay"),
    Node(name="both", kind="average", of=("one", "other"), weights=(3.0, 1.0)),
)


@pytest.fixture(scope="module")
def models() -> list[Any]:
    return [fitted(), fitted(trees=3)]


@pytest.fixture(scope="module")
def forms(models: list[Any]) -> list[bytes]:
    return [as_onnx(model) for model in models]


@pytest.fixture
def versions(house: House, models: list[Any], forms: list[bytes]) -> list[VersionInfo]:
    """Two approved versions of one model."""
    found = []
    for number, (model, data) in enumerate(zip(models, forms, strict=True)):
        info = house.registry.register(candidate(house, model, run=f"run_{number}", data=data))
        house.registry.judge(info.ref, gate_inputs(model), actor="system")
        found.append(house.registry.approve(info.ref, BEN, reason="looks right"))
    return found


def plan_of(versions: list[VersionInfo]) -> GraphPlan:
    pins = {
        name: Pin(
            version=str(info.ref), artifact=info.candidate.artifact.digest, signature=info.candidate.signature
        )
        for name, info in zip(("one", "other"), versions, strict=True)
    }
    return GraphPlan(nodes=tuple(check_shape(NODES, "both")), pins=pins, output="both")


def graph(house: House, versions: list[VersionInfo], models: list[Any], **changes: Any) -> Candidate:
    plan = plan_of(versions)
    data = plan.to_bytes()
    files = {
        plan.file(name): info.candidate.artifact
        for name, info in zip(("one", "other"), versions, strict=True)
    }
    files["graph.json"] = File(digest=house.blobs.put(data), size_bytes=len(data))
    values: dict[str, Any] = {
        "files": files, "nodes": {"one": str(versions[0].ref), "other": str(versions[1].ref)},
        "signature": graph_signature(plan.nodes, "both", {name: pin.signature for name, pin in plan.pins.items()}),
        "metrics": classification_scores(rows()["late"].cast(pl.Int64).to_numpy(), together(models)), **changes,
    }  # fmt: skip
    made = candidate(house, models[0], run="graph-1", data=data, **values)
    return msgspec.structs.replace(made, model="blend")


def together(models: list[Any]) -> np.ndarray[Any, Any]:
    from registry_room import matrix

    said = [model.predict_proba(matrix(rows())) for model in models]
    return np.asarray(0.75 * said[0] + 0.25 * said[1])


def inputs(house: House, models: list[Any]) -> GateInputs:
    def score(plan: bytes, _: ModelSignature, frame: pl.DataFrame) -> Any:
        read = msgspec.json.decode(plan, type=GraphPlan)
        loaded = load_graph(plan, {name: house.blobs.read(pin.artifact) for name, pin in read.pins.items()})
        return np.asarray(score_rows(loaded, frame.to_dicts()).probabilities)

    said = together(models)
    parity = rows().drop("late").with_columns(p0=pl.Series(said[:, 0]), p1=pl.Series(said[:, 1]))
    return gate_inputs(models[0], score=score, parity=parity)


def entered(house: House, made: Candidate, models: list[Any]) -> VersionInfo:
    info = house.registry.register(made)
    return house.registry.judge(info.ref, inputs(house, models), actor="system")


def outcomes(info: VersionInfo) -> dict[str, Outcome]:
    assert info.evidence is not None
    return {check.name: check.outcome for check in info.evidence.checks}


def test_a_graph_is_judged_signed_and_exported_with_its_nodes(
    house: House, versions: list[VersionInfo], models: list[Any]
) -> None:
    info = entered(house, graph(house, versions, models), models)

    assert info.verdict is not None
    assert info.verdict.decision is Decision.ADMIT, info.verdict.reasons
    loaded = house.registry.load(info.ref)
    assert loaded.manifest["nodes"] == {"one": "delay@1", "other": "delay@2"}
    assert {name: digest_bytes(data) for name, data in loaded.parts.items()} == {
        "one.model.onnx": versions[0].candidate.artifact.digest, "other.model.onnx": versions[1].candidate.artifact.digest,
    }  # fmt: skip
    house.registry.export(info.ref, house.folder / "export")
    public = house.keys.public_keys(purpose="model")
    assert str(verify_export(house.folder / "export", public).ref) == "blend@1"
    (house.folder / "export" / "other.model.onnx").write_bytes(loaded.parts["one.model.onnx"])
    with pytest.raises(Corrupt, match=r"other\.model\.onnx"):
        verify_export(house.folder / "export", public)
    with house.records.read() as tx:
        told = str(house.lineage.why(tx, info_ref(info), depth=3))
    assert "delay@1" in told
    assert "delay@2" in told
    assert "`one` is delay@1" in house.registry.card(info.ref)[0]


def info_ref(info: VersionInfo) -> Any:
    from taut.core.refs import Kind, Ref

    return Ref(Kind.MODEL, str(info.ref))


def test_a_nodes_changed_byte_is_corrupt_at_load(
    house: House, versions: list[VersionInfo], models: list[Any]
) -> None:
    info = entered(house, graph(house, versions, models), models)
    path = house.blob(versions[1].candidate.artifact.digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(Corrupt):
        house.registry.load(info.ref)


def test_a_plan_that_names_other_bytes_than_are_signed_with_it_is_rejected(
    house: House, versions: list[VersionInfo], models: list[Any]
) -> None:
    made = graph(house, versions, models)
    swapped = {**made.files, "other.model.onnx": made.files["one.model.onnx"]}
    info = entered(house, msgspec.structs.replace(made, files=swapped), models)
    assert info.state is ModelState.REJECTED
    assert outcomes(info)["artifact"] is Outcome.FAILED


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": {"one": "delay@2", "other": "delay@2"}},
        {"nodes": {"one": "delay@1"}},
    ],
)
def test_nodes_other_than_those_of_the_plan_are_rejected(
    house: House, versions: list[VersionInfo], models: list[Any], change: dict[str, Any]
) -> None:
    info = entered(house, graph(house, versions, models, **change), models)
    assert outcomes(info)["artifact"] is Outcome.FAILED


def test_a_node_that_smuggles_another_format_in_is_rejected(
    house: House, versions: list[VersionInfo], models: list[Any]
) -> None:
    pickle = b"\x80\x04" + b"x" * 64
    file = File(digest=house.blobs.put(pickle), size_bytes=len(pickle))
    plan = plan_of(versions)
    pins = {**plan.pins, "other": msgspec.structs.replace(plan.pins["other"], artifact=file.digest)}
    data = msgspec.structs.replace(plan, pins=pins).to_bytes()
    made = graph(house, versions, models)
    files = {
        **made.files,
        "other.model.onnx": file,
        "graph.json": File(digest=house.blobs.put(data), size_bytes=len(data)),
    }
    info = entered(house, msgspec.structs.replace(made, files=files), models)
    assert outcomes(info)["artifact"] is Outcome.FAILED


def test_what_the_nodes_do_not_say_together_is_rejected(
    house: House, versions: list[VersionInfo], models: list[Any]
) -> None:
    """A planted fault in how serving combines: parity with the reference finds it."""
    info = house.registry.register(graph(house, versions, models))
    crooked = inputs(house, models[::-1])
    assert outcomes(house.registry.judge(info.ref, crooked, actor="system"))["parity"] is Outcome.FAILED


def test_a_node_of_a_live_graph_is_not_retired_and_a_graph_with_a_retired_node_does_not_serve(
    house: House, versions: list[VersionInfo], models: list[Any]
) -> None:
    info = entered(house, graph(house, versions, models), models)
    house.registry.approve(info.ref, BEN, reason="good")

    def live(*refs: VersionRef) -> None:
        transact(house.records, lambda tx: house.registry.mark_answering(tx, "blend", refs, actor="system"))

    live(info.ref)
    with pytest.raises(Conflict, match="delay@2 is a node of blend@1, which is live"):
        house.registry.retire(versions[1].ref, actor="ben", reason="old")
    live()
    house.registry.retire(versions[1].ref, actor="ben", reason="old")
    with pytest.raises(Denied, match="its node 'other', delay@2, is retired"):
        house.registry.load(info.ref, to_serve=True)
