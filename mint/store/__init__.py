"""Finished stages on disk, complete or absent, shared by processes and nodes."""
