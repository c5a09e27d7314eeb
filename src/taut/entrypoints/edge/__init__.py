"""The one file for the edge: how it is put together, and the runner that it begins with on a device."""
