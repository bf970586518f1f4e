"""Weights in each number format as nodes of a graph."""
