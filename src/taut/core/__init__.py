"""The nouns that every floor shares: pure values, no input or output."""
