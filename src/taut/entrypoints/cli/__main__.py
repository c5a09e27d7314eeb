"""`python -m taut.entrypoints.cli`, for where the `taut` command is not on the path."""

from taut.entrypoints.cli import main

main()
