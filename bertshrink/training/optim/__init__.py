"""Optimizers of large embedding tables, and Adam for a few steps."""
