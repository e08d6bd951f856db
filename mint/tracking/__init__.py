"""Trials as MLflow runs; the only package that imports MLflow."""
