"""Lineage: what is recorded is found again, whole or with what is left out named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from taut.core.canonical import canonical_json
from taut.core.errors import Exhausted, InvalidInput
from taut.core.refs import Kind, Ref
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock
from taut.trust.lineage import Lineage, LineageNode, lineage_as_json, metadata
from taut.trust.lineage import tables as t


def ref(text: str) -> Ref:
    return Ref.parse(text)


SOURCE = ref(f"source:sha256:{'0' * 64}#flights.csv")
BATCH, QUARANTINE = ref("batch:b1"), ref("quarantine:b1")
SNAPSHOT, RUN, MODEL = ref("snapshot:flights@1"), ref("run:r1"), ref("model:delay@1")


@pytest.fixture
def records() -> Iterator[MemoryRecords]:
    store = memory_records(metadata)
    yield store
    store.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def lineage(clock: ManualClock) -> Lineage:
    return Lineage(clock)


def tell_the_story(records: MemoryRecords, lineage: Lineage, clock: ManualClock) -> None:
    with records.begin() as tx:
        lineage.record(
            tx, activity="ingest", inputs=[SOURCE], outputs=[BATCH, QUARANTINE], facts={"rows": 10}
        )
        lineage.describe(tx, SOURCE, {"size_bytes": 1024})
    clock.advance(1)
    with records.begin() as tx:
        lineage.record(tx, activity="commit", inputs=[BATCH], outputs=[SNAPSHOT])
        lineage.describe(tx, SNAPSHOT, {"rows": 8, "files": 1, "size_bytes": 512})
    clock.advance(1)
    with records.begin() as tx:
        lineage.record(tx, activity="train", inputs=[SNAPSHOT], outputs=[RUN])
        lineage.record(tx, activity="register", inputs=[RUN, SNAPSHOT], outputs=[MODEL])


def refs_of(node: LineageNode) -> list[str]:
    found = [str(node.ref)]
    for step in node.steps:
        for child in step.inputs:
            found += refs_of(child)
    return found


def test_a_model_is_explained_back_to_its_source_file(
    records: MemoryRecords, lineage: Lineage, clock: ManualClock
) -> None:
    tell_the_story(records, lineage, clock)

    with records.read() as tx:
        tree = lineage.why(tx, MODEL)

    assert str(SOURCE) in refs_of(tree)
    register = tree.steps[0]
    assert register.activity == "register"
    run = next(child for child in register.inputs if child.ref == RUN)
    assert run.steps[0].activity == "train"
    assert run.steps[0].inputs[0].ref == SNAPSHOT


def test_a_shared_thing_is_expanded_once_and_marked_elsewhere(
    records: MemoryRecords, lineage: Lineage, clock: ManualClock
) -> None:
    tell_the_story(records, lineage, clock)

    with records.read() as tx:
        text = canonical_json(lineage_as_json(lineage.why(tx, MODEL))).decode()

    assert text.count(str(SOURCE)) == 1
    assert text.count('"repeated":true') == 1


def test_two_outputs_of_one_activity_show_it_in_full_once(records: MemoryRecords, lineage: Lineage) -> None:
    with records.begin() as tx:
        lineage.record(tx, activity="ingest", inputs=[SOURCE], outputs=[BATCH, QUARANTINE])
        lineage.record(tx, activity="review", inputs=[BATCH, QUARANTINE], outputs=[SNAPSHOT])
    with records.read() as tx:
        tree = lineage.why(tx, SNAPSHOT)

    steps = [child.steps[0] for child in tree.steps[0].inputs]
    assert sorted(step.repeated for step in steps) == [False, True]


def test_facts_are_shown_where_they_were_said_and_a_newer_one_replaces_the_older(
    records: MemoryRecords, lineage: Lineage
) -> None:
    with records.begin() as tx:
        lineage.describe(tx, SNAPSHOT, {"rows": 1, "note": None})
        lineage.describe(tx, SNAPSHOT, {"rows": 2})
    with records.read() as tx:
        assert lineage.facts(tx, SNAPSHOT) == {"note": None, "rows": 2}
        assert lineage.why(tx, SNAPSHOT).facts == {"note": None, "rows": 2}


def test_recording_the_same_again_changes_nothing(records: MemoryRecords, lineage: Lineage) -> None:
    for _ in range(3):
        with records.begin() as tx:
            lineage.record(tx, activity="ingest", inputs=[SOURCE], outputs=[BATCH], facts={"rows": 1})
    with records.read() as tx:
        assert tx.execute(select(func.count()).select_from(t.activities)).scalar_one() == 1
        assert len(lineage.why(tx, BATCH).steps) == 1


def test_what_was_rolled_back_has_no_lineage(records: MemoryRecords, lineage: Lineage) -> None:
    def half() -> None:
        with records.begin() as tx:
            lineage.record(tx, activity="ingest", inputs=[SOURCE], outputs=[BATCH])
            raise InvalidInput("the effect failed")

    with pytest.raises(InvalidInput, match="the effect failed"):
        half()
    with records.read() as tx:
        assert lineage.why(tx, BATCH).steps == ()


def test_an_unknown_reference_is_a_node_without_steps(records: MemoryRecords, lineage: Lineage) -> None:
    with records.read() as tx:
        assert lineage_as_json(lineage.why(tx, MODEL)) == {"ref": "model:delay@1"}


def test_nothing_is_made_from_itself(records: MemoryRecords, lineage: Lineage) -> None:
    with pytest.raises(InvalidInput, match="made from itself"), records.begin() as tx:
        lineage.record(tx, activity="ingest", inputs=[BATCH, SOURCE], outputs=[BATCH])


@pytest.mark.parametrize(
    ("activity", "outputs"),
    [("", [BATCH]), ("x" * 129, [BATCH]), ("ingest", []), ("ingest", [Ref(Kind.BATCH, "a\nb")]),
     ("ingest", [Ref(Kind.BATCH, "a" * 2000)])],
)  # fmt: skip
def test_a_malformed_record_is_refused(
    records: MemoryRecords, lineage: Lineage, activity: str, outputs: list[Ref]
) -> None:
    with pytest.raises(InvalidInput), records.begin() as tx:
        lineage.record(tx, activity=activity, inputs=[], outputs=outputs)


@pytest.mark.parametrize("facts", [{"x": float("nan")}, {"": 1}, {"n" * 129: 1}])
def test_a_malformed_fact_is_refused(
    records: MemoryRecords, lineage: Lineage, facts: dict[str, float]
) -> None:
    with pytest.raises(InvalidInput), records.begin() as tx:
        lineage.describe(tx, SNAPSHOT, facts)


def test_a_circle_that_somebody_forged_does_not_hang_the_walk(
    records: MemoryRecords, lineage: Lineage
) -> None:
    a, b = ref("run:a"), ref("run:b")
    with records.begin() as tx:
        lineage.record(tx, activity="x", inputs=[a], outputs=[b])
        lineage.record(tx, activity="y", inputs=[b], outputs=[a])
    with records.read() as tx:
        assert refs_of(lineage.why(tx, a)) == ["run:a", "run:b", "run:a"]
        assert lineage.downstream(tx, a) == (b,)


def chain(records: MemoryRecords, lineage: Lineage, length: int) -> Ref:
    with records.begin() as tx:
        for number in range(1, length):
            lineage.record(
                tx,
                activity="ingest",
                inputs=[ref(f"snapshot:s@{number}")],
                outputs=[ref(f"snapshot:s@{number + 1}")],
            )
    return ref(f"snapshot:s@{length}")


def test_a_tree_cut_by_depth_says_so(records: MemoryRecords, lineage: Lineage) -> None:
    last = chain(records, lineage, 120)
    with records.read() as tx:
        cut, node = lineage.why(tx, last, depth=5), None
        whole = lineage.why(tx, ref("snapshot:s@6"), depth=5)
        deepest = lineage.why(tx, last, depth=100)
    node = cut
    while node.steps:
        node = node.steps[0].inputs[0]

    assert (str(node.ref), node.deeper) == ("snapshot:s@115", True)
    assert "deeper" not in str(lineage_as_json(whole))
    assert canonical_json(lineage_as_json(deepest))  # as deep as it may be and yet printable


def test_events_cut_by_depth_say_so(records: MemoryRecords, lineage: Lineage) -> None:
    last = chain(records, lineage, 12)
    with records.read() as tx:
        events = lineage.openlineage(tx, last, depth=3)
        assert len(lineage.openlineage(tx, last)) == 22

    bounds = [e["inputs"][0]["facets"].get("taut_bounds") for e in events if e["eventType"] == "COMPLETE"]
    assert sum(bound is not None for bound in bounds) == 1


def test_a_snapshot_of_thousands_of_files_is_recorded_and_explained(
    records: MemoryRecords, lineage: Lineage
) -> None:
    files = [ref(f"source:sha256:{number:064x}#part-{number}.csv") for number in range(5000)]
    with records.begin() as tx:
        lineage.record(tx, activity="ingest", inputs=files, outputs=[SNAPSHOT])
        for file in files[:10]:
            lineage.describe(tx, file, {"rows": 3})
    with records.read() as tx:
        whole = lineage.why(tx, SNAPSHOT)
        cut = lineage.why(tx, SNAPSHOT, nodes_max=100)
        events = lineage.openlineage(tx, SNAPSHOT, nodes_max=100)

    assert len(whole.steps[0].inputs) == 5000
    assert sum(bool(child.facts) for child in whole.steps[0].inputs) == 10
    assert len(cut.steps[0].inputs) + cut.steps[0].omitted == 5000
    assert events[-1]["run"]["facets"]["taut_bounds"]["omittedInputs"] == cut.steps[0].omitted


def test_downstream_lists_everything_made_nearest_first_and_refuses_to_leave_gaps(
    records: MemoryRecords, lineage: Lineage, clock: ManualClock
) -> None:
    tell_the_story(records, lineage, clock)
    with records.read() as tx:
        assert lineage.downstream(tx, SOURCE) == (BATCH, QUARANTINE, SNAPSHOT, MODEL, RUN)
        assert lineage.downstream(tx, MODEL) == ()
        with pytest.raises(Exhausted):
            lineage.downstream(tx, SOURCE, nodes_max=2)


@pytest.mark.parametrize(("depth", "nodes_max"), [(0, 10), (101, 10), (5, 0), (5, 10**6)])
def test_bounds_out_of_range_are_refused(
    records: MemoryRecords, lineage: Lineage, depth: int, nodes_max: int
) -> None:
    with records.read() as tx, pytest.raises(InvalidInput):
        lineage.why(tx, MODEL, depth=depth, nodes_max=nodes_max)


UUID_SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def check_run_event(event: dict[str, Any]) -> None:
    """The rules of the OpenLineage 2-0-2 schema for a RunEvent, read from the specification."""
    assert {"eventTime", "producer", "schemaURL", "run", "job"} <= set(event)
    assert event["eventType"] in {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert UUID_SHAPE.fullmatch(event["run"]["runId"])
    assert event["job"]["namespace"]
    assert event["job"]["name"]
    facets = [*event["run"]["facets"].values(), *event["job"]["facets"].values()]
    for dataset in (*event["inputs"], *event["outputs"]):
        assert dataset["namespace"]
        assert dataset["name"]
        facets += dataset["facets"].values()
        facets += dataset.get("outputFacets", {}).values()
    assert all({"_producer", "_schemaURL"} <= set(facet) for facet in facets)


def test_openlineage_events_follow_the_specification(
    records: MemoryRecords, lineage: Lineage, clock: ManualClock
) -> None:
    tell_the_story(records, lineage, clock)
    with records.read() as tx:
        events = lineage.openlineage(tx, MODEL)

    for event in events:
        check_run_event(event)
    assert [(e["job"]["name"], e["eventType"]) for e in events[:4]] == [
        ("ingest", "START"), ("ingest", "COMPLETE"), ("commit", "START"), ("commit", "COMPLETE"),
    ]  # fmt: skip
    ingest, commit = events[1], events[3]
    assert ingest["inputs"][0]["name"] == "flights.csv"
    assert ingest["inputs"][0]["facets"]["version"]["datasetVersion"] == f"sha256:{'0' * 64}"
    assert [output["namespace"] for output in ingest["outputs"]] == ["taut.batch", "taut.quarantine"]
    assert commit["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 8
    assert (commit["outputs"][0]["name"], commit["outputs"][0]["facets"]["version"]["datasetVersion"]) == (
        "flights",
        "1",
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_why_and_downstream_are_two_readings_of_one_graph(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    names = [ref(f"run:r{number}") for number in range(count)]
    records, lineage = memory_records(metadata), Lineage(ManualClock())
    parents: dict[Ref, set[Ref]] = {names[0]: set()}
    try:
        with records.begin() as tx:
            for number in range(1, count):
                chosen = data.draw(st.sets(st.sampled_from(names[:number]), max_size=4))
                parents[names[number]] = chosen
                lineage.record(tx, activity="step", inputs=sorted(chosen), outputs=[names[number]])
        above: dict[Ref, set[Ref]] = {}
        for name in names:
            above[name] = parents[name] | {up for parent in parents[name] for up in above[parent]}
        with records.read() as tx:
            for name in names:
                assert set(refs_of(lineage.why(tx, name))) == {str(up) for up in above[name]} | {str(name)}
                assert set(lineage.downstream(tx, name)) == {other for other in names if name in above[other]}
    finally:
        records.close()
