"""What was made from what, from any answer back to the rows that it rests on, in OpenLineage's terms."""

from taut.trust.lineage.lineage import Lineage
from taut.trust.lineage.tables import metadata
from taut.trust.lineage.values import LineageNode, LineageStep, lineage_as_json

__all__ = ["Lineage", "LineageNode", "LineageStep", "lineage_as_json", "metadata"]
