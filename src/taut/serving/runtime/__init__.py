"""The runtime: loads a model, checks it against its signature, and turns columns into outputs, free of transport."""

from taut.serving.runtime.encode import Feed, Matrix
from taut.serving.runtime.form import Cost, ModelForm
from taut.serving.runtime.outputs import Outputs
from taut.serving.runtime.rows import RowDecoder, Value
from taut.serving.runtime.score import score_rows
from taut.serving.runtime.session import LoadedModel, load

__all__ = [
    "Cost",
    "Feed",
    "LoadedModel",
    "Matrix",
    "ModelForm",
    "Outputs",
    "RowDecoder",
    "Value",
    "load",
    "score_rows",
]
