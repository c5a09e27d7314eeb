"""The faces and the processes' mains."""
