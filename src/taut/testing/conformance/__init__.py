"""Conformance suites: what any adapter of a port must pass, plug-ins included."""
