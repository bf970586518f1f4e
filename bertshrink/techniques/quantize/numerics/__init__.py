"""The maths of few bits, on numpy arrays alone."""
