"""Time and memory of all models side by side, in fresh processes that take turns."""
