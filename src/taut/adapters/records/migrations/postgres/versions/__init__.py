"""Migrations of postgres, forward only."""
