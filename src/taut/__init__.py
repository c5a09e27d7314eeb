"""taut carries an AI project from pilot to production and keeps it there."""

__version__ = "0.1.0"
