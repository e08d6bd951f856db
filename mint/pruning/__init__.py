"""Scores, masks and the search for how much to prune; what pruning buys."""
