"""Feature sets: computed once, joined point-in-time for training, looked up online for serving."""

from typing import TYPE_CHECKING

from taut.lifecycle.features.pit import join_point_in_time, known_rows
from taut.lifecycle.features.shape import feature_names, shaped

if TYPE_CHECKING:
    from taut.lifecycle.features.rows import Materialisation, OnlineState
    from taut.lifecycle.features.skew import SkewReport
    from taut.lifecycle.features.store import FeatureStore, JoinedFeatures, LoadedFeatures
    from taut.lifecycle.features.tables import metadata

__all__ = [
    "FeatureStore",
    "JoinedFeatures",
    "LoadedFeatures",
    "Materialisation",
    "OnlineState",
    "SkewReport",
    "feature_names",
    "join_point_in_time",
    "known_rows",
    "metadata",
    "shaped",
]

_CONTROL = {
    "FeatureStore": "store",
    "JoinedFeatures": "store",
    "LoadedFeatures": "store",
    "Materialisation": "rows",
    "OnlineState": "rows",
    "SkewReport": "skew",
    "metadata": "tables",
}


def __getattr__(name: str) -> object:
    """Import what control needs on first use: a job that computes features needs no SQLAlchemy."""
    if name not in _CONTROL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CONTROL[name]}"), name)
