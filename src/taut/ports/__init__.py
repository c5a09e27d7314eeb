"""What taut asks of the world: one Protocol a file, whose docstring is the contract."""
