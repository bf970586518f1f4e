"""What must be known before weights are written: ranges, Gram matrices, smoothed scales."""
