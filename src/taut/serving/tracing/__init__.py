"""Traces: requests that were sampled, as spans of their stages, delivered by OTLP beside the path."""

from taut.serving.tracing.context import Trace, parse_traceparent
from taut.serving.tracing.exporter import Exporter, Send
from taut.serving.tracing.otlp import Resource, encode_spans
from taut.serving.tracing.tracer import RequestSpan, Tracer

__all__ = [
    "Exporter",
    "RequestSpan",
    "Resource",
    "Send",
    "Trace",
    "Tracer",
    "encode_spans",
    "parse_traceparent",
]
