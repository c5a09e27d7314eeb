"""Keys in files of the installation."""
