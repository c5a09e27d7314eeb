"""The stories that cross stages, durable."""
