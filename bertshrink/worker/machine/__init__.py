"""What the machine says of itself: identity, memory, affinity, interference. Standard library alone."""
