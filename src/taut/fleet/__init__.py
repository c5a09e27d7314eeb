"""Replicas: which processes there are, which of them may serve, and what was said before there were more."""
