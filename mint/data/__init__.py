"""Data sets, their images, and batches on a device."""
