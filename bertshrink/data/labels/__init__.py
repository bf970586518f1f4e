"""What labels are, and that they are seen where they are expected."""
