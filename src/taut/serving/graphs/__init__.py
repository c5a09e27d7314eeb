"""Graphs in a gateway: loaded whole, each node here or in workers of its own, asked side by side."""

from taut.serving.graphs.model import GraphModel, checked_plan
from taut.serving.graphs.run import RESERVE, GraphRun
from taut.serving.graphs.work import NodeWork

__all__ = ["RESERVE", "GraphModel", "GraphRun", "NodeWork", "checked_plan"]
