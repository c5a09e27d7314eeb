"""Activities as OpenLineage run events (spec 2-0-2), with standard facets where facts fit one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from taut.core.evidence import Scalar
from taut.core.refs import Kind, Ref
from taut.trust.lineage.graph import Activity
from taut.trust.lineage.values import iso

PRODUCER: Final = "urn:taut:lineage"
SCHEMA_URL: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS: Final = "https://openlineage.io/spec/facets"
_VERSION_URL: Final = f"{_FACETS}/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
_STATISTICS_URL: Final = (
    f"{_FACETS}/1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet"
)
_JOB_TYPE_URL: Final = f"{_FACETS}/2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet"
_FACTS_URL: Final = "urn:taut:facets:facts:1#/$defs/FactsFacet"
_BOUNDS_URL: Final = "urn:taut:facets:bounds:1#/$defs/BoundsFacet"

Facts = Mapping[str, Mapping[str, Scalar]]


def run_events(
    activities: Iterable[Activity], facts: Facts, *, beyond: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return a START and a COMPLETE event for each activity, oldest first.

    taut records an activity when it ends, so both carry that time. Namespaces are `taut.` and the kind of reference.
    """
    events: list[dict[str, Any]] = []
    for activity in sorted(activities, key=lambda found: (found.at_us, found.id)):
        base = {
            "eventTime": iso(activity.at_us),
            "producer": PRODUCER,
            "schemaURL": SCHEMA_URL,
            "run": {"runId": activity.id, "facets": _run_facets(activity, facts)},
            "job": {"namespace": "taut", "name": activity.activity, "facets": {"jobType": _JOB_TYPE}},
        }
        events.append({"eventType": "START", **base, "inputs": [], "outputs": []})
        events.append(
            {
                "eventType": "COMPLETE",
                **base,
                "inputs": [_dataset(ref, facts.get(ref), deeper=ref in beyond) for ref in activity.inputs],
                "outputs": [_output(ref, facts.get(ref)) for ref in activity.outputs],
            }
        )
    return events


def _facet(schema_url: str, **fields: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": schema_url, **fields}


_JOB_TYPE: Final = _facet(_JOB_TYPE_URL, processingType="BATCH", integration="TAUT", jobType="STEP")


def _facts_facet(facts: Mapping[str, Scalar] | None) -> dict[str, Any]:
    return {"taut_facts": _facet(_FACTS_URL, facts=dict(facts))} if facts else {}


def _run_facets(activity: Activity, facts: Facts) -> dict[str, Any]:
    facets = _facts_facet(facts.get(activity.id))
    if activity.omitted:
        facets["taut_bounds"] = _facet(_BOUNDS_URL, omittedInputs=activity.omitted)
    return facets


def _dataset(text: str, facts: Mapping[str, Scalar] | None, *, deeper: bool = False) -> dict[str, Any]:
    ref = Ref.parse(text)
    name, version = _name_and_version(ref)
    facets = _facts_facet(facts)
    if version:
        facets["version"] = _facet(_VERSION_URL, datasetVersion=version)
    if deeper:
        facets["taut_bounds"] = _facet(_BOUNDS_URL, deeper=True)
    return {"namespace": f"taut.{ref.kind}", "name": name, "facets": facets}


def _output(text: str, facts: Mapping[str, Scalar] | None) -> dict[str, Any]:
    dataset = _dataset(text, facts)
    known = facts or {}
    fields = {"rowCount": known.get("rows"), "size": known.get("size_bytes"), "fileCount": known.get("files")}
    counted = {
        name: value
        for name, value in fields.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    if counted:
        dataset["outputFacets"] = {"outputStatistics": _facet(_STATISTICS_URL, **counted)}
    return dataset


def _name_and_version(ref: Ref) -> tuple[str, str]:
    """Split `name@number`, and a source's `digest#name`; anything else is a name without versions."""
    if ref.kind is Kind.SOURCE and "#" in ref.id:
        digest, _, name = ref.id.partition("#")
        return name, digest
    name, separator, version = ref.id.rpartition("@")
    return (name, version) if separator and name else (ref.id, "")
