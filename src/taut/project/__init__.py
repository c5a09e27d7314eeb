"""What a builder declares: values and decorators, pure data once loaded."""
