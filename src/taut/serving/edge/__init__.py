"""The runner at the edge: a verified bundle that answers alone, asks the cloud when unsure, and tells what it counted."""

from taut.serving.edge.bundle import Bundle, Contents, Expected, verify_bundle

__all__ = ["Bundle", "Contents", "Expected", "verify_bundle"]
