"""Networks by name, their layer pairs, their activations, and weights from files."""
