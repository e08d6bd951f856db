"""One bootstrap of all blocks on the CPU, in compiled kernels."""
