"""The estimator of geometric mutual information: pure functions on arrays."""
