"""Public test doubles and conformance suites, for taut's own adapters and for plug-ins."""
