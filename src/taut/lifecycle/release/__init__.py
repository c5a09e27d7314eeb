"""Which version answers for which endpoint, since when, by whose word, and what it replaced."""

from taut.lifecycle.release.releases import ReleaseInfo, Releases, ReleaseState, Route
from taut.lifecycle.release.tables import metadata

__all__ = ["ReleaseInfo", "ReleaseState", "Releases", "Route", "metadata"]
