"""Types and symbols: the model, and one source of them a file."""
