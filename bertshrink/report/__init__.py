"""What was found: measurements, statistics, and the versioned report."""
