"""Migrations of sqlite, forward only."""
