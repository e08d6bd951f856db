"""One bootstrap of all blocks on a GPU."""
