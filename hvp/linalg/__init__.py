"""Algorithms on any symmetric SciPy operator."""
