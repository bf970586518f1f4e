"""Texts as training batches: padding, masking, packing."""
