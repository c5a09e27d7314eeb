"""Replicas: admission before traffic, and capacity."""
