"""Mutual-information-based neuron trimming (MINT), and sweeps whose results can be trusted."""
