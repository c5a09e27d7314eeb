"""The threat model of a project: its data flows as they are, what threatens each, and what stands against it."""

from taut.trust.threats.drawing import draw
from taut.trust.threats.page import markdown
from taut.trust.threats.stride import Threat, threats_of
from taut.trust.threats.values import Change, Element, Flow, Map, Setting, changes

__all__ = [
    "Change",
    "Element",
    "Flow",
    "Map",
    "Setting",
    "Threat",
    "changes",
    "draw",
    "markdown",
    "threats_of",
]
