"""The whole story on real data: New York flights of 2013, from raw files to a guarded, explained answer."""
