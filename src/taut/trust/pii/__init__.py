"""Structured personal data and secrets in text, found by pattern and proved by checksum where there is one."""

from taut.trust.pii.detectors import TYPES, Span, find
from taut.trust.pii.scan import Finding, redact, scan

__all__ = ["TYPES", "Finding", "Span", "find", "redact", "scan"]
