"""Numba kernels; nothing outside of this package imports Numba.

Run them from one thread: OpenMP teams of two calling threads would compete for the same cores.
"""
