"""Texts, labels, and rows of tokens."""
