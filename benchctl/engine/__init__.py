"""Profiling, training and evaluation of one cell."""
