"""The world, one technology a file. Only bootstrap imports from here."""
