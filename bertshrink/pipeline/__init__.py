"""A plan in, a report out: the one loop, the run folder, and timing at the end."""
