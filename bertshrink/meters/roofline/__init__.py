"""What the machine could do, and how near the models come to it."""
