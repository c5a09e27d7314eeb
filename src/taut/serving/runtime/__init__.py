"""The runtime: loads a model, checks it against its signature, and turns columns into outputs, free of transport."""

from taut.serving.runtime.encode import Feed, Matrix
from taut.serving.runtime.form import Cost, ModelForm, code_tensors
from taut.serving.runtime.graph import Graph, LoadedGraph, Outcome, load_graph
from taut.serving.runtime.loaded import LoadedModel
from taut.serving.runtime.outputs import Outputs
from taut.serving.runtime.profile import SIZINGS, Profile, Sizing
from taut.serving.runtime.rows import RowDecoder, Value
from taut.serving.runtime.score import score_rows
from taut.serving.runtime.session import OnnxModel, load

__all__ = [
    "SIZINGS",
    "Cost",
    "Feed",
    "Graph",
    "LoadedGraph",
    "LoadedModel",
    "Matrix",
    "ModelForm",
    "OnnxModel",
    "Outcome",
    "Outputs",
    "Profile",
    "RowDecoder",
    "Sizing",
    "Value",
    "code_tensors",
    "load",
    "load_graph",
    "score_rows",
]
