"""Timings side by side: the engines, what else computes the same numbers, and the floor below which none can go."""
