"""The composition root: configuration, and the one table from URL schemes to adapters."""
