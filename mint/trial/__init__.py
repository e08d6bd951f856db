"""One trial, from its plan to its result; imports neither Ray nor MLflow."""
