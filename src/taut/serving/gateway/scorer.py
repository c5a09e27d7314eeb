"""One loaded version as an endpoint asks it: rows of the request and features in, checked outputs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from taut.core.errors import InvalidInput
from taut.core.schema import Column, FeatureLookup, ModelSignature
from taut.serving.errors import FeaturesLost, MissingFeature
from taut.serving.gateway.breakers import Breaker
from taut.serving.gateway.tensors import Batch
from taut.serving.graphs import GraphModel
from taut.serving.memory import Model, Resident
from taut.serving.predictions import FeatureRow
from taut.serving.runtime import LoadedModel, Outputs
from taut.serving.runtime.encode import Matrix
from taut.serving.runtime.rows import Value
from taut.serving.runtime.score import feature_value
from taut.serving.snapshot import ServedModel
from taut.serving.workers import Lane

Features = Sequence[Sequence[FeatureRow | None]]
"""Row -> lookup -> what was found, in the order of the endpoint's lookups: those of its live version."""
Rows = Sequence[Sequence[Value]]
Found = Sequence[FeatureRow | None]


class Scorer:
    """One version: turns rows of the endpoint's requests and features into outputs.

    face: the signature that requests are read by, and features found by; its own, or that of the version that it
    stands in for. resident: where the model lies while it is in memory. node_breakers: of a graph's
    nodes, set by the gateway when it begins to serve this. needs_features: whether it looks at any.
    """

    def __init__(
        self, served: ServedModel, resident: Resident, *, face: ModelSignature | None = None
    ) -> None:
        face = face or served.signature
        self.served: Final = served
        self.resident: Final = resident
        self.key: Final = resident.key
        self.node_breakers: Final[dict[str, Breaker]] = {}
        self.needs_features: Final = bool(served.signature.lookups)
        self._assemble: Final = _assembler(served, face)
        signature = served.signature
        self._row_major: Final = signature.tensor == "matrix"
        self._matrix: Final = Matrix([item.column for item in signature.inputs]) if self._row_major else None

    @property
    def model(self) -> Model:
        """Return the model, which must be in memory."""
        model = self.resident.model
        assert model is not None, "a request pins its model, and waits until it is loaded"
        return model

    @property
    def graph(self) -> GraphModel:
        """Return the graph, which must be in memory."""
        model = self.model
        assert isinstance(model, GraphModel), "its version has nodes"
        return model

    @property
    def lane(self) -> Lane | None:
        """Return the workers that run the model; None where it runs in this process, or is not in memory."""
        return self.resident.lane

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Return the workers of the model, or of a graph's nodes."""
        return self.resident.lanes

    @property
    def direct(self) -> bool:
        """Whether the model takes one FP32 tensor of just the request's columns."""
        return self._assemble is None and self._matrix is not None

    def rows_within(self, inline_us: float) -> int:
        """Return how many rows may be scored in the event loop, of a model in this process."""
        return self.model.rows_within(inline_us)

    def late_s(self) -> float:
        """Return by how much an answer that was made beside the loop is held back, in seconds: 0 but in a drill."""
        return 0.0

    def score(self, batch: Batch, features: Features) -> Outputs:
        """Return checked outputs of a model that runs in this process.

        Raises what `feed` does, and BadAnswer for nonsense.
        """
        model = self.resident.model
        assert isinstance(model, LoadedModel), "workers are asked through their lane"
        return model.run(self.feed(batch, features), batch.count)

    def feed(self, batch: Batch, features: Features) -> Any:
        """Return the model's tensors; of a graph, its columns by name.

        Raises MissingFeature for a feature without a value, FeaturesLost for one that is just being rewritten,
        InvalidInput for a value that the model cannot take.
        """
        if batch.packed:
            assert self._matrix is not None, "batches are packed for direct models only"
            return self._matrix.feed(batch.rows, batch.count)
        rows: Rows = batch.rows
        given = rows if self._assemble is None else self._assemble(rows, features)
        return self.model.encode(given if self._row_major else list(zip(*given, strict=True)))


def _assembler(served: ServedModel, face: ModelSignature) -> Callable[[Rows, Features], Rows] | None:
    """Return what puts request columns and features into the model's order; None where the request already is."""
    signature = served.signature
    positions = {column.name: index for index, column in enumerate(face.request)}
    if [item.column.name for item in signature.inputs] == list(positions) and not signature.lookups:
        return None
    sets = {lookup.feature_set: index for index, lookup in enumerate(face.lookups)}
    takes: list[Callable[[int, Sequence[Value], Found], Value]] = []
    for item in signature.inputs:
        name = item.column.name
        if item.feature_set is None:
            takes.append(_request_taker(positions[name]))
            continue
        forms = served.feature_columns.get(item.feature_set, {})
        places = {source: columns.index(name) for source, columns in forms.items() if name in columns}
        if not places:
            raise InvalidInput(
                f"{served.version}: feature {name!r} is no column of {item.feature_set!r} in the snapshot: issue it again"
            )
        at = sets[item.feature_set]
        takes.append(_feature_taker(item.column, at, places, face.lookups[at]))

    def assemble(rows: Rows, features: Features) -> Rows:
        found = features or [()] * len(rows)
        return [
            [take(index, row, looked_up) for take in takes]
            for index, (row, looked_up) in enumerate(zip(rows, found, strict=True))
        ]

    return assemble


def _request_taker(position: int) -> Callable[[int, Sequence[Value], object], Value]:
    return lambda _index, row, _found: row[position]


def _feature_taker(
    column: Column, at: int, places: Mapping[str, int], lookup: FeatureLookup
) -> Callable[[int, Sequence[Value], Found], Value]:
    """places: materialisation -> where the feature stands in its rows."""
    feature_set = lookup.feature_set

    def take(index: int, _row: Sequence[Value], found: Found) -> Value:
        entry = found[at]
        if entry is not None and entry.source not in places:
            raise FeaturesLost(
                f"feature {column.name!r} of {feature_set!r}: its row is of {entry.source}, which is being put online: "
                "try again shortly"
            )
        value = None if entry is None else feature_value(column, entry.values[places[entry.source]])
        if value is None and not column.nullable:
            why = (
                "no row for this entity, or one that is too old"
                if entry is None
                else "null in the online store"
            )
            raise MissingFeature(
                f"row {index}, feature {column.name!r} of {feature_set!r}: {why}; materialise the set, or make it nullable"
            )
        return value

    return take
