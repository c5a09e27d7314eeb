"""Latest features of an entity, on SQLite in the process that asks."""

from taut.adapters.online.sqlite import SqliteOnlineReader, SqliteOnlineWriter, open_online_writer

__all__ = ["SqliteOnlineReader", "SqliteOnlineWriter", "open_online_writer"]
