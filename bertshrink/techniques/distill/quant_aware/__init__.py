"""A student that computes in training as it will after `quantize`."""
