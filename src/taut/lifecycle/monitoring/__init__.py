"""Watching what a released model is asked and answers: drift, faults of inputs, quality with and without labels."""

from __future__ import annotations

from taut.lifecycle.monitoring.betting import ShareWatch
from taut.lifecycle.monitoring.cells import Cells, cells_of, tally
from taut.lifecycle.monitoring.detector import Detector
from taut.lifecycle.monitoring.doubt import Weighed, weigh
from taut.lifecycle.monitoring.reference import (
    CONFIDENCE,
    LABEL,
    SCORE,
    Learned,
    Reference,
    freeze,
    learned_of_labels,
    learned_of_values,
)
from taut.lifecycle.monitoring.watch import ColumnFigures, EndpointWatch, Figures, Quality, Tolerance
from taut.lifecycle.monitoring.window import Shift, Usual, Window

__all__ = [
    "CONFIDENCE",
    "LABEL",
    "SCORE",
    "Cells",
    "ColumnFigures",
    "Detector",
    "EndpointWatch",
    "Figures",
    "Learned",
    "Quality",
    "Reference",
    "ShareWatch",
    "Shift",
    "Tolerance",
    "Usual",
    "Weighed",
    "Window",
    "cells_of",
    "freeze",
    "learned_of_labels",
    "learned_of_values",
    "tally",
    "weigh",
]
