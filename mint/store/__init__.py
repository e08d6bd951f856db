"""Finished stages on disk, whole or not at all, shared by processes and nodes."""
